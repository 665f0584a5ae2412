"""Kernels for GPUs in Triton, which comes with PyTorch's builds for CUDA and ROCm and needs no CUDA toolkit."""

import importlib.util
import os
import shutil

COMPILERS = "cc", "gcc", "clang"


def available() -> str | None:
    """Why Triton cannot be used here, or None where it can: it needs its package, and a C compiler for its launcher."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if os.environ.get("CC") is None and not any(map(shutil.which, COMPILERS)):
        return f"Triton finds no C compiler ({', '.join(COMPILERS)}, or the one that CC names)"
    return None
