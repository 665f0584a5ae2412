"""Completion template: the points of the completion branch, placed on a face mesh.

The paper takes 1,920 vertices of FLAME's eyes, eye regions and lips. Here the same number of points is put on the
face mesh, with teeth and an oral cavity, which FLAME has not.
"""

from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.tracking.face_model import (
    IRIS_CENTRES,
    LIPS,
    LOWER_INNER_LIP,
    LOWER_LIDS,
    LOWER_OUTER_LIP,
    UPPER_INNER_LIP,
    UPPER_LIDS,
    UPPER_OUTER_LIP,
    FaceModel,
)
from sdtalk.tracking.head_track import COMPLETION_POINTS, MESH_POINTS

_SIZES = {
    "right_eyeball": 220,
    "left_eyeball": 220,
    "right_lids": 150,
    "left_lids": 150,
    "lips": 400,
    "upper_teeth": 200,
    "lower_teeth": 140,
    "oral_cavity": 440,
}

COMPLETION_PARTS = {
    name: slice(*ends)
    for name, ends in zip(_SIZES, pairwise(accumulate(_SIZES.values(), initial=0)), strict=True)
}
"""Where each part's points lie among the 1,920; right and left are the subject's."""

# Two more rings of the right eye's lids, around the lids' edges; the left eye has the mirrored ones.
LID_RINGS = [130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190]
LID_RINGS += [226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189]

SKULL = [2, 94, 97, 326, 98, 327]
"""Base of the nose, over the roots of the upper teeth: moves with the skull, hardly with speech."""

JAW = [152, 175, 199, 200, 17, 18, 84, 314]
"""Chin and lower lip; between them they move as the lower teeth do."""

MM = 0.005
"""A millimetre in head-space units."""

EYE_RADIUS = 12 * MM
EYE_DEPTH = 1 * MM  # of the eyeball's front behind the iris landmarks, which lie on the lids
ARCH_BEND = 0.031 / MM  # a dental arch lies 9 mm further back at the canines, 17 mm from the middle
BEHIND_LIPS = 4.5 * MM
UPPER_TEETH = (24 * MM, -2 * MM, 7 * MM)  # half width, lower and upper end over the line where the lips meet
LOWER_TEETH = (20 * MM, -8 * MM, -1 * MM)
LOWER_BEHIND_UPPER = 2 * MM
CAVITY = (22 * MM, 9 * MM, 22 * MM)  # half width, half height of a closed mouth's cavity, depth
CAVITY_BEHIND_TEETH = 4 * MM


@dataclass(frozen=True)
class CompletionTemplate:
    """How to put the points on a mesh: points = weights @ mesh + offsets, but the mouth's inside keeps its depth.

    Attributes:
        weights: Shares of the mesh's points; each row sums to 1.
        offsets: What is added, in head-space units. For teeth and oral cavity, z is the depth relative to a dental
            arch just behind the lips.
    """

    weights: Float[Tensor, "1920 478"]
    offsets: Float[Tensor, "1920 3"]

    @classmethod
    @cache
    def bundled(cls) -> "CompletionTemplate":
        """The template for the package's face model, on the CPU."""
        return build_template(FaceModel.bundled())

    def to(self, device: torch.device | str) -> "CompletionTemplate":
        """Move to a device."""
        return CompletionTemplate(self.weights.to(device), self.offsets.to(device))

    def place(self, mesh: Float[Tensor, "batch 478 3"]) -> Float[Tensor, "batch 1920 3"]:
        """Put the points on tracked meshes; differentiable, the same units and space as the mesh.

        Upper teeth keep their place on the skull, lower teeth follow the jaw; both stay behind this mesh's lips.
        """
        points = self.weights @ mesh + self.offsets
        upper = arch_depth(mesh, UPPER_OUTER_LIP + UPPER_INNER_LIP)
        lower = arch_depth(mesh, LOWER_OUTER_LIP + LOWER_INNER_LIP)
        depths = {"upper_teeth": upper, "lower_teeth": lower, "oral_cavity": torch.minimum(upper, lower)}
        z = points[..., 2].clone()
        for name, depth in depths.items():
            part = COMPLETION_PARTS[name]
            z[:, part] = depth[:, None] + self.offsets[part, 2]
        return torch.cat([points[..., :2], z[..., None]], dim=-1)


def arch_depth(mesh: Float[Tensor, "batch 478 3"], lip: list[int]) -> Float[Tensor, " batch"]:
    """Z of the foremost dental arch (its middle) that stays behind all points of a lip."""
    points = mesh[:, lip]
    across = points[..., 0] - points[..., 0].mean(1, keepdim=True)
    return (points[..., 2] + ARCH_BEND * across.square()).amin(1) - BEHIND_LIPS


def build_template(face: FaceModel) -> CompletionTemplate:
    """Lay the points out on the average face with its mouth closed."""
    closed = face.mean_face - face.mouth_opening(face.mean_face[None])[0] * face.opening_mode
    middle = closed[UPPER_INNER_LIP + LOWER_INNER_LIP, 1].mean()
    right_lids = {*UPPER_LIDS[0], *LOWER_LIDS[0], *LID_RINGS}
    left_lids = {int(face.mirror[i]) for i in right_lids}
    eyes = [{*upper, *lower} for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True)]
    parts = {
        "right_eyeball": _eyeball(closed, 0, _SIZES["right_eyeball"]),
        "left_eyeball": _eyeball(closed, 1, _SIZES["left_eyeball"]),
        "right_lids": _on_surface(face, closed, right_lids, eyes[0], _SIZES["right_lids"]),
        "left_lids": _on_surface(face, closed, left_lids, eyes[1], _SIZES["left_lids"]),
        "lips": _on_surface(face, closed, set(LIPS), set(), _SIZES["lips"]),
        "upper_teeth": _teeth(closed, SKULL, middle, UPPER_TEETH, 0.0, (50, 4)),
        "lower_teeth": _teeth(closed, JAW, middle, LOWER_TEETH, LOWER_BEHIND_UPPER, (35, 4)),
        "oral_cavity": _cavity(closed, middle, _SIZES["oral_cavity"]),
    }
    weights = torch.cat([parts[name][0] for name in COMPLETION_PARTS])
    offsets = torch.cat([parts[name][1] for name in COMPLETION_PARTS])
    assert len(weights) == COMPLETION_POINTS
    return CompletionTemplate(weights, offsets)


def _eyeball(face: Tensor, side: int, count: int) -> tuple[Tensor, Tensor]:
    """Front of an eyeball, denser towards the pupil; its front follows the iris, the rest the corners of the eye."""
    corners = [UPPER_LIDS[side][0], UPPER_LIDS[side][-1]]
    index = torch.arange(count) + 0.5
    angle = index * 2.399963  # the golden angle: a sunflower
    slope = 1.6 * (index / count) ** 0.7  # radians from the pupil; the back half of the ball is never seen
    outward = torch.stack([slope.sin() * angle.cos(), slope.sin() * angle.sin(), slope.cos()], dim=1)
    follow = outward[:, 2].clamp(
        min=0
    )  # a turn of the ball, linearised: its front moves as the iris, its side stays
    weights = torch.zeros(count, MESH_POINTS)
    weights[:, corners] = 0.5 - 0.5 * follow[:, None]
    weights[:, IRIS_CENTRES[side]] = follow
    centre = face[IRIS_CENTRES[side]] - torch.tensor([0.0, 0.0, EYE_RADIUS + EYE_DEPTH])
    return weights, centre + EYE_RADIUS * outward - weights @ face


def _on_surface(
    face: FaceModel, shape: Tensor, ring: set[int], hole: set[int], count: int
) -> tuple[Tensor, Tensor]:
    """Points spread evenly over the triangles between some points, except those that close a hole."""
    triangles = face.triangles
    inside = torch.tensor([set(t) <= ring and not set(t) <= hole for t in triangles.tolist()])
    triangles = triangles[inside]
    a, b, c = shape[triangles].unbind(1)
    share = torch.linalg.cross(b - a, c - a).norm(dim=1).cumsum(0)
    steps = (torch.arange(count) + 0.5) / count
    chosen = triangles[torch.searchsorted(share / share[-1], steps).clamp(max=len(triangles) - 1)]
    index = torch.arange(count, dtype=torch.float64)[:, None]
    u, v = ((0.5 + index * torch.tensor([0.7548776662, 0.5698402910])) % 1).float().unbind(1)  # R2 sequence
    folded = u + v > 1
    u, v = torch.where(folded, 1 - u, u), torch.where(folded, 1 - v, v)
    weights = torch.zeros(count, MESH_POINTS).scatter(1, chosen, torch.stack([1 - u - v, u, v], dim=1))
    return weights, torch.zeros(count, 3)


def _anchored(face: Tensor, anchor: list[int], points: Tensor) -> tuple[Tensor, Tensor]:
    """Points that move with the mean of some mesh points; their z stays as given, relative to the arch."""
    weights = torch.zeros(len(points), MESH_POINTS)
    weights[:, anchor] = 1 / len(anchor)
    centre = face[anchor].mean(0)
    return weights, points - torch.stack([centre[0], centre[1], torch.zeros(())])


def _teeth(
    face: Tensor,
    anchor: list[int],
    middle: Tensor,
    size: tuple[float, float, float],
    behind: float,
    grid: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """A row of teeth: a wall that stands on a dental arch."""
    half_width, low, high = size
    y, x = torch.meshgrid(
        torch.linspace(low, high, grid[1]), torch.linspace(-half_width, half_width, grid[0]), indexing="ij"
    )
    points = torch.stack([x, middle + y, -behind - ARCH_BEND * x.square()], dim=-1).reshape(-1, 3)
    return _anchored(face, anchor, points)


def _cavity(face: Tensor, middle: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """A bowl behind the teeth: the upper edge is fixed to the skull, the lower to the jaw, between it stretches."""
    half_width, half_height, depth = CAVITY
    index = torch.arange(count) + 0.5
    radius, angle = (index / count).sqrt(), index * 2.399963
    u, v = radius * angle.cos(), radius * angle.sin()
    x, y = half_width * u, middle + half_height * v
    z = -CAVITY_BEHIND_TEETH - ARCH_BEND * x.square() - depth * (1 - radius.square()).sqrt()
    points = torch.stack([x, y, z], dim=1)
    upper_weights, upper_offsets = _anchored(face, SKULL, points)
    lower_weights, lower_offsets = _anchored(face, JAW, points)
    share = ((1 + v) / 2)[:, None]
    return torch.lerp(lower_weights, upper_weights, share), torch.lerp(lower_offsets, upper_offsets, share)
