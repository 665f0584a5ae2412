"""Person segmentation: which pixels show the person (reference/tracker.md 3.3)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.tracking.layers import SameConv

INPUT_PX = 256


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze, self.excite = SameConv(channels, hidden), SameConv(hidden, channels)

    def gate(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel 1 1"]:
        """The factors in [0, 1] alone."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.excite(F.relu_(self.squeeze(mean))))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Scale the channels."""
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """1x1 widen, depthwise, optional squeeze and excite, 1x1 narrow; skip where the shapes allow."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        squeeze: int,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.widen = SameConv(inputs, hidden)
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.gated = SqueezeExcite(hidden, squeeze) if squeeze else nn.Identity()
        self.narrow = SameConv(hidden, outputs)
        self.activation = activation
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Run the block; at stride 2 the output is half as wide and high."""
        y = self.activation(self.depthwise(self.activation(self.widen(x))))
        y = self.narrow(self.gated(y))
        return y + x if self.skips else y


class UpStage(nn.Module):
    """Double the resolution and add the encoder's features, gated by a global view of both."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.reduce = SameConv(inputs, channels)
        self.attention = SqueezeExcite(channels, channels)
        self.mix = SameConv(channels, channels)
        self.depthwise = SameConv(channels, channels, 3, groups=channels)

    def forward(
        self, x: Float[Tensor, "batch channel height width"], skip: Float[Tensor, "batch kept high wide"]
    ) -> Float[Tensor, "batch kept high wide"]:
        """Returns features at the resolution of `skip`."""
        # The original upsamples before the 1x1 convolution; the order does not matter and this one is
        # cheaper.
        x = F.interpolate(self.reduce(x), scale_factor=2, mode="bilinear", align_corners=False)
        mixed = F.relu_(self.mix(skip * self.attention.gate(skip + x) + x))
        return mixed + F.relu_(self.depthwise(mixed))


class Segmentation(nn.Module):
    """The network: a 256 px picture in [0, 1] to a probability for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        relu, swish = nn.ReLU(inplace=True), nn.Hardswish(inplace=True)
        self.stem = SameConv(3, 16, 3, 2)
        self.to_64 = InvertedResidual(16, 16, 16, 3, 2, 8, relu)
        self.to_32 = nn.Sequential(
            InvertedResidual(16, 72, 24, 3, 2, 0, relu), InvertedResidual(24, 88, 24, 3, 1, 0, relu)
        )
        self.to_16 = nn.Sequential(
            InvertedResidual(24, 96, 32, 5, 2, 24, swish),
            *[InvertedResidual(32, 128, 32, 5, 1, 32, swish) for _ in range(2)],
            *[InvertedResidual(32, 96, 32, 5, 1, 24, swish) for _ in range(2)],
        )
        self.context, self.context_gate = SameConv(32, 128), SameConv(32, 128)
        self.up_32, self.up_64, self.up_128 = UpStage(128, 24), UpStage(24, 16), UpStage(16, 16)
        self.segment = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, pictures: Float[Tensor, "batch 3 256 256"]) -> Float[Tensor, "batch 1 256 256"]:
        """Returns the probability that a pixel shows a person."""
        at_128 = F.hardswish(self.stem(pictures), inplace=True)
        at_64 = self.to_64(at_128)
        at_32 = self.to_32(at_64)
        at_16 = self.to_16(at_32)
        gate = torch.sigmoid(self.context_gate(at_16.mean(dim=(2, 3), keepdim=True)))
        x = F.relu_(self.context(at_16)) * gate
        x = self.up_128(self.up_64(self.up_32(x, at_32), at_64), at_128)
        return torch.sigmoid(self.segment(x))
