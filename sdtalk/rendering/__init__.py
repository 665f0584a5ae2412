"""Gaussians -> pictures: rasterisers and neural renderers."""
