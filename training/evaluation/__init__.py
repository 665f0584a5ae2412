"""Measuring what a model renders: figures, protocols, and the pages that show them."""
