"""Tri-plane hash encoding of positions (paper section 3.2; constants from the published grid encoder)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sdtalk.motion import tinycudann_backend

HASH_PRIME = 2654435761
TABLE_ALIGNMENT = 8
INITIAL_RANGE = 1e-4


class PlaneHashEncoding(nn.Module):
    """Multi-resolution hash grid over one plane, one value a level, bilinear.

    Fine levels whose grid does not fit the table are hashed. Positions outside the bound get zeros, as in the
    published kernel, so that far-away points share one constant motion.

    On CUDA, tinycudann computes it where it is installed, unless a gradient to the positions is wanted.
    """

    offsets: Int[Tensor, " level_edge"]

    def __init__(
        self, levels: int, base_resolution: int, finest_resolution: int | float, log2_table: int
    ) -> None:
        super().__init__()
        growth = (finest_resolution / base_resolution) ** (1 / max(levels - 1, 1))
        # float32 on purpose: one unit in the last place more makes level 0 one cell finer (reference Q10)
        powers = torch.exp2(torch.arange(levels, dtype=torch.float32) * torch.tensor(math.log2(growth)))
        self.level_scales = [float(s) for s in powers * base_resolution - 1]
        self.resolutions = [math.ceil(s) + 1 for s in self.level_scales]
        edges = [0]
        for level in range(levels):
            cells = math.ceil(base_resolution * growth**level) + 1
            size = min(cells**2, 2**log2_table)
            edges.append(edges[-1] + math.ceil(size / TABLE_ALIGNMENT) * TABLE_ALIGNMENT)
        self.register_buffer("offsets", torch.tensor(edges, dtype=torch.int32))
        self.edges = edges
        self.embeddings = nn.Parameter(torch.empty(edges[-1], 1).uniform_(-INITIAL_RANGE, INITIAL_RANGE))

    def forward(self, unit: Float[Tensor, "point 2"]) -> Float[Tensor, "point level"]:
        """Encode positions given in [0, 1]^2."""
        inside = ((unit >= 0) & (unit <= 1)).all(-1, keepdim=True)
        unit = unit.clamp(0, 1)
        native = unit.is_cuda and not unit.requires_grad and tinycudann_backend.library() is not None
        encode_level = tinycudann_backend.encode_level if native else _encode_level
        levels = [
            encode_level(unit, self.embeddings[self.edges[i] : self.edges[i + 1]], scale, resolution)
            for i, (scale, resolution) in enumerate(zip(self.level_scales, self.resolutions, strict=True))
        ]
        return torch.cat(levels, dim=-1) * inside


def _encode_level(
    unit: Float[Tensor, "point 2"], table: Float[Tensor, "row 1"], scale: float, resolution: int
) -> Float[Tensor, "point 1"]:
    """Interpolate one level's table at positions in [0, 1]^2."""
    position = unit.T * scale + 0.5
    cell = position.floor()
    right, down = (position - cell).unbind()
    x, y = cell.long().unbind()
    hashed = (resolution + 1) ** 2 > len(table)
    values, edges = table[:, 0], []
    for below in (y, y + 1):
        if hashed:
            row = below * HASH_PRIME & 0xFFFFFFFF
            left_index, right_index = _wrapped(x ^ row, len(table)), _wrapped((x + 1) ^ row, len(table))
        else:
            left_index = x + below * (resolution + 1)
            right_index = left_index + 1
        edges.append(torch.lerp(values[left_index], values[right_index], right))
    return torch.lerp(edges[0], edges[1], down)[:, None]


def _wrapped(index: Int[Tensor, " point"], rows: int) -> Int[Tensor, " point"]:
    """Remainder by the length of a table; where that is a power of two, as for full tables, 20 times as fast."""
    return index & (rows - 1) if rows & (rows - 1) == 0 else index % rows


class TriplaneHashEncoding(nn.Module):
    """Hash features of the xy, yz and xz projections of a position, concatenated in this order."""

    def __init__(
        self,
        levels: int = 12,
        base_resolution: int = 16,
        finest_resolution: int = 512,
        log2_table: int = 17,
        bound: float = 1.15,
    ) -> None:
        super().__init__()
        self.bound = bound
        self.width = 3 * levels
        planes = [
            PlaneHashEncoding(levels, base_resolution, finest_resolution * bound, log2_table)
            for _ in range(3)
        ]
        self.xy, self.yz, self.xz = planes

    def forward(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch code"]:
        """Encode head-space positions; outside [-bound, bound] a plane contributes zeros."""
        unit = (positions.reshape(-1, 3) + self.bound) / (2 * self.bound)
        parts = [self.xy(unit[:, [0, 1]]), self.yz(unit[:, [1, 2]]), self.xz(unit[:, [0, 2]])]
        return torch.cat(parts, dim=-1).reshape(*positions.shape[:-1], self.width)
