"""Published perceptual loss: AlexNet and VGG-16-face, compared channel by channel."""

import re

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from training.alexnet import ALEXNET_LAYERS, alexnet_convolutions, feature_maps

PREFIX = "percep_loss."
LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)
VGG_WEIGHT = 0.5
"""Share of the VGG-16-face part; AlexNet's is 1."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG_FACE_MEAN = (129.186279296875, 104.76238250732422, 93.59396362304688)
"""Average face of VGG-Face, RGB, 0..255; its network takes the difference without dividing it by anything."""

VGG_LAYERS = (1, 6, 11, 18, 25)
"""Where in VGG-16 the maps are taken: after the first rectifier of each of its five blocks."""


class FacePerceptualLoss(nn.Module):
    """L1 between relu maps whose channels have length 1 at every pixel (reference section 6, "Regularisers").

    Found on fixture j: the differences are summed over channels, then averaged over pixels and batch; layer weights
    .1 .1 1 1 1 for both networks; both look at RGB, AlexNet normalised as for ImageNet, VGG as `VGG_FACE_MEAN` says.
    What the fixture cannot tell: how a pixel is normalised where all channels are zero. Here it stays zero.

    The networks are those of torchvision and of the VGG-Face release without their classifiers, whole, so that a
    checkpoint loads strictly. They start with random weights and take no gradient: call `load_published`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alexnet = alexnet_convolutions()
        self.vgg = nn.Sequential()
        channels = 3
        for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(convolutions):
                self.vgg.extend([nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()])
                channels = width
            self.vgg.append(nn.MaxPool2d(2))
        self.requires_grad_(False)

    def load_published(self, tensors: dict[str, Tensor]) -> None:
        """Take the weights from a checkpoint of the authors.

        Args:
            tensors: By their keys; what does not start with `percep_loss.` is not looked at.

        Raises:
            RuntimeError: A tensor is missing, has another shape, or has a name that these networks do not know.
        """
        self.load_state_dict(
            {_renamed(k): v for k, v in tensors.items() if k.startswith(PREFIX)}, strict=True
        )

    def forward(
        self,
        prediction: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, ""]:
        """How different two pictures (RGB in 0..1, at least 64 px) look; gradients reach the prediction alone."""
        total = prediction.new_zeros(())
        with torch.no_grad():
            wanted = self._feature_maps(target)
        for weight, a, b in zip(self._weights(), self._feature_maps(prediction), wanted, strict=True):
            total = total + weight * (F.normalize(a, dim=1) - F.normalize(b, dim=1)).abs().sum(1).mean()
        return total

    def _weights(self) -> list[float]:
        return [*LAYER_WEIGHTS, *(VGG_WEIGHT * w for w in LAYER_WEIGHTS)]

    def _feature_maps(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        imagenet_mean, imagenet_std, vgg_mean = (
            images.new_tensor(values)[:, None, None]
            for values in (IMAGENET_MEAN, IMAGENET_STD, VGG_FACE_MEAN)
        )
        return [
            *feature_maps(self.alexnet, (images - imagenet_mean) / imagenet_std, ALEXNET_LAYERS),
            *feature_maps(self.vgg, images * 255 - vgg_mean, VGG_LAYERS),
        ]


def _renamed(key: str) -> str:
    """Our name for a tensor of theirs; a key that follows neither pattern stays, and strict loading refuses it."""
    return re.sub(
        r"^vggface\.network\.", "vgg.", re.sub(r"^net\.slice[1-5]\.", "alexnet.", key.removeprefix(PREFIX))
    )
