"""CPU rasteriser: compiled Numba kernels, forward and backward, driven by a pool of threads."""
