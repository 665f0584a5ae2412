"""Activations: raw network channels to valid Gaussians; the only place that knows them."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.surface import quat_product

COLOUR_RANGE = 0.3
"""How far a learned residual may move a prior colour."""

SCALE_RANGE = 0.4
"""Logarithm of how far a learned factor may change a prior scale; smaller Gaussians leave gaps when the head turns."""

OFFSET_RANGE = 0.25
"""How far a learned residual may move a prior depth, head-space units (5 cm)."""

GREY = 0.5
"""Where colours start without a prior; the residual then reaches all others."""

FREE_OFFSET = 0.5
"""Without a prior depth a layer starts so far from the lifting plane, and may go from it to twice as far: 0 to 1
head-space units, the range of the paper."""

RGB = slice(0, 3)
SOURCE = slice(3, 6)
LEARNED = slice(6, None)
"""Feature channels: colour, where in the photo it comes from (x, y in [-1, 1] times weight, weight), the rest."""

COLOUR_RAW = slice(8, 11)
"""The raw channels of the colour around a prior, behind those of quats, scales and opacity."""


MAX_SCALE = 0.05
"""Largest standard deviation of the paper's Gaussians, which start from no prior: 1 cm, in head-space units."""


@dataclass(frozen=True)
class GaussianPrior:
    """What Gaussians are before anything is learned; raw channels of zero give exactly this.

    Attributes:
        quats: Rotations wxyz, unit length; what is learned turns Gaussians within these.
        scales: Standard deviations along the rotated axes, > 0.
        opacities: In (0, 1).
        colours: RGB in [0, 1].
        source: Position in the photo times weight, and the weight (1 for pixels of the photo, 0 for made-up points).
        colour_range: How far a learned residual may move the colours.
        colourful: How far that may be coloured, from 0 (grey) to 1; None: without limit.
    """

    quats: Float[Tensor, "batch gaussian 4"]
    scales: Float[Tensor, "batch gaussian 3"]
    opacities: Float[Tensor, "batch gaussian"]
    colours: Float[Tensor, "batch gaussian 3"]
    source: Float[Tensor, "batch gaussian 3"]
    colour_range: float = COLOUR_RANGE
    colourful: Float[Tensor, " batch"] | None = None

    def without_colour(self) -> "GaussianPrior":
        """The same, knowing nothing of colours and of where they come from."""
        grey = torch.full_like(self.colours, GREY)
        return replace(self, colours=grey, source=torch.zeros_like(self.source), colour_range=GREY)


def learned_channels(feature_channels: int) -> int:
    """How many of the feature channels are free with a prior: all but colour and source."""
    return feature_channels - LEARNED.start


def raw_channels(feature_channels: int, priors: bool = True) -> int:
    """How many raw channels the activations want: quats 4, scales 3, opacity 1, and colour and learned, or features."""
    return 4 + 3 + 1 + (3 + learned_channels(feature_channels) if priors else feature_channels)


def gaussians_from(
    means: Float[Tensor, "batch gaussian 3"], raw: Float[Tensor, "batch gaussian raw"], prior: GaussianPrior
) -> Gaussians:
    """Activate raw channels around a prior."""
    quats, scales, opacities, colours, learned = raw.split([4, 3, 1, 3, raw.shape[-1] - 11], dim=-1)
    identity = raw.new_tensor([1.0, 0.0, 0.0, 0.0])
    residual = torch.tanh(colours)
    if prior.colourful is not None:
        residual = torch.lerp(residual.mean(-1, keepdim=True), residual, prior.colourful[:, None, None])
    rgb = (prior.colours + prior.colour_range * residual).clamp(0, 1)
    return Gaussians(
        means=means,
        quats=quat_product(prior.quats, F.normalize(identity + quats, dim=-1)),
        scales=prior.scales * torch.exp(SCALE_RANGE * torch.tanh(scales)),
        opacities=torch.sigmoid(torch.logit(prior.opacities, eps=1e-4) + opacities[..., 0]),
        features=torch.cat([rgb, prior.source, learned], dim=-1),
    )


def free_gaussians(
    means: Float[Tensor, "batch gaussian 3"],
    raw: Float[Tensor, "batch gaussian raw"],
    squashed: Bool[Tensor, "gaussian channel"] | None = None,
    quats_over_points: bool = False,
) -> Gaussians:
    """Activate raw channels as the paper does, without a prior.

    Args:
        means: Centres in head space.
        raw: Raw channels in the order features, opacity, scales, quats.
        squashed: Which features go through a sigmoid; None: RGB. The published code squashes the first three columns
            of the plane instead (reference Q1, see `first_columns`).
        quats_over_points: Bring each *component* to length 1 over the points, as the published code does for the
            completion Gaussians (reference Q2).
    """
    features, opacities, scales, quats = raw.float().split([raw.shape[-1] - 8, 1, 3, 4], dim=-1)
    if squashed is None:
        squashed = (torch.arange(features.shape[-1], device=raw.device) < RGB.stop).expand(raw.shape[1], -1)
    return Gaussians(
        means=means,
        quats=F.normalize(quats, dim=1 if quats_over_points else -1),
        scales=MAX_SCALE * torch.sigmoid(scales),
        opacities=torch.sigmoid(opacities[..., 0]),
        features=torch.where(squashed, torch.sigmoid(features), features),
    )


def first_columns(rows: int, columns: int, channels: int) -> Bool[Tensor, "point {channels}"]:
    """All features of the first three columns of a plane: what the published code squashes (reference Q1)."""
    return (torch.arange(rows * columns) % columns < RGB.stop)[:, None].expand(-1, channels)


def lifted_offset(
    raw: Float[Tensor, "*any"], prior: Float[Tensor, "*any"], reach: float = OFFSET_RANGE
) -> Float[Tensor, "*any"]:
    """Height over the lifting plane: the prior depth plus a residual within a reach."""
    return prior + reach * torch.tanh(raw)


def free_offset(raw: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """Distance from the lifting plane without a prior, 0 to 1 head-space units (paper section 3.1)."""
    return torch.sigmoid(raw.float())
