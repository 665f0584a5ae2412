"""Neural renderer of mini: a residual U-Net on top of the rasterised colours."""

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
        freedom: Float[Tensor, "batch 1 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Correct the colours.

        Args:
            features: Learned features.
            colours: What to correct, premultiplied by alpha.
            alpha: How far a pixel shows the person.
            freedom: How far a pixel may be corrected, 0 to alpha.
        """
        half = F.silu(self._folded(features, torch.cat([colours, alpha], dim=1)))
        half = half + F.silu(self.at_half(half))
        quarter = F.silu(self.down_quarter(half))
        quarter = quarter + F.silu(self.at_quarter(quarter))
        eighth = F.silu(self.down_eighth(quarter))
        eighth = eighth + F.silu(self.at_eighth(eighth))
        quarter = quarter + F.silu(_doubled(self.up_quarter(eighth)))
        half = half + F.silu(_doubled(self.up_half(quarter)))
        return colours + freedom * F.pixel_shuffle(self.out(half), 2)

    def _folded(
        self,
        features: Float[Tensor, "batch channel height width"],
        rest: Float[Tensor, "batch 4 height width"],
    ) -> Float[Tensor, "batch stem half_height half_width"]:
        """Fold pixels into channels and apply the stem: one convolution of stride 2, whose inputs need no copies."""
        weight = self.stem.weight.view(self.stem.out_channels, -1, 2, 2)
        of_features, of_rest = weight.split([features.shape[1], rest.shape[1]], dim=1)
        return F.conv2d(features, of_features, self.stem.bias, 2) + F.conv2d(rest, of_rest, stride=2)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
