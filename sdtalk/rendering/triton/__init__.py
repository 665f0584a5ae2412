"""Kernels for GPUs in Triton, which comes with PyTorch's builds for CUDA and ROCm and needs no CUDA toolkit."""

import importlib.util
import os
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lack:
    """Why Triton cannot be used on this machine.

    Attributes:
        problem: What is missing.
        remedy: What to do.
    """

    problem: str
    remedy: str


def c_compiler() -> str | None:
    """The C compiler that Triton builds its launcher with: $CC, else gcc or clang; None: there is none."""
    if named := os.environ.get("CC"):
        return shutil.which(named)
    return shutil.which("gcc") or shutil.which("clang")


def lacking() -> Lack | None:
    """What Triton lacks here, whatever the GPU: its package, a C compiler, Python's headers. None: nothing."""
    if importlib.util.find_spec("triton") is None:
        remedy = "Install PyTorch with CUDA, which brings it: https://pytorch.org/get-started/locally"
        return Lack("Triton is not installed", remedy)
    if c_compiler() is None:
        remedy = "Install one (Debian, Ubuntu: apt-get install gcc), or name it in CC"
        return Lack("Triton finds no C compiler", remedy)
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        remedy = "Install them (Debian, Ubuntu: apt-get install python3-dev)"
        return Lack("Triton finds no headers of Python", remedy)
    return None
