"""AlexNet's convolutions, named as in torchvision; the perceptual losses take their feature maps."""

from jaxtyping import Float
from torch import Tensor, nn

ALEXNET_LAYERS = (1, 4, 7, 9, 11)
"""Where in AlexNet the maps are taken: after each of its five rectifiers."""

ALEXNET_CHANNELS = (64, 192, 384, 256, 256)
"""Channels of those maps."""


def alexnet_convolutions() -> nn.Sequential:
    """`features` of torchvision's AlexNet but for the last pooling, with random weights."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def feature_maps(
    network: nn.Sequential, x: Float[Tensor, "batch channel height width"], places: tuple[int, ...]
) -> list[Tensor]:
    """What a network holds at some of its layers; it runs no further than the last of them."""
    maps = []
    for place in range(places[-1] + 1):
        x = network[place](x)
        if place in places:
            maps.append(x)
    return maps
