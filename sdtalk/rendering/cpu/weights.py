"""CPU rasteriser, stage 3: the weights of one splat at the pixels of one tile.

Blending and its gradient both walk a tile's splats front to back and share `weigh`, which turns one splat into a
short list of pixels and weights. Its loop over a run of pixels has no branch and a fixed length, so that the
compiler makes vector code of it on any CPU.
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
from sdtalk.rendering.cpu.simd import RUN, list_positive, prefetch
from sdtalk.rendering.rules import MIN_ALPHA, MIN_TRANSMITTANCE

LANES = np.uint64(RUN)
"""RUN, unsigned: the wrap-around of negative indices, which signed ones need, prevents vector code."""

STRIDE = 64
"""Row length of a tile's buffers: a run may overhang to the right, where T = 0 hides it."""

AREA = TILE_HEIGHT * STRIDE

LOG2_E = np.float32(1 / math.log(2))
LOWEST_POWER = np.float32(-20.0)
MIN_ALPHA_32, MIN_TRANSMITTANCE_32 = np.float32(MIN_ALPHA), np.float32(MIN_TRANSMITTANCE)
CACHE_LINE = 16
"""Floats in a cache line."""

AHEAD = 8
"""How many entries ahead of its use a Gaussian is asked for: they lie scattered in memory."""

CHECK_EVERY = 16
"""Splats between two looks for rows in which every pixel has stopped."""

_EXP2 = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 5, [-1, 0]).convert(
    kind=np.polynomial.Polynomial, domain=[-1, 1]
)
E0, E1, E2, E3, E4, E5 = (np.float32(c) for c in _EXP2.coef)


@fast_kernel
def exp2(power):
    """2^power for power in [LOWEST_POWER, 0], relative error 2e-7; the library's is not vectorised."""
    whole = np.int32(power)
    part = power - np.float32(whole)
    value = E0 + part * (E1 + part * (E2 + part * (E3 + part * (E4 + part * E5))))
    return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@kernel
def tile_buffers():
    """What `weigh` works on, pixel (row, column) of the tile at row * STRIDE + column.

    Returns:
        0, 1, 2... as float32; transmittance, negative where the pixel has stopped, 0 outside the image; alpha and
        weight of the last splat, valid at its pixels; the list of these pixels, with room for one more run.
    """
    lane_numbers = np.arange(RUN).astype(np.float32)
    transmittance, alphas = np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    return lane_numbers, transmittance, alphas, np.empty(AREA, np.float32), np.empty(AREA + RUN, np.int32)


@fast_kernel
def weigh(splat, box, corner, live_rows, max_alpha, buffers):
    """Blend one splat into a tile's transmittance and list the pixels it reaches.

    Args:
        splat: Row of the projected Gaussians.
        box: The same as int16.
        corner: (left, top) of the tile in px.
        live_rows: (first, end) of the rows that still have a live pixel.
        max_alpha: `RasterRules.max_alpha`, float32.
        buffers: Of this thread, from `tile_buffers`.

    Returns:
        How many pixels are listed.
    """
    lane_numbers, transmittance, alphas, weights, pixels = buffers
    x, y = splat[CENTRE_X] - np.float32(corner[0]), splat[CENTRE_Y] - np.float32(corner[1])
    left, right = max(box[LEFT] - corner[0], 0), min(box[RIGHT] - corner[0], TILE_WIDTH - 1)
    top, bottom = max(box[TOP] - corner[1], live_rows[0]), min(box[BOTTOM] - corner[1], live_rows[1] - 1)
    xx, yy = np.float32(0.5) * LOG2_E * splat[CONIC_XX], np.float32(0.5) * LOG2_E * splat[CONIC_YY]
    xy, peak = LOG2_E * splat[CONIC_XY], splat[LOG2_OPACITY]
    count = np.uint64(0)
    for row in range(top, bottom + 1):
        dy = np.float32(row) - y
        row_power, row_slope = peak - yy * dy * dy, xy * dy
        for start in range(left, right + 1, RUN):
            base = np.uint64(row * STRIDE + start)
            start_dx = np.float32(start) - x
            lane_end = np.float32(right - start)
            for lane in range(LANES):
                pixel = base + lane
                dx = start_dx + lane_numbers[lane]
                power = row_power - dx * (row_slope + xx * dx)
                power = min(max(power, LOWEST_POWER), np.float32(0))  # above 0 only where alpha is clamped
                alpha = min(exp2(power), max_alpha)
                before = transmittance[pixel]
                weight = alpha * before
                after = before * (np.float32(1) - alpha)  # before - weight would round on a larger scale
                seen = alpha >= MIN_ALPHA_32 and lane_numbers[lane] <= lane_end
                blended = seen and after >= MIN_TRANSMITTANCE_32
                stopped = -abs(before) if seen else before
                transmittance[pixel] = after if blended else stopped
                weights[pixel] = weight if blended else np.float32(0)
                alphas[pixel] = alpha
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


@kernel
def shrink(first, end, transmittance):
    """Drop outer rows in which every pixel has stopped."""
    while first < end and transmittance[first * STRIDE : first * STRIDE + TILE_WIDTH].max() <= 0:
        first += 1
    while first < end and transmittance[(end - 1) * STRIDE : (end - 1) * STRIDE + TILE_WIDTH].max() <= 0:
        end -= 1
    return first, end


@kernel
def ask_ahead(entries, entry, which, short_rows, rows):
    """Prefetch the rows that the entry AHEAD of this one needs, by its Gaussian (which = 0) or slot (1)."""
    index = entries[min(entry + AHEAD, entries.shape[0] - 1), which]
    prefetch(short_rows[index], np.uint64(0))
    for c in range(0, rows.shape[1], CACHE_LINE):
        prefetch(rows[index], np.uint64(c))
