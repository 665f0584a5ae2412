"""Layers shared by the tracking networks, with TensorFlow's rules where they differ from PyTorch's."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding for even input sizes.

    At stride 2 the padding is asymmetric: k - 2 in all, the smaller half before (top, left), the rest after.
    PyTorch's symmetric `padding=k//2` would shift the picture by one pixel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride if kernel > 1 else 0
        self.before, self.after = total // 2, total - total // 2
        even = self.before == self.after
        super().__init__(inputs, outputs, kernel, stride, self.before if even else 0, groups=groups)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Convolve; the output is ceil(size / stride) wide and high."""
        if self.before != self.after:
            x = F.pad(x, (self.before, self.after, self.before, self.after))
        return super().forward(x)


class ResidualBlock(nn.Module):
    """act(skip + pointwise(depthwise 3x3(x))); the skip is max-pooled at stride 2.

    The skip has no channels of its own for a wider output: new channels start at zero, after the existing
    ones.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module) -> None:
        super().__init__()
        self.depthwise = SameConv(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = SameConv(inputs, outputs)
        self.activation = activation

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Tensor:
        """Run the block; at stride 2 the output is half as wide and high."""
        skip = F.max_pool2d(x, 2) if self.depthwise.stride[0] == 2 else x
        y = self.pointwise(self.depthwise(x))
        y[:, : skip.shape[1]] += skip
        return self.activation(y)


def residual_blocks(
    inputs: int, widths: Sequence[int | tuple[int, int]], activation: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Residual blocks of the given output widths.

    Args:
        inputs: Channels of the input.
        widths: One entry a block; (width, 2) halves the resolution.
        activation: Makes the activation for a number of channels.
    """
    blocks = nn.Sequential()
    for entry in widths:
        outputs, stride = entry if isinstance(entry, tuple) else (entry, 1)
        blocks.append(ResidualBlock(inputs, outputs, stride, activation(outputs)))
        inputs = outputs
    return blocks
