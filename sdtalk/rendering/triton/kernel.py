"""Compilation of Triton kernels; under TRITON_INTERPRET=1 they run on CPU tensors instead, slowly, for tests."""

import inspect
from collections.abc import Callable
from typing import Any

import triton


def kernel(function: Callable[..., Any]) -> Any:
    """Triton's `jit`: compiled at the first call, for the card it runs on, and kept in Triton's own cache on disk."""
    return triton.jit(inspect.unwrap(function))  # the tests' type checker wraps every function of the package
