"""Box filter: means over square windows, as fast for large windows as for small ones."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def window_means(
    x: Float[Tensor, "batch channel height width"], radius: int
) -> Float[Tensor, "batch channel height width"]:
    """Mean over the square window around every pixel, at the border over its part in the picture; by running sums.

    Args:
        x: Any values.
        radius: The window has 2 radius + 1 px on a side.
    """
    for dim in (2, 3):
        index, side = torch.arange(x.shape[dim], device=x.device), 2 * radius + 1
        count = (index + radius + 1).clamp(max=len(index)) - (index - radius).clamp(min=0)
        sums = F.pad(x, (0, 0, radius + 1, radius) if dim == 2 else (radius + 1, radius))
        sums = sums.cumsum(dim, dtype=torch.float64)
        total = sums.narrow(dim, side, len(index)) - sums.narrow(dim, 0, len(index))
        x = (total / count.view(-1, *(1,) * (3 - dim))).to(x.dtype)
    return x
