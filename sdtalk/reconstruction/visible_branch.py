"""The visible branch: dual lifting of the photo's plane to a front and a back layer (paper section 3.1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import (
    GaussianPrior,
    gaussians_from,
    learned_channels,
    lifted_offset,
    raw_channels,
)
from sdtalk.reconstruction.mesh_raster import fill_outwards
from sdtalk.reconstruction.prior import PlanePrior, lifting_rays

CELL_SIGMA = 0.55
"""Standard deviation of a front Gaussian in cells: wide enough to close the surface, narrow enough to stay sharp."""

BACK_SIGMA = 1.2
"""The same for the hidden layer, which only has to fill what turns into view."""

FRONT_SHARPNESS, BACK_SHARPNESS = 2.0, 8.0
"""Opacity is the mask to this power: neighbours overlap, and what is hidden must not widen the outline."""

PHOTO_TRUST = 0.1
"""Share of the learned residual that may change what the photo shows: with all of it, training hides the photo's
detail behind smooth Gaussians (a better L1, a worse picture)."""

MAX_STRETCH = 6.0
"""Limit on how far a Gaussian is stretched in depth where the surface is steep."""


@dataclass(frozen=True)
class VisibleGaussians:
    """Both layers.

    Attributes:
        back: The hidden layer, away from the camera.
        front: The layer the photo shows.
    """

    back: Gaussians
    front: Gaussians


class LayerHead(nn.Module):
    """Local features -> raw channels of one layer; the last convolution starts at zero, so at the prior."""

    def __init__(self, local_channels: int, feature_channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(local_channels, local_channels, 3, padding=1)
        self.out = nn.Conv2d(local_channels, 1 + raw_channels(feature_channels), 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, local: Float[Tensor, "batch local size size"]) -> Float[Tensor, "batch point raw"]:
        """Raw channels in row-major order of the plane."""
        return self.out(torch.nn.functional.silu(self.hidden(local))).flatten(2).transpose(1, 2)


class VisibleBranch(nn.Module):
    """Local features and plane priors -> the visible Gaussians."""

    trust: Float[Tensor, " raw"]

    def __init__(self, local_channels: int, feature_channels: int) -> None:
        super().__init__()
        self.front = LayerHead(local_channels, feature_channels)
        self.back = LayerHead(local_channels, feature_channels)
        trust = torch.full((1 + raw_channels(feature_channels),), PHOTO_TRUST)
        trust[-learned_channels(feature_channels) :] = 1.0
        self.register_buffer("trust", trust, persistent=False)

    def forward(
        self,
        local: Float[Tensor, "batch local size size"],
        colours: Float[Tensor, "batch 3 size size"],
        mask: Float[Tensor, "batch 1 size size"],
        camera: Camera,
        priors: list[PlanePrior],
    ) -> VisibleGaussians:
        """Lift the plane.

        Args:
            local: Features of the image encoder on the plane.
            colours: The photo at the size of the plane.
            mask: Probability that a cell shows the person.
            camera: The source camera of each person.
            priors: The plane priors of each person.
        """
        size = local.shape[-1]
        plane = camera.lifting_plane(size)
        rays = lifting_rays(camera, plane)
        front = torch.stack([p.offset for p in priors]).reshape(len(priors), -1)
        back = torch.stack([p.back_offset for p in priors]).reshape(len(priors), -1)
        cell = (plane[:, 1] - plane[:, 0]).norm(dim=-1)[:, None]
        stretch = torch.stack([_steepness(p.offset[0]) for p in priors]).reshape(len(priors), -1) / cell
        hidden = _around_the_face(colours, mask, priors)
        layers = {}
        for name, head, offset, hues, sigma, sharpness, seen in (
            ("back", self.back, back, hidden, BACK_SIGMA, BACK_SHARPNESS, 0.0),
            ("front", self.front, front, colours, CELL_SIGMA, FRONT_SHARPNESS, 1.0),
        ):
            raw = head(local) * (self.trust if seen else 1.0)
            height = lifted_offset(raw[..., 0], offset)
            spread = (sigma * cell).expand_as(offset)
            depth = spread * (stretch.clamp(1, MAX_STRETCH) if seen else 1.0)
            prior = GaussianPrior(
                means=plane + rays * height[..., None],
                scales=torch.stack([spread, spread, depth], dim=-1),
                opacities=(mask.flatten(1) ** sharpness).clamp(1e-3, 0.999),
                colours=hues.flatten(2).transpose(1, 2),
                source=_source_positions(size, plane)[None].expand(len(priors), -1, -1) * seen,
            )
            layers[name] = gaussians_from(raw[..., 1:], prior)
        return VisibleGaussians(**layers)


def _around_the_face(
    colours: Float[Tensor, "batch 3 size size"],
    mask: Float[Tensor, "batch 1 size size"],
    priors: list[PlanePrior],
) -> Float[Tensor, "batch 3 size size"]:
    """Colours of hair and neck continued behind the face: a head has no second face at its back."""
    return torch.stack(
        [
            fill_outwards(c, (m[0] > 0.9) & (p.support[0] < 0.5))
            for c, m, p in zip(colours, mask, priors, strict=True)
        ]
    )


def _steepness(offset: Float[Tensor, "size size"]) -> Float[Tensor, "size size"]:
    """Largest step in height to a neighbour cell, head-space units."""
    steps = torch.zeros_like(offset)
    for dim in (0, 1):
        step = offset.diff(dim=dim).abs()
        low, high = [slice(None)] * 2, [slice(None)] * 2
        low[dim], high[dim] = slice(None, -1), slice(1, None)
        steps[tuple(low)] = torch.maximum(steps[tuple(low)], step)
        steps[tuple(high)] = torch.maximum(steps[tuple(high)], step)
    return steps


def _source_positions(size: int, like: Tensor) -> Float[Tensor, "point 3"]:
    """x, y of each cell's centre in the photo, in [-1, 1] (grid_sample, align_corners=False), and weight 1."""
    centres = ((torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size) * 2 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
