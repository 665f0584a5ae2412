"""View direction: the direction a picture was taken from, in NeRF's harmonic encoding."""

import torch
from jaxtyping import Float
from torch import Tensor

OCTAVES = 4

DIRECTION_CODE_WIDTH = 3 * (2 * OCTAVES + 1)


def direction_code(direction: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch code"]:
    """Sines, cosines and the direction itself; each component with frequencies 1, 2, 4, 8 (reference Q9).

    Args:
        direction: Where the camera looks, unit length, head space.
    """
    octaves = 2.0 ** torch.arange(OCTAVES, device=direction.device, dtype=direction.dtype)
    phases = (direction[..., None] * octaves).flatten(1)
    return torch.cat([phases.sin(), (phases + torch.pi / 2).sin(), direction], dim=1)
