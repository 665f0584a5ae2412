"""Colourfulness: whether a photo has colours at all; where it has none, nothing that is learned may have any."""

from jaxtyping import Float
from torch import Tensor

GREY_BELOW = 0.08
"""Saturation below which a photo has ever less colour; skin has 0.3 and more."""


def colourfulness(photo: Float[Tensor, "photo 3 height width"]) -> Float[Tensor, " photo"]:
    """How far photos have colours, 0 (grey) to 1: by the mean difference of the largest and the smallest channel."""
    high, low = photo.amax(1), photo.amin(1)
    saturation = (high - low).mean((1, 2)) / high.mean((1, 2)).clamp_min(1e-3)
    return (saturation / GREY_BELOW).clamp(max=1)
