"""Mesh rasteriser: draws values given at mesh vertices onto the lifting plane."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

EDGE_TOLERANCE = -1e-4
"""Barycentric slack, so that cells on a shared edge belong to a triangle."""


@dataclass(frozen=True)
class DrawnMesh:
    """What the mesh shows in each cell of the plane.

    Attributes:
        values: Interpolated vertex values of the nearest triangle; 0 where there is none.
        triangle: Index of that triangle, -1 where there is none.
    """

    values: Float[Tensor, "channel size size"]
    triangle: Int[Tensor, "size size"]


def draw_mesh(
    positions: Float[Tensor, "vertex 2"],
    heights: Float[Tensor, " vertex"],
    values: Float[Tensor, "vertex channel"],
    triangles: Int[Tensor, "triangle 3"],
    size: int,
) -> DrawnMesh:
    """Rasterise a mesh without gradients: every triangle tests a window as large as the largest bounding box.

    Args:
        positions: Vertices in cells of the plane (x right, y down; the centre of cell (i, j) is at + 0.5).
        heights: Height of each vertex towards the camera; the highest triangle wins a cell.
        values: What to interpolate.
        triangles: Vertex indices.
        size: Cells on a side.
    """
    corners = positions[triangles]  # [triangle, 3, 2]
    low = (corners.amin(1) - 0.5).ceil()
    extent = int(((corners.amax(1) - 0.5).floor() - low).max().clamp_min(0)) + 1
    steps = torch.arange(extent, device=positions.device, dtype=positions.dtype)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(1, -1, 2)
    cells = low[:, None] + window  # [triangle, cell, 2]
    weights = _barycentric(cells + 0.5, corners)
    inside = (weights >= EDGE_TOLERANCE).all(-1) & (cells >= 0).all(-1) & (cells < size).all(-1)
    which, _ = inside.nonzero(as_tuple=True)
    cells, weights = cells[inside].long(), weights[inside]
    height = (weights * heights[triangles[which]]).sum(-1)
    flat = cells[:, 1] * size + cells[:, 0]
    highest = height.new_full((size * size,), -torch.inf).scatter_reduce(0, flat, height, "amax")
    shown = height == highest[flat]
    drawn = values.new_zeros(size * size, values.shape[1])
    owner = which.new_full((size * size,), -1)
    owner[flat[shown]] = which[shown]
    drawn[flat[shown]] = (weights[shown][..., None] * values[triangles[which[shown]]]).sum(1)
    return DrawnMesh(drawn.T.reshape(-1, size, size).contiguous(), owner.reshape(size, size))


def _barycentric(
    points: Float[Tensor, "triangle cell 2"], corners: Float[Tensor, "triangle 3 2"]
) -> Float[Tensor, "triangle cell 3"]:
    first, second, third = corners[:, None].unbind(2)
    u, v, p = second - first, third - first, points - first
    area = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    area = torch.where(
        area.abs() < 1e-9, torch.full_like(area, float("inf")), area
    )  # degenerate: never inside
    b = (p[..., 0] * v[..., 1] - p[..., 1] * v[..., 0]) / area
    c = (u[..., 0] * p[..., 1] - u[..., 1] * p[..., 0]) / area
    weights = torch.stack([1 - b - c, b, c], dim=-1)
    return torch.where(area[..., None].isinf(), -torch.ones_like(weights), weights)


def distance_to(mask: Bool[Tensor, "size size"]) -> Float[Tensor, "size size"]:
    """Euclidean distance of every cell to the nearest cell of a mask, in cells; 0 inside.

    A separable minimum over all rows, then columns, at half the resolution: an eighth of the work, half a cell off.
    """
    small = F.max_pool2d(mask[None, None].float(), 2, ceil_mode=True)[0, 0] > 0
    distance = 2 * _exact_distance_to(small)[None, None]
    return F.interpolate(distance, size=mask.shape, mode="bilinear")[0, 0] * ~mask


def _exact_distance_to(mask: Bool[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    height, width = mask.shape
    rows = torch.arange(height, device=mask.device, dtype=torch.float32)
    columns = torch.arange(width, device=mask.device, dtype=torch.float32)
    cost = torch.where(mask, 0.0, float(height**2 + width**2))
    vertical = ((rows[:, None] - rows[None]).square()[..., None] + cost[None]).amin(1)
    squared = ((columns[:, None] - columns[None]).square()[None] + vertical[:, None, :]).amin(2)
    return squared.sqrt()


def fill_outwards(
    values: Float[Tensor, "channel size size"], known: Bool[Tensor, "size size"]
) -> Float[Tensor, "channel size size"]:
    """Extend known values smoothly over the rest of the plane (pull-push pyramid); known cells keep theirs."""
    weight = known[None].to(values)
    if known.all() or values.shape[-1] <= 2:
        total = weight.sum().clamp_min(1e-6)
        mean = (values * weight).sum((1, 2), keepdim=True) / total
        return torch.where(known, values, mean.expand_as(values))
    pooled_weight = F.avg_pool2d(weight[None], 2, ceil_mode=True)[0]
    pooled = F.avg_pool2d((values * weight)[None], 2, ceil_mode=True)[0] / pooled_weight.clamp_min(1e-6)
    coarse = fill_outwards(pooled, pooled_weight[0] > 0)
    spread = F.interpolate(coarse[None], size=values.shape[-2:], mode="bilinear", align_corners=False)[0]
    return torch.where(known, values, spread)
