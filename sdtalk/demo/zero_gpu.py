"""ZeroGPU: Hugging Face Spaces whose GPU is lent for one call at a time, to a fork of the process.

The package `spaces` is installed on every Space. On one with ZeroGPU it imitates CUDA in the process itself, so that
models are loaded "onto the GPU" before anybody comes. A function given to `spaces.GPU` runs in a fork, which gets the
real GPU; arguments and results are pickled. Threads of the process do not exist there. Everywhere else the package
changes nothing. https://huggingface.co/docs/hub/spaces-zerogpu
"""

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def on_zero_gpu() -> bool:
    """Whether this process runs on a Space with ZeroGPU; the variable is what `spaces` itself looks at."""
    told = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
    return told and importlib.util.find_spec("spaces") is not None


def import_spaces() -> None:
    """Import `spaces` on ZeroGPU: before Gradio, and before PyTorch, whose CUDA it replaces."""
    if on_zero_gpu():
        importlib.import_module("spaces")


def on_a_lent_gpu(
    function: Callable[..., Result], seconds: Callable[..., float | int]
) -> Callable[..., Result]:
    """Let a function run in a fork with a GPU.

    Args:
        function: What it takes and returns must be picklable, and what it raises `gr.Error`: of other errors nothing
            but their class arrives.
        seconds: Called with the same arguments; how long the GPU is needed at most. A fork that takes longer is ended.
    """
    spaces = importlib.import_module("spaces")
    return spaces.GPU(duration=seconds)(function)
