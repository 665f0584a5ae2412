"""Full float32: what decides positions is computed on a GPU without TF32, which keeps 10 bits of 23."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_turn = threading.Lock()
_inside = 0
_before: tuple[str, bool] = ("", False)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """No TF32 inside of the `with` block, neither in matrix products nor in convolutions.

    By itself PyTorch takes TF32 for convolutions. The switches are those of the process: they are set back when the
    last of several threads leaves.

    Args:
        device: Where is computed; nothing happens unless on CUDA.
    """
    if device.type != "cuda":
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _before
    with _turn:
        if _inside == 0:
            convolutions = _convolutions_in_tf32()
            _before = torch.get_float32_matmul_precision(), convolutions
            _set("highest", False)
        _inside += 1


def _leave() -> None:
    global _inside
    with _turn:
        _inside -= 1
        if _inside == 0:
            _set(*_before)


def _set(products: str, convolutions: bool) -> None:
    """Set what differs, by the older switches of PyTorch: these set the newer ones, too, and not the other way."""
    if torch.get_float32_matmul_precision() != products:
        torch.set_float32_matmul_precision(products)
    if _convolutions_in_tf32() != convolutions:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there are newer ones
            torch.backends.cudnn.allow_tf32 = convolutions


def _convolutions_in_tf32() -> bool:
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
