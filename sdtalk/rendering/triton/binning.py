"""Triton rasteriser, stage 2: one list entry for every tile that a splat touches, front to back."""

import triton.language as tl

from sdtalk.rendering.triton.kernel import kernel


@kernel
def ranked(order, offsets, view, gaussians, BLOCK: tl.constexpr):
    """The splats of a program, front to back: whether each is there, where its entries begin, how many, its number."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < gaussians
    rank = view * gaussians + place
    start = tl.load(offsets + rank, mask=there, other=0)
    count = tl.load(offsets + rank + 1, mask=there, other=0) - start
    return there, start, count, view * gaussians + tl.load(order + rank, mask=there, other=0)


@kernel
def fill_entries(
    order, offsets, ranges, tile_numbers, splat_numbers, gaussians, columns, tiles,
    BLOCK: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
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
        STEPS: Entries that it writes of each at a time: one splat may cover the whole image.
    """
    view = tl.program_id(1).to(tl.int64)
    there, start, count, splat = ranked(order, offsets, view, gaussians, BLOCK)
    left = tl.load(ranges + splat * 4, mask=there, other=0).to(tl.int32)
    across = tl.maximum(tl.load(ranges + splat * 4 + 1, mask=there, other=0).to(tl.int32) - left, 1)
    top = tl.load(ranges + splat * 4 + 2, mask=there, other=0).to(tl.int32)
    corner = view * tiles + top * columns + left
    numbers = splat.to(tl.int32)[:, None] + tl.zeros((1, STEPS), tl.int32)
    for first in range(0, tl.max(count, axis=0), STEPS):
        step = (first + tl.arange(0, STEPS))[None, :]
        tile = corner[:, None] + (step // across[:, None]) * columns + step % across[:, None]
        goal, mine = start[:, None] + step, step < count[:, None]
        tl.store(tile_numbers + goal, tile.to(tile_numbers.dtype.element_ty), mask=mine)
        tl.store(splat_numbers + goal, numbers, mask=mine)
