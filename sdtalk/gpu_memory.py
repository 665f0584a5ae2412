"""GPU memory: how much of it is free, and what a user is told where it does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sdtalk.errors import InputError


def free_bytes(device: torch.device) -> int:
    """Memory of a CUDA device that PyTorch can still get, or has and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU has too little memory; libraries around PyTorch have words of their own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in words or "ALLOC_FAILED" in words)


def no_memory(device: torch.device) -> InputError:
    """What a user is told where even the least does not fit."""
    problem = "the GPU has too little free memory (it may be too small, or another process may be using it)"
    remedy = "See who uses it with `nvidia-smi` and end that, or choose the device cpu."
    return InputError(f"device {device.type}", problem, remedy)


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Tell users in one line where what happens inside of the `with` block needs more memory than a GPU has.

    Args:
        device: Where is computed.

    Raises:
        InputError: The GPU's memory does not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if device.type != "cuda" or not lacks_memory(error):
            raise
        # not "from error": its traceback would keep all tensors of the attempt
        raise no_memory(device) from None
