"""Compilation of the CPU rasteriser's kernels: Numba, without the GIL, machine code cached on disk."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numba
from numba.extending import intrinsic

_SOURCES = [*Path(__file__).parent.glob("*.py"), Path(__file__).parent.with_name("rules.py")]
_DIGEST = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(_SOURCES))).hexdigest()[:12]

REORDER = {"nsz", "arcp", "contract", "reassoc"}
"""Liberties for sums over pixels and features; NaN and infinity keep their meaning."""


def kernel(
    function: Callable[..., Any],
    fastmath: set[str] | bool = False,
    inline: Literal["never", "always"] = "never",
) -> Callable[..., Any]:
    """Compile at first use, without the GIL, and keep the machine code on disk.

    Numba looks only at a kernel's own file to see whether its machine code is out of date, though kernels of other
    files are compiled into it. So the name it is filed under carries a digest of all of them.
    """
    function = inspect.unwrap(function)  # the tests' type checker wraps every function of the package
    function.__qualname__ += f"_{_DIGEST}"
    return numba.njit(nogil=True, cache=True, fastmath=fastmath, inline=inline)(function)


def fast_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` that may reorder and fuse floating point operations."""
    return kernel(function, REORDER)


def inlined_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """`fast_kernel` that becomes part of the kernels that call it, for inner loops."""
    return kernel(function, REORDER, inline="always")


def vector_operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's `intrinsic`: a function that writes LLVM code when a kernel that calls it is compiled."""
    return intrinsic(inspect.unwrap(function))
