"""Losses of both stages (paper section 3.3); every function returns a scalar."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.tracking.face_model import LIPS

LIP_MARGIN = 0.25
"""The lip box is this share larger than the lips on every side."""


def image_loss(
    prediction: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    weight: Float[Tensor, "batch 1 height width"],
) -> Tensor:
    """L1, with a weight per pixel."""
    return ((prediction - target).abs() * weight).mean()


def gradient_loss(
    prediction: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    weight: Float[Tensor, "batch 1 height width"],
) -> Tensor:
    """L1 of differences between neighbours at two scales: keeps edges where L1 alone would blur them."""
    total = prediction.new_zeros(())
    for _ in range(2):
        error = prediction - target
        total = total + (error.diff(dim=-1).abs() * weight[..., 1:]).mean()
        total = total + (error.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
        prediction, target, weight = (F.avg_pool2d(x, 2) for x in (prediction, target, weight))
    return total


def lip_weight(
    lips_px: Float[Tensor, "batch lip 2"], size: int, inside: float
) -> Float[Tensor, "batch 1 height width"]:
    """1 everywhere, `inside` in a box around the lips."""
    low, high = lips_px.amin(1), lips_px.amax(1)
    margin = LIP_MARGIN * (high - low)
    centres = torch.arange(size, device=lips_px.device) + 0.5
    in_x = (centres > (low - margin)[:, :1]) & (centres < (high + margin)[:, :1])
    in_y = (centres > (low - margin)[:, 1:]) & (centres < (high + margin)[:, 1:])
    box = (in_y[:, :, None] & in_x[:, None, :])[:, None]
    return 1 + (inside - 1) * box.float()


def lifting_loss(
    mesh: Float[Tensor, "batch vertex 3"], lifted: Float[Tensor, "batch point 3"], chunk: int = 128
) -> Tensor:
    """Mean squared distance of each mesh vertex to its nearest lifted point (paper: L_lifting)."""
    nearest = [torch.cdist(part, lifted).amin(-1) for part in mesh.split(chunk, dim=1)]
    return torch.cat(nearest, dim=1).square().mean()


def lip_points(projected: Float[Tensor, "batch 478 2"]) -> Float[Tensor, "batch lip 2"]:
    """The lips of a projected mesh."""
    return projected[:, LIPS]
