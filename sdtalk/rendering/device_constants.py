"""Device constants: point lists and numbers of the code as tensors, made once for each device.

A list that is given to PyTorch at every call is copied from the host every time, and the host waits until a GPU has it.
"""

from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor


@cache
def point_list(points: tuple[int, ...], device: torch.device) -> Int[Tensor, " point"]:
    """Numbers of points, to index a mesh with; the same tensor every time, not to be changed."""
    with torch.inference_mode(False):  # whoever needs gradients may index with it, too
        return torch.tensor(points, device=device)


@cache
def numbers(values: tuple[float, ...], device: torch.device) -> Float[Tensor, " value"]:
    """Numbers; the same tensor every time, not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float32, device=device)
