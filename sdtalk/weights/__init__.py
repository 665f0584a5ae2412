"""Weights and other files: bundled assets, files users add, the Hub, model cards, safe readers."""
