"""Layer prior: the two layers of the visible branch before learning; the photo's pixels on an average head."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.colourfulness import colourfulness
from sdtalk.reconstruction.activations import GaussianPrior
from sdtalk.reconstruction.mesh_raster import distance_to, fill_outwards
from sdtalk.reconstruction.prior import NAPE_END, NAPE_TOP, PlanePrior, lifting_rays
from sdtalk.reconstruction.surface import identity_quats, surface_frames, upright_stretch
from sdtalk.smoothstep import smoothstep

CELL_SIGMA = 0.55
"""Standard deviation of a front Gaussian in cells: wide enough to close the surface, narrow enough to stay sharp."""

BACK_SIGMA = 1.2
"""The same for the hidden layer, which only has to fill what turns into view."""

FRONT_SHARPNESS, BACK_SHARPNESS = 2.0, 8.0
"""Opacity is the mask to this power: neighbours overlap, and what is hidden must not widen the outline."""

INSIDE, OUTSIDE = 0.9, 0.5
"""The mask of a cell that surely shows the person, and of one that does not."""

OUTLINE_REACH = 0.1
"""What turns into view continues what lies so far from the outline of a head, head-space units."""

RIM_REACH = 0.02
"""Below the nape skin so near the outline goes on behind it: a jaw that turns has no collar or hair for an edge."""

HAIR_ABOVE = 0.1
"""Where an outline is taken for hair, head-space units: from the eyes' height up."""


@dataclass(frozen=True)
class LayerPrior:
    """One layer.

    Attributes:
        rays: How far a point moves per unit of height over the plane: towards the camera.
        offset: Height over the plane.
        gaussians: Everything but the centres.
        lying: Whether they lie in the surface once it is known, see `at`.
    """

    rays: Float[Tensor, "batch point 3"]
    offset: Float[Tensor, "batch point"]
    gaussians: GaussianPrior
    lying: bool

    def without_colour(self) -> "LayerPrior":
        """The same, knowing nothing of colours."""
        return replace(self, gaussians=self.gaussians.without_colour())

    def at(
        self, height: Float[Tensor, "batch point"], plane: Float[Tensor, "batch point 3"]
    ) -> GaussianPrior:
        """The Gaussians of the layer at its learned height over the plane: they close the surface that there is."""
        if not self.lying:
            return self.gaussians
        size = math.isqrt(plane.shape[1])
        surfaces = height.detach().reshape(-1, size, size)
        frames = [surface_frames(*x) for x in zip(surfaces, plane, self.rays, strict=True)]
        stretch = torch.stack([f.stretch for f in frames])
        quats = torch.stack([f.quats for f in frames])
        return replace(self.gaussians, quats=quats, scales=self.gaussians.scales * stretch)


@dataclass(frozen=True)
class LayerPriors:
    """Both layers: the hidden one, and the one that the photo shows."""

    back: LayerPrior
    front: LayerPrior


def layer_priors(
    colours: Float[Tensor, "batch 3 size size"],
    mask: Float[Tensor, "batch 1 size size"],
    plane: Float[Tensor, "batch point 3"],
    camera: Camera,
    priors: list[PlanePrior],
    lying: bool = True,
    hair_behind: bool = True,
) -> LayerPriors:
    """Lay the photo's pixels on the surface of each head, and what they leave to guess behind it.

    Args:
        colours: The photo at the size of the plane.
        mask: Probability that a cell shows the person.
        plane: The lifting plane of each person.
        camera: The source camera of each person.
        priors: The plane priors of each person.
        lying: Gaussians that the photo shows lie in its surface; False: they are upright, as in SDTalk 0.1.
        hair_behind: A head has hair at its back; False: what lies around the face goes on there, as in SDTalk 0.1.
    """
    size = colours.shape[-1]
    rays = lifting_rays(camera, plane)
    cell = (plane[:, 1] - plane[:, 0]).norm(dim=-1)[:, None]
    of_front = of_back = torch.ones_like(plane)
    if not lying:
        of_front = torch.stack([upright_stretch(p.offset[0], x) for p, x in zip(priors, plane, strict=True)])
    front = torch.stack([p.offset for p in priors]).reshape(len(priors), -1)
    back = torch.stack([p.back_offset for p in priors]).reshape(len(priors), -1)
    if hair_behind:
        hidden = _behind_the_head(colours, mask, priors, cell[:, 0])
    else:
        hidden = _around_the_face(colours, mask, priors)
    layers = {}
    for name, offset, stretch, hues, sigma, sharpness, seen in (
        ("back", back, of_back, hidden, BACK_SIGMA, BACK_SHARPNESS, 0.0),
        ("front", front, of_front, colours, CELL_SIGMA, FRONT_SHARPNESS, 1.0),
    ):
        gaussians = GaussianPrior(
            quats=identity_quats(plane),
            scales=sigma * cell[..., None] * stretch,
            opacities=(mask.flatten(1) ** sharpness).clamp(1e-3, 0.999),
            colours=hues.flatten(2).transpose(1, 2),
            source=_source_positions(size, plane)[None].expand(len(priors), -1, -1) * seen,
            colourful=colourfulness(colours) if hair_behind else None,
        )
        layers[name] = LayerPrior(rays, offset, gaussians, lying=lying and name == "front")
    return LayerPriors(**layers)


def _behind_the_head(
    colours: Float[Tensor, "batch 3 size size"],
    mask: Float[Tensor, "batch 1 size size"],
    priors: list[PlanePrior],
    cell: Float[Tensor, " batch"],
) -> Float[Tensor, "batch 3 size size"]:
    """Colours of the outline continued behind it: a head has no second face at its back, and its back has hair.

    Above the nape the outline above the eyes is continued; below it gives way to jaw, neck and shoulders.
    """
    made = []
    for c, m, p, unit in zip(colours, mask, priors, cell, strict=True):
        height, inwards = p.canonical[1], distance_to(m[0] < OUTSIDE) * unit
        person = m[0] > INSIDE
        shown = person & (p.surround[0] > 0.5)
        outline = shown & (inwards < OUTLINE_REACH)
        if not outline.any():  # a face that fills the picture
            outline = shown
        below = fill_outwards(
            c, outline | (shown & (p.head_weight[0] < 0.5)) | (person & (inwards < RIM_REACH))
        )
        hair = outline & (height > HAIR_ABOVE)
        above = fill_outwards(c, hair) if hair.any() else below
        made.append(torch.lerp(below, above, smoothstep((height - NAPE_END) / (NAPE_TOP - NAPE_END))))
    return torch.stack(made)


def _around_the_face(
    colours: Float[Tensor, "batch 3 size size"],
    mask: Float[Tensor, "batch 1 size size"],
    priors: list[PlanePrior],
) -> Float[Tensor, "batch 3 size size"]:
    """Colours of what lies around the skin of a face, eyes and mouth among it, continued behind it."""
    known = [(m[0] > INSIDE) & (p.support[0] < 0.5) for m, p in zip(mask, priors, strict=True)]
    return torch.stack([fill_outwards(c, k) for c, k in zip(colours, known, strict=True)])


def _source_positions(size: int, like: Tensor) -> Float[Tensor, "point 3"]:
    """x, y of each cell's centre in the photo, in [-1, 1] (grid_sample, align_corners=False), and weight 1."""
    centres = ((torch.arange(size, device=like.device, dtype=like.dtype) + 0.5) / size) * 2 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
