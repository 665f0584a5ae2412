"""Modulated convolution of StyleGAN2, whose kernel a style changes for every sample (reference Q13)."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-8


class ModulatedConv(nn.Module):
    """A convolution whose input channels the style scales, so that every sample has a kernel of its own.

    Its state dict holds the weight in the published shape, [1, outputs, inputs, kernel, kernel]; here it has four axes,
    because a module with a weight of five cannot be moved to the memory format channels_last.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: Side of the kernel, odd, px.
        style_width: Numbers of the style.
        norm: What the kernel of each output channel is scaled to (demodulation); None leaves it as the style makes it.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, style_width: int, norm: float | None) -> None:
        super().__init__()
        self.norm = norm
        fan_in = inputs * kernel * kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) / math.sqrt(fan_in))
        self.modulation = nn.Linear(style_width, inputs)
        nn.init.ones_(self.modulation.bias)
        self.register_state_dict_post_hook(_with_leading_axis)
        self.register_load_state_dict_pre_hook(_without_leading_axis)

    def forward(
        self,
        x: Float[Tensor, "batch inputs rows columns"],
        style: Float[Tensor, "batch style"],
        bias: Float[Tensor, "1 outputs 1 1"],
        resize: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch outputs new_rows new_columns"]:
        """Convolve, and add the bias.

        On a CPU sample by sample, since kernels are smaller than images: one frame at a time, that is a little faster
        than scaling what goes into and comes out of a shared kernel. For batches no way was clearly the fastest.
        A GPU gets the shared kernel: one large convolution instead of as many small ones as there are samples.

        Args:
            x: What to convolve.
            style: Of each sample.
            bias: What is added.
            resize: Applied to `x` before the convolution, channel by channel.
        """
        scale = self.modulation(style)
        if x.device.type != "cpu":
            return self.shared_kernel(x, scale, bias, resize)
        x = x if resize is None else resize(x)
        gains = scale[:, None]
        if self.norm is not None:
            energy = F.linear(scale.square(), self.weight.square().sum((2, 3)))
            gains = gains * (self.norm * torch.rsqrt(energy + EPSILON))[..., None]
        padding = self.weight.shape[-1] // 2
        samples = [
            F.conv2d(sample, self.weight * gain[..., None, None], bias.flatten(), padding=padding)
            for sample, gain in zip(x.split(1), gains, strict=True)
        ]
        return samples[0] if len(samples) == 1 else torch.cat(samples)

    def shared_kernel(
        self,
        x: Float[Tensor, "batch inputs rows columns"],
        scale: Float[Tensor, "batch inputs"],
        bias: Float[Tensor, "1 outputs 1 1"],
        resize: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch outputs new_rows new_columns"]:
        """The same with one kernel for all samples, between two scalings: of what goes in, and of what comes out.

        Args:
            x: What to convolve.
            scale: Of the input channels, for each sample.
            bias: What is added.
            resize: As for `forward`; pixels are cheapest to scale where they are fewest.
        """
        x = x * scale[..., None, None]
        y = F.conv2d(x if resize is None else resize(x), self.weight, padding=self.weight.shape[-1] // 2)
        if self.norm is None:
            return y + bias
        energy = F.linear(scale.square(), self.weight.square().sum((2, 3)))
        return torch.addcmul(bias, y, (self.norm * torch.rsqrt(energy + EPSILON))[..., None, None])


def _with_leading_axis(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    state[f"{prefix}weight"] = state[f"{prefix}weight"][None]


def _without_leading_axis(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    if f"{prefix}weight" in state:
        state[f"{prefix}weight"] = state[f"{prefix}weight"][0]
