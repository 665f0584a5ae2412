"""Window painter losses: pixels, edges, features of the bundled face-mesh network, and a critic of detail."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.rendering.window_inputs import SHADE_PX
from sdtalk.tracking.networks import FaceNetworks

INSIDE_WEIGHT = 3.0
"""What is added to the weight of pixels inside the outline."""

SCALES = 3
"""Of the edge loss; each halves the picture."""

FEATURE_FLOOR = 1e-3
"""Keeps directions of features steady where there are none; plain normalising has endless gradients there."""

DETAIL_GAIN = 8.0
"""The critic is shown detail enlarged so much; from plain pictures it hardly learns."""


def pixel_weight(
    mask: Float[Tensor, "window 1 size size"], outer: Float[Tensor, "window 1 size size"]
) -> Float[Tensor, "window 1 size size"]:
    """How much each pixel counts: the mask, and more inside the lips or lids.

    Args:
        mask: How far the painted picture counts.
        outer: Signed distance to the outline, px.
    """
    return mask * (1 + INSIDE_WEIGHT * torch.sigmoid(-outer / 1.5))


def pixel_losses(picture: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """L1, and L1 of differences between neighbours at three scales: weighted means."""
    error = picture - target
    plain = (error.abs() * weight).sum() / weight.sum().clamp_min(1) / 3
    edges = picture.new_zeros(())
    for _ in range(SCALES):
        total = 3 * weight.sum().clamp_min(1)
        edges = edges + (error.diff(dim=-1).abs() * weight[..., 1:]).sum() / total
        edges = edges + (error.diff(dim=-2).abs() * weight[..., 1:, :]).sum() / total
        error, weight = F.avg_pool2d(error, 2), F.avg_pool2d(weight, 2)
    return plain, edges


SILENT_SHADE_PX = 32
"""Where the photo is silent, light is compared, and may vary, over such distances. Finer ones are best served by
washing out teeth and cavity, which lie elsewhere in every mouth."""


def shade_loss(
    picture: Tensor, target: Tensor, silent: Float[Tensor, "window 1 size size"], weight: Tensor
) -> Tensor:
    """L1 between light and shade where the photo is silent, over all weighted pixels.

    Nobody knows a stranger's teeth: compared pixel by pixel, the best teeth are blurred ones.
    """
    side, step = SILENT_SHADE_PX, SILENT_SHADE_PX // 4

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, side, step, side // 2)

    error = mean((picture - target) * silent) / mean(silent).clamp_min(1e-3)
    counted = mean(silent * weight) * step**2
    return (error.abs() * counted).sum() / weight.sum().clamp_min(1) / 3


def evenness_loss(
    correction: Float[Tensor, "window channel size size"], silent: Float[Tensor, "window 1 size size"]
) -> Tensor:
    """How far corrections differ from their means over `SILENT_SHADE_PX` where the photo is silent.

    Args:
        correction: For `WindowInputs.painted`.
        silent: As there.
    """
    given = F.avg_pool2d(correction, SHADE_PX, SHADE_PX // 2)
    share = F.avg_pool2d(silent, SHADE_PX, SHADE_PX // 2)
    side = 2 * SILENT_SHADE_PX // SHADE_PX + 1

    def spread(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, side, 1, side // 2)

    mean = spread(given * share) / spread(share).clamp_min(1e-3)
    return ((given - mean).abs() * share).sum() / share.sum().clamp_min(1) / given.shape[1]


class FeatureLoss(nn.Module):
    """L1 between directions of the features of the bundled face-mesh network, its stem and its map."""

    def __init__(self) -> None:
        super().__init__()
        network = FaceNetworks.from_bundled().networks.face_mesh
        self.stages = nn.ModuleList([network.stem, network.to_map]).requires_grad_(False)

    def forward(self, picture: Float[Tensor, "window 3 size size"], target: Tensor) -> Tensor:
        """How far features differ; no gradient reaches the target."""
        total, a, b = picture.new_zeros(()), picture, target.detach()
        for stage in self.stages:
            a, b = stage(a), stage(b)
            total = total + F.l1_loss(_direction(a), _direction(b)) * a.shape[1] ** 0.5
        return total


def _direction(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) + FEATURE_FLOOR).sqrt()


class Critic(nn.Module):
    """Tells painted windows from real ones, patch by patch; sees detail, colours, and where lips or lids are."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths, layers = [8, width, 2 * width, 4 * width], list[nn.Module]()
        for before, after in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(
        self, picture: Float[Tensor, "window 3 size size"], distances: Float[Tensor, "window 2 size size"]
    ) -> Float[Tensor, "window 1 patch patch"]:
        """Scores: above 0 real, below painted."""
        detail = picture - F.avg_pool2d(picture, 5, 1, 2)
        return self.net(torch.cat([DETAIL_GAIN * detail, 2 * picture - 1, distances], 1))


def critic_loss(real: Tensor, painted: Tensor, weight: Tensor) -> Tensor:
    """Hinge loss of the critic, weighted by patch."""
    return ((F.relu(1 - real) + F.relu(1 + painted)) * weight).sum() / weight.sum().clamp_min(1)


def patch_weight(weight: Float[Tensor, "window 1 size size"], scores: Tensor) -> Tensor:
    """Pixel weights at the size of the critic's scores."""
    return F.interpolate(weight, size=scores.shape[-2:], mode="area")
