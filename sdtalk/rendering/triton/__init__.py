"""CUDA rasteriser in Triton, which comes with PyTorch; its kernels also run on CPU tensors, interpreted, for tests."""
