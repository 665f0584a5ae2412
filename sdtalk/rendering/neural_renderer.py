"""The neural renderer of mini: a residual U-Net on top of the rasterised colours (base: StyleUNet)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NeuralRenderer(nn.Module):
    """Feature image and colours -> corrected colours; starts as the identity on the colours.

    Works at half the resolution and below (pixels are folded into channels first), so that a 512 px frame costs
    less than 3 GFLOP.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4 * (channels + 4), width, 1)  # features, colours and alpha
        self.at_half = nn.Conv2d(width, width, 3, padding=1)
        self.down_quarter = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.at_quarter = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.down_eighth = nn.Conv2d(2 * width, 4 * width, 3, 2, 1)
        self.at_eighth = nn.Conv2d(4 * width, 4 * width, 3, padding=1)
        self.up_quarter = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.up_half = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 12, 3, padding=1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        features: Float[Tensor, "batch channel height width"],
        colours: Float[Tensor, "batch 3 height width"],
        alpha: Float[Tensor, "batch 1 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Correct the colours (premultiplied by alpha); the correction is premultiplied too, so none outside."""
        half = F.silu(self.stem(F.pixel_unshuffle(torch.cat([features, colours, alpha], dim=1), 2)))
        half = half + F.silu(self.at_half(half))
        quarter = F.silu(self.down_quarter(half))
        quarter = quarter + F.silu(self.at_quarter(quarter))
        eighth = F.silu(self.down_eighth(quarter))
        eighth = eighth + F.silu(self.at_eighth(eighth))
        quarter = quarter + F.silu(_doubled(self.up_quarter(eighth)))
        half = half + F.silu(_doubled(self.up_half(quarter)))
        return colours + alpha * F.pixel_shuffle(self.out(half), 2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
