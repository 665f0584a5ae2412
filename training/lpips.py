"""LPIPS, a perceptual distance (Zhang et al., "The Unreasonable Effectiveness...", 2018).

Version 0.1 with AlexNet, which papers report. Its weights are the optional asset "lpips": torchvision's AlexNet, and
the five linear layers of the package `lpips`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from training.alexnet import ALEXNET_CHANNELS, ALEXNET_LAYERS, alexnet_convolutions, feature_maps
from training.optional_networks import load_optional_network

ASSET = "lpips"

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and spread of natural pictures, RGB in [-1, 1]."""

EPSILON = 1e-10
"""Shorter channel vectors count as zero."""


class Lpips(nn.Module):
    """Differences of AlexNet's maps: channels of length 1, squared, weighted by channel, averaged over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.alexnet = alexnet_convolutions()
        self.linear = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in ALEXNET_CHANNELS)

    @classmethod
    def installed(cls, device: torch.device | str = "cpu") -> "Lpips | None":
        """With the published weights, frozen; None where they are not on this machine.

        Raises:
            InputError: The weights are damaged.
        """
        return load_optional_network(cls, ASSET, device)

    def forward(
        self,
        prediction: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, " batch"]:
        """Distance of each picture from its target (RGB in 0..1, at least 64 px); gradients reach both."""
        total = prediction.new_zeros(len(prediction))
        for weights, a, b in zip(self.linear, self._maps(prediction), self._maps(target), strict=True):
            # `normalize` has a gradient, zero, where all channels are zero, as on black ground
            difference = F.normalize(a, dim=1, eps=EPSILON) - F.normalize(b, dim=1, eps=EPSILON)
            total = total + weights(difference.square()).mean((1, 2, 3))
        return total

    def _maps(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        return feature_maps(self.alexnet, (images * 2 - 1 - shift) / scale, ALEXNET_LAYERS)
