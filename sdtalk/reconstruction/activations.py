"""Raw network channels in, valid Gaussians out: the only place that knows the activations."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.gaussians import Gaussians

COLOUR_RANGE = 0.3
"""How far a learned residual may move a prior colour."""

SCALE_RANGE = 0.4
"""Logarithm of how far a learned factor may change a prior scale; smaller Gaussians leave gaps when the head turns."""

OFFSET_RANGE = 0.25
"""How far a learned residual may move a prior depth, head-space units (5 cm)."""

RGB = slice(0, 3)
SOURCE = slice(3, 6)
LEARNED = slice(6, None)
"""Feature channels: colour, where in the photo it comes from (x, y in [-1, 1] times weight, weight), the rest."""


@dataclass(frozen=True)
class GaussianPrior:
    """What Gaussians are before anything is learned; raw channels of zero give exactly this.

    Attributes:
        means: Centres in head space.
        scales: Standard deviations, > 0.
        opacities: In (0, 1).
        colours: RGB in [0, 1].
        source: Position in the photo times weight, and the weight (1 for pixels of the photo, 0 for made-up points).
    """

    means: Float[Tensor, "batch gaussian 3"]
    scales: Float[Tensor, "batch gaussian 3"]
    opacities: Float[Tensor, "batch gaussian"]
    colours: Float[Tensor, "batch gaussian 3"]
    source: Float[Tensor, "batch gaussian 3"]


def learned_channels(feature_channels: int) -> int:
    """How many of the feature channels are free: all but colour and source."""
    return feature_channels - LEARNED.start


def raw_channels(feature_channels: int) -> int:
    """How many raw channels `gaussians_from` wants: quats 4, scales 3, opacity 1, colour 3, learned features."""
    return 4 + 3 + 1 + 3 + learned_channels(feature_channels)


def gaussians_from(raw: Float[Tensor, "batch gaussian raw"], prior: GaussianPrior) -> Gaussians:
    """Activate raw channels around a prior."""
    quats, scales, opacities, colours, learned = raw.split([4, 3, 1, 3, raw.shape[-1] - 11], dim=-1)
    identity = raw.new_tensor([1.0, 0.0, 0.0, 0.0])
    rgb = (prior.colours + COLOUR_RANGE * torch.tanh(colours)).clamp(0, 1)
    return Gaussians(
        means=prior.means,
        quats=F.normalize(identity + quats, dim=-1),
        scales=prior.scales * torch.exp(SCALE_RANGE * torch.tanh(scales)),
        opacities=torch.sigmoid(torch.logit(prior.opacities, eps=1e-4) + opacities[..., 0]),
        features=torch.cat([rgb, prior.source, learned], dim=-1),
    )


def lifted_offset(raw: Float[Tensor, "*any"], prior: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Height over the lifting plane: the prior depth plus a bounded residual (paper: sigmoid without a prior)."""
    return prior + OFFSET_RANGE * torch.tanh(raw)
