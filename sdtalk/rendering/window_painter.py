"""Window painter: a residual U-Net that corrects a window of the moved photo (lips' and lids' edges, teeth, cavity)."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.rendering.face_windows import FaceWindow
from sdtalk.rendering.window_inputs import correction_count, number_count, plane_count


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Float[Tensor, "window channel height width"]) -> Tensor:
        """The same shape."""
        return x + self.second(F.silu(self.first(F.silu(x))))


class WindowPainter(nn.Module):
    """Planes and numbers -> how to change the base; starts at zero.

    It works at half the resolution and below: pixels are folded into channels first.

    Args:
        window: What it paints.
        width: Channels at half the resolution; 2, 4 and 6 times as many at each further halving.
    """

    def __init__(self, window: FaceWindow, width: int = 24) -> None:
        super().__init__()
        w1, w2, w3, w4 = width, 2 * width, 4 * width, 6 * width
        self.stem = nn.Conv2d(4 * plane_count(window), w1, 1)
        self.at_half, self.to_quarter = ResidualBlock(w1), nn.Conv2d(w1, w2, 3, 2, 1)
        self.at_quarter, self.to_eighth = ResidualBlock(w2), nn.Conv2d(w2, w3, 3, 2, 1)
        self.at_eighth, self.to_sixteenth = ResidualBlock(w3), nn.Conv2d(w3, w4, 3, 2, 1)
        self.at_sixteenth = nn.Sequential(ResidualBlock(w4), ResidualBlock(w4))
        self.motion = nn.Sequential(
            nn.Linear(number_count(window), 64), nn.SiLU(), nn.Linear(64, 2 * (w3 + w4))
        )
        self.from_sixteenth, self.eighth_up = nn.Conv2d(w4, w3, 3, 1, 1), ResidualBlock(w3)
        self.from_eighth, self.quarter_up = nn.Conv2d(w3, w2, 3, 1, 1), ResidualBlock(w2)
        self.from_quarter, self.half_up = nn.Conv2d(w2, w1, 3, 1, 1), ResidualBlock(w1)
        self.out = nn.Conv2d(w1, 4 * correction_count(window), 3, 1, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self, planes: Float[Tensor, "window plane height width"], numbers: Float[Tensor, "window number"]
    ) -> Float[Tensor, "window channel height width"]:
        """The correction, for `WindowInputs.painted`.

        Args:
            planes: From `window_inputs`, or a part of them; sides are multiples of 16.
            numbers: From `window_inputs`.
        """
        w3 = self.at_eighth.first.in_channels
        motion = self.motion(numbers)[:, :, None, None]
        at_eighth, at_sixteenth = motion[:, : 2 * w3].chunk(2, 1), motion[:, 2 * w3 :].chunk(2, 1)
        # pixels folded into channels and a 1 x 1 convolution, as one: several times as fast
        folded = self.stem.weight.unflatten(1, (-1, 2, 2))[..., 0, 0]
        half = self.at_half(F.conv2d(planes, folded, self.stem.bias, stride=2))
        quarter = self.at_quarter(self.to_quarter(half))
        eighth = self.at_eighth(_modulated(self.to_eighth(quarter), *at_eighth))
        sixteenth = self.at_sixteenth(_modulated(self.to_sixteenth(eighth), *at_sixteenth))
        eighth = self.eighth_up(eighth + _doubled(self.from_sixteenth(sixteenth)))
        quarter = self.quarter_up(quarter + _doubled(self.from_eighth(eighth)))
        half = self.half_up(half + _doubled(self.from_quarter(quarter)))
        return F.pixel_shuffle(self.out(F.silu(half)), 2)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
