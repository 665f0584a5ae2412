"""Evaluation: protocols, metrics, and the reports that show them."""
