"""Rendering: rasterisers and neural renderers; Gaussians to pictures."""
