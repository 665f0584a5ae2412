"""Surface frames: how Gaussians lie in a lifted surface.

Such that are round, or only deep, leave stripes once a steep surface turns towards the camera.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MAX_STRETCH = 12.0
"""Limit on how far a Gaussian is stretched uphill, in cells per cell: steeper steps are edges rather than surfaces."""

UPRIGHT_STRETCH = 6.0
"""The same of upright Gaussians."""

LEVEL = 1e-6
"""Slopes below this have no direction."""


@dataclass(frozen=True)
class SurfaceFrames:
    """The frame of each cell.

    Attributes:
        quats: Rotations wxyz. In a surface x points uphill, y along its level, z out of it.
        stretch: How far a Gaussian is stretched along each of these, to cover its cell from every side.
    """

    quats: Float[Tensor, "point 4"]
    stretch: Float[Tensor, "point 3"]


def surface_frames(
    offset: Float[Tensor, "size size"], plane: Float[Tensor, "point 3"], rays: Float[Tensor, "point 3"]
) -> SurfaceFrames:
    """Lay frames into a surface.

    Args:
        offset: Its height over each cell of the lifting plane, along the ray to the camera.
        plane: The lifting plane, row-major.
        rays: How far a point moves per unit of height.
    """
    size = len(offset)
    cell = (plane[1] - plane[0]).norm()
    u, v = F.normalize(plane[1] - plane[0], dim=0), F.normalize(plane[size] - plane[0], dim=0)
    slope, steepest = _slopes(offset / cell)
    steep = slope.norm(dim=-1, keepdim=True)
    uphill = torch.where(steep > LEVEL, slope / steep.clamp_min(LEVEL), slope.new_tensor([1.0, 0.0]))
    rise = torch.where(steep > LEVEL, steepest[:, None].maximum(steep).clamp(max=MAX_STRETCH), 0.0)
    along = uphill[:, :1] * u + uphill[:, 1:] * v + rise * rays
    level = uphill[:, :1] * v - uphill[:, 1:] * u
    x = F.normalize(along, dim=-1)
    y = F.normalize(level - (level * x).sum(-1, keepdim=True) * x, dim=-1)
    axes = torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)
    one = torch.ones_like(rise[:, 0])
    stretch = torch.stack([along.norm(dim=-1).clamp_min(1.0), one, one], dim=-1)
    return SurfaceFrames(quats_of(axes), stretch)


def upright_stretch(
    offset: Float[Tensor, "size size"], plane: Float[Tensor, "point 3"]
) -> Float[Tensor, "point 3"]:
    """Stretch of Gaussians in the frame of head space, along its z where the surface is steep: SDTalk 0.1 had such."""
    _, steepest = _slopes(offset / (plane[1] - plane[0]).norm())
    one = torch.ones_like(steepest)
    return torch.stack([one, one, steepest.clamp(1, UPRIGHT_STRETCH)], dim=-1)


def identity_quats(points: Float[Tensor, "batch point 3"]) -> Float[Tensor, "batch point 4"]:
    """No rotation, for each point: the frame of head space."""
    return points.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(*points.shape[:2], 4)


def _slopes(height: Float[Tensor, "size size"]) -> tuple[Float[Tensor, "point 2"], Float[Tensor, " point"]]:
    """Slope across and down by central differences, and the largest step to a neighbour."""
    padded = F.pad(height[None], (1, 1, 1, 1), mode="replicate")[0]
    middle = padded[1:-1, 1:-1]
    left, right, above, below = padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]
    slope = torch.stack([right - left, below - above], dim=-1).reshape(-1, 2) / 2
    return slope, torch.stack([(x - middle).abs() for x in (left, right, above, below)]).amax(0).flatten()


def quats_of(matrices: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions wxyz of rotation matrices: of four formulas, the one with the largest divisor."""
    m = matrices
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = ([m[..., i, j] for j in range(3)] for i in range(3))
    rows = [
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz],
    ]
    candidates = torch.stack([torch.stack(row, -1) for row in rows], -2)
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    return F.normalize(chosen, dim=-1)


def quat_product(a: Float[Tensor, "*batch 4"], b: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
    """The rotation b, then a (Hamilton product, wxyz)."""
    w, v = a[..., :1], a[..., 1:]
    s, u = b[..., :1], b[..., 1:]
    scalar = w * s - (v * u).sum(-1, keepdim=True)
    return torch.cat([scalar, w * u + s * v + torch.linalg.cross(v, u)], dim=-1)
