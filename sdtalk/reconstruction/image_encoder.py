"""Image encoder of mini: a small U-Net over the photo and the plane priors."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

NORM_GROUPS = 8


class ConvBlock(nn.Sequential):
    """3x3 convolution, group norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(NORM_GROUPS, outputs), nn.SiLU()
        )


class ImageEncoder(nn.Module):
    """Picture with priors -> local features on the lifting plane and one global feature.

    A `global_width` of 0 leaves the global feature out.
    """

    def __init__(self, inputs: int, width: int, local_channels: int, global_width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.stem = ConvBlock(inputs, width)
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(a, b, stride=2), ConvBlock(b, b))
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.up = nn.ModuleList(
            ConvBlock(deep + skip, skip) for deep, skip in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.to_local = nn.Conv2d(width, local_channels, 1)
        self.to_global = nn.Linear(widths[-1], global_width) if global_width else None

    def forward(
        self, picture: Float[Tensor, "batch channel size size"]
    ) -> tuple[Float[Tensor, "batch local size size"], Float[Tensor, "batch global"] | None]:
        """Encode a picture whose side is a multiple of 16."""
        levels = [self.stem(picture)]
        for down in self.down:
            levels.append(down(levels[-1]))
        code = self.to_global(levels[-1].mean((2, 3))) if self.to_global is not None else None
        x = levels.pop()
        for up in self.up:
            skip = levels.pop()
            x = up(torch.cat([F.interpolate(x, size=skip.shape[-2:], mode="bilinear"), skip], dim=1))
        return self.to_local(x), code
