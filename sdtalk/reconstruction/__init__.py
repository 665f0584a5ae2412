"""Reconstruction: portrait to head Gaussians; image encoder, visible branch, completion branch."""
