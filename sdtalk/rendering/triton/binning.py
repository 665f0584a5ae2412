"""Triton rasteriser, stage 2: one list entry for every tile that a splat touches, front to back."""

import triton.language as tl

from sdtalk.rendering.triton.kernel import kernel


@kernel
def fill_entries(
    order, offsets, ranges, tile_numbers, splat_numbers, gaussians, columns, tiles, BLOCK: tl.constexpr
):
    """Write the entries of a block of splats.

    Args:
        order: [B, N] int64: the Gaussians of each camera, front to back.
        offsets: [B * N + 1] int64: where the entries of the splat of each rank begin.
        ranges: [B, N, 4] from `projection.project`.
        tile_numbers: [entry] out: which tile, counted through all cameras.
        splat_numbers: [entry] int32 out: which splat, counted through all cameras.
        gaussians: N.
        columns: Tiles in a row.
        tiles: Tiles of a camera.
        BLOCK: Splats of a program.
    """
    view = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < gaussians
    rank = view * gaussians + place
    start = tl.load(offsets + rank, mask=there, other=0)
    count = tl.load(offsets + rank + 1, mask=there, other=0) - start
    splat = view * gaussians + tl.load(order + rank, mask=there, other=0)
    left = tl.load(ranges + splat * 4, mask=there, other=0).to(tl.int32)
    across = tl.maximum(tl.load(ranges + splat * 4 + 1, mask=there, other=0).to(tl.int32) - left, 1)
    top = tl.load(ranges + splat * 4 + 2, mask=there, other=0).to(tl.int32)
    most = tl.max(count, axis=0)
    for step in range(most):
        tile = view * tiles + (top + step // across) * columns + left + step % across
        mine = step < count
        tl.store(tile_numbers + start + step, tile.to(tile_numbers.dtype.element_ty), mask=mine)
        tl.store(splat_numbers + start + step, splat.to(tl.int32), mask=mine)
