"""CPU rasteriser, stage 3: the weights of one splat at the pixels of one tile.

Blending and its gradient both walk a tile's splats front to back and share `weigh`, which turns one splat into a
short list of pixels and weights.

Loops over splats index whole arrays and take no row out of them: Numba would count the references to such a view.
"""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, kernel
from sdtalk.rendering.cpu.projection import (
    BOTTOM,
    CENTRE_X,
    CENTRE_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    LEFT,
    LOG2_OPACITY,
    RIGHT,
    TILE_HEIGHT,
    TILE_WIDTH,
    TOP,
)
from sdtalk.rendering.cpu.runs import RUN, list_positive, weigh_run
from sdtalk.rendering.cpu.simd import prefetch

STRIDE = 80
"""Row length of a tile's buffers: a run may overhang to the right, where T = 0 hides it."""

AREA = TILE_HEIGHT * STRIDE

LOG2_E = np.float32(1 / math.log(2))
CACHE_LINE = 16
"""Floats in a cache line."""

AHEAD = 8
"""How many entries ahead of its use a Gaussian is asked for: they lie scattered in memory."""

CHECK_EVERY = 16
"""Splats between two looks for rows in which every pixel has stopped."""


@kernel
def tile_buffers():
    """What `weigh` works on, pixel (row, column) of the tile at row * STRIDE + column.

    Returns:
        Transmittance, negative where the pixel has stopped, 0 outside the image; alpha and weight of the last splat,
        valid at its pixels; the list of these pixels, with room for one more run.
    """
    transmittance, alphas = np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    return transmittance, alphas, np.empty(AREA, np.float32), np.empty(AREA + RUN, np.int32)


@fast_kernel
def weigh(splats, boxes, g, corner, rows, max_alpha, buffers):
    """Blend one splat into a tile's transmittance and list the pixels it reaches.

    Args:
        splats: The projected Gaussians.
        boxes: The same as int16.
        g: Which of them.
        corner: (left, top) of the tile in px.
        rows: (first, end) of the rows that still have a live pixel.
        max_alpha: `RasterRules.max_alpha`, float32.
        buffers: Of this thread, from `tile_buffers`.

    Returns:
        How many pixels are listed.
    """
    transmittance, alphas, weights, pixels = buffers
    x, y = splats[g, CENTRE_X] - np.float32(corner[0]), splats[g, CENTRE_Y] - np.float32(corner[1])
    left, right = max(boxes[g, LEFT] - corner[0], 0), min(boxes[g, RIGHT] - corner[0], TILE_WIDTH - 1)
    top, bottom = (
        max(boxes[g, TOP] - corner[1], rows[0]),
        min(boxes[g, BOTTOM] - corner[1], rows[1] - 1),
    )
    xx, yy = np.float32(0.5) * LOG2_E * splats[g, CONIC_XX], np.float32(0.5) * LOG2_E * splats[g, CONIC_YY]
    xy, peak = LOG2_E * splats[g, CONIC_XY], splats[g, LOG2_OPACITY]
    count = np.uint64(0)
    for row in range(top, bottom + 1):
        dy = np.float32(row) - y
        row_power, row_slope = peak - yy * dy * dy, xy * dy
        for start in range(left, right + 1, RUN):
            base = np.uint64(row * STRIDE + start)
            weigh_run(
                transmittance, alphas, weights, base, np.float32(start) - x, np.int32(right - start),
                row_power, row_slope, xx, max_alpha,
            )  # fmt: skip
            count = list_positive(weights, base, pixels, count)
    return count


@kernel
def start_tile(tile, columns, size, transmittance):
    """Corner and size in px of a tile; fills its transmittance with 1 inside the image and 0 outside."""
    left, top = tile % columns * TILE_WIDTH, tile // columns * TILE_HEIGHT
    width, height = min(size[0] - left, TILE_WIDTH), min(size[1] - top, TILE_HEIGHT)
    transmittance[:] = 0
    for row in range(height):
        transmittance[row * STRIDE : row * STRIDE + width] = 1
    return left, top, width, height


@fast_kernel
def is_live(row, transmittance):
    """Whether a row of a tile has a pixel that has not stopped."""
    most = np.float32(0)
    for column in range(np.uint64(TILE_WIDTH)):
        most = max(most, transmittance[np.uint64(row * STRIDE) + column])
    return most > 0


@kernel
def shrink(first, end, transmittance):
    """Drop outer rows in which every pixel has stopped."""
    while first < end and not is_live(first, transmittance):
        first += 1
    while first < end and not is_live(end - 1, transmittance):
        end -= 1
    return first, end


@kernel
def ask_ahead(entries, entry, which, short_rows, short_length, rows, length):
    """Prefetch the rows that the entry AHEAD of this one needs, by its Gaussian (which = 0) or slot (1).

    The two arrays are flat, with rows of the given lengths, unsigned.
    """
    index = np.uint64(entries[min(entry + AHEAD, entries.shape[0] - 1), which])
    prefetch(short_rows, index * short_length)
    for c in range(np.uint64(0), length, np.uint64(CACHE_LINE)):
        prefetch(rows, index * length + c)
