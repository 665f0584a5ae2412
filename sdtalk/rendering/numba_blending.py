"""CPU rasteriser, stage 3: blend the splats of a tile front to back, and the gradient of that.

Both directions walk a tile's splats front to back and share `weigh`, which turns one splat into a short list of
pixels and weights. Its loop over a run of LANES pixels has no branch and a fixed length, so the compiler makes vector
code of it on any CPU; the same holds for the loops over a block of BLOCK features.
"""

import math

import numba
import numpy as np

from sdtalk.rendering.numba_binning import TILE_HEIGHT, TILE_WIDTH
from sdtalk.rendering.numba_projection import (
    CENTRE_X,
    CENTRE_Y,
    CONIC_XX,
    CONIC_XY,
    CONIC_YY,
    HALF_HEIGHT,
    HALF_WIDTH,
    MOMENT_1,
    MOMENT_X,
    MOMENT_XX,
    MOMENT_XY,
    MOMENT_Y,
    MOMENT_YY,
    OPACITY,
)
from sdtalk.rendering.rasteriser import MAX_ALPHA, MIN_ALPHA, MIN_TRANSMITTANCE

LANES = 16
"""Pixels of a row weighed at once: one AVX-512 register, or two or four smaller ones."""

BLOCK = 16
"""Features are padded to a multiple of this."""

STRIDE = 64
"""Row length of a tile's buffers: a run may overhang to the right, where T = 0 hides it; divides by shifting."""

MOMENTS = 6
LOG2_E = np.float32(1 / math.log(2))
LOWEST_POWER = np.float32(-20.0)
MAX_ALPHA_32, MIN_ALPHA_32 = np.float32(MAX_ALPHA), np.float32(MIN_ALPHA)
MIN_TRANSMITTANCE_32 = np.float32(MIN_TRANSMITTANCE)
CHECK_EVERY = 16
"""Splats between two looks for rows in which every pixel has stopped."""

_EXP2 = np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 5, [-1, 0]).convert(
    kind=np.polynomial.Polynomial, domain=[-1, 1]
)
E0, E1, E2, E3, E4, E5 = (np.float32(c) for c in _EXP2.coef)

ALLOWED = {"nsz", "arcp", "contract", "reassoc"}  # NaN and infinity keep their meaning


@numba.njit(nogil=True, cache=True, fastmath=ALLOWED, inline="always")
def exp2(power):
    """2^power for power in [LOWEST_POWER, 0], relative error 2e-7; the library's is not vectorised."""
    whole = np.int32(power)
    part = power - np.float32(whole)
    value = E0 + part * (E1 + part * (E2 + part * (E3 + part * (E4 + part * E5))))
    return value * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(nogil=True, cache=True, fastmath=ALLOWED)
def weigh(splat, corner, live_rows, transmittance, alphas, weights, pixels):
    """Blend one splat into a tile's transmittance and list the pixels it reaches.

    Args:
        splat: Row of the projected Gaussians.
        corner: (left, top) of the tile in px.
        live_rows: (first, end) of the rows that still have a live pixel.
        transmittance: [TILE_HEIGHT * STRIDE]; negative where the pixel has stopped, 0 outside the image.
        alphas: [TILE_HEIGHT * STRIDE] scratch; holds the splat's alpha at the listed pixels afterwards.
        weights: Like alphas, for the weight.
        pixels: [TILE_HEIGHT * STRIDE + 1] out: the listed pixels, as row * STRIDE + column.

    Returns:
        How many pixels are listed.
    """
    x, y = splat[CENTRE_X] - np.float32(corner[0]), splat[CENTRE_Y] - np.float32(corner[1])
    half_width, half_height = splat[HALF_WIDTH], splat[HALF_HEIGHT]
    left, right = int(max(math.ceil(x - half_width), 0)), int(min(math.floor(x + half_width), TILE_WIDTH - 1))
    top = int(max(math.ceil(y - half_height), live_rows[0]))
    bottom = int(min(math.floor(y + half_height), live_rows[1] - 1))
    xx, yy = np.float32(0.5) * LOG2_E * splat[CONIC_XX], np.float32(0.5) * LOG2_E * splat[CONIC_YY]
    xy, peak = LOG2_E * splat[CONIC_XY], np.float32(math.log2(splat[OPACITY]))
    count = 0
    for row in range(top, bottom + 1):
        dy = np.float32(row) - y
        row_power, row_slope = peak - yy * dy * dy, xy * dy
        for start in range(left, right + 1, LANES):
            base = row * STRIDE + start
            start_dx = np.float32(start) - x
            for lane in range(LANES):
                dx = start_dx + np.float32(lane)
                power = row_power - dx * (row_slope + xx * dx)
                power = min(max(power, LOWEST_POWER), np.float32(0))  # above 0 only where alpha is clamped
                alpha = min(exp2(power), MAX_ALPHA_32)
                before = transmittance[base + lane]
                weight = alpha * before
                after = before - weight
                seen = alpha >= MIN_ALPHA_32
                blended = seen and after >= MIN_TRANSMITTANCE_32
                stopped = -abs(before) if seen else before
                transmittance[base + lane] = after if blended else stopped
                weights[base + lane] = weight if blended else np.float32(0)
                alphas[base + lane] = alpha
            for lane in range(LANES):
                pixels[count] = base + lane
                count += weights[base + lane] > 0
    return count


@numba.njit(nogil=True, cache=True)
def start_tile(tile, columns, size, transmittance):
    """Corner and size in px of a tile; fills its transmittance with 1 inside the image and 0 outside."""
    left, top = tile % columns * TILE_WIDTH, tile // columns * TILE_HEIGHT
    width, height = min(size[0] - left, TILE_WIDTH), min(size[1] - top, TILE_HEIGHT)
    transmittance[:] = 0
    for row in range(height):
        transmittance[row * STRIDE : row * STRIDE + width] = 1
    return left, top, width, height


@numba.njit(nogil=True, cache=True)
def shrink(first, end, transmittance):
    """Drop outer rows in which every pixel has stopped."""
    while first < end and transmittance[first * STRIDE : first * STRIDE + TILE_WIDTH].max() <= 0:
        first += 1
    while first < end and transmittance[(end - 1) * STRIDE : (end - 1) * STRIDE + TILE_WIDTH].max() <= 0:
        end -= 1
    return first, end


@numba.njit(nogil=True, cache=True, fastmath=ALLOWED)
def blend(first, last, columns, size, splats, features, entries, starts, image, alpha_image):
    """Blend tiles first:last.

    Args:
        first: Start of the range of tiles.
        last: End of the range.
        columns: Tiles per row.
        size: (width, height) in px.
        splats: [N, 8] from `project`.
        features: [N, blocks, BLOCK].
        entries: [E, 2] from `bin_splats`.
        starts: [tiles + 1] from `bin_splats`.
        image: [channels, height, width] out.
        alpha_image: [height, width] out.
    """
    blocks = features.shape[1]
    area = TILE_HEIGHT * STRIDE
    transmittance, alphas = np.empty(area, np.float32), np.empty(area, np.float32)
    weights, pixels = np.empty(area, np.float32), np.empty(area + 1, np.int32)
    sums = np.empty((area, blocks, BLOCK), np.float32)
    for tile in range(first, last):
        left, top, width, height = start_tile(tile, columns, size, transmittance)
        sums[:] = 0
        first_row, end_row = 0, height
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % CHECK_EVERY == 0:
                first_row, end_row = shrink(first_row, end_row, transmittance)
                if first_row == end_row:
                    break
            g = entries[entry, 0]
            count = weigh(
                splats[g], (left, top), (first_row, end_row), transmittance, alphas, weights, pixels
            )
            for k in range(count):
                pixel = pixels[k]
                weight = weights[pixel]
                for block in range(blocks):
                    for c in range(BLOCK):
                        sums[pixel, block, c] += weight * features[g, block, c]
        for row in range(height):
            for column in range(width):
                alpha_image[top + row, left + column] = 1 - abs(transmittance[row * STRIDE + column])
            for channel in range(image.shape[0]):
                for column in range(width):
                    value = sums[row * STRIDE + column, channel // BLOCK, channel % BLOCK]
                    image[channel, top + row, left + column] = value


@numba.njit(nogil=True, cache=True, fastmath=ALLOWED)
def load_gradients(corner, extent, image, alpha_image, grad_image, grad_alpha, grads, alpha_grads, remaining):
    """Copy a tile's gradients pixel by pixel; `remaining` becomes gradient . output of the pixel."""
    left, top = corner
    for row in range(extent[1]):
        base = row * STRIDE
        for column in range(extent[0]):
            grad = grad_alpha[top + row, left + column]
            alpha_grads[base + column] = grad
            remaining[base + column] = grad * alpha_image[top + row, left + column]
        for channel in range(image.shape[0]):
            for column in range(extent[0]):
                grad = grad_image[channel, top + row, left + column]
                grads[base + column, channel // BLOCK, channel % BLOCK] = grad
                remaining[base + column] += grad * image[channel, top + row, left + column]


@numba.njit(nogil=True, cache=True, fastmath=ALLOWED)
def blend_backward(first, last, columns, size, splats, features, entries, starts, images, grad_images, slots):
    """Gradient of `blend` for tiles first:last, front to back, weights computed anew.

    With q = gradient . feature, the gradient of log alpha is weight * q - alpha / (1 - alpha) * (the sum of weight * q
    over all splats behind); that sum is what `remaining`, gradient . output, has left after subtracting.

    Args:
        first: Start of the range of tiles.
        last: End of the range.
        columns: As `blend` got them, like size, splats, features, entries, starts.
        size: See columns.
        splats: See columns.
        features: See columns.
        entries: See columns.
        starts: See columns.
        images: (image, alpha_image) that `blend` made.
        grad_images: Their gradients.
        slots: (used [E] zeros, moments [E, 6], feature gradients [E, blocks, BLOCK]) out, by slot.
    """
    blocks = features.shape[1]
    area = TILE_HEIGHT * STRIDE
    transmittance, alphas = np.empty(area, np.float32), np.empty(area, np.float32)
    weights, pixels = np.empty(area, np.float32), np.empty(area + 1, np.int32)
    remaining, alpha_grads = np.empty(area, np.float32), np.empty(area, np.float32)
    grads = np.zeros((area, blocks, BLOCK), np.float32)
    feature_grad = np.empty((blocks, BLOCK), np.float32)
    used, slot_moments, slot_features = slots
    for tile in range(first, last):
        left, top, width, height = start_tile(tile, columns, size, transmittance)
        load_gradients(
            (left, top), (width, height), images[0], images[1], grad_images[0], grad_images[1],
            grads, alpha_grads, remaining,
        )  # fmt: skip
        first_row, end_row = 0, height
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % CHECK_EVERY == 0:
                first_row, end_row = shrink(first_row, end_row, transmittance)
                if first_row == end_row:
                    break
            g, slot = entries[entry, 0], entries[entry, 1]
            count = weigh(
                splats[g], (left, top), (first_row, end_row), transmittance, alphas, weights, pixels
            )
            if count == 0:
                continue
            x, y = splats[g, CENTRE_X] - np.float32(left), splats[g, CENTRE_Y] - np.float32(top)
            m1 = mx = my = mxx = mxy = myy = np.float32(0)
            feature_grad[:] = 0
            for k in range(count):
                pixel = pixels[k]
                weight, alpha = weights[pixel], alphas[pixel]
                q = alpha_grads[pixel]
                for block in range(blocks):
                    part = np.float32(0)
                    for c in range(BLOCK):
                        part += grads[pixel, block, c] * features[g, block, c]
                        feature_grad[block, c] += weight * grads[pixel, block, c]
                    q += part
                remaining[pixel] -= weight * q
                if alpha < MAX_ALPHA_32:
                    moment = weight * q - remaining[pixel] * alpha / (np.float32(1) - alpha)
                    dx, dy = np.float32(pixel % STRIDE) - x, np.float32(pixel // STRIDE) - y
                    m1 += moment
                    mx += moment * dx
                    my += moment * dy
                    mxx += moment * dx * dx
                    mxy += moment * dx * dy
                    myy += moment * dy * dy
            used[slot] = 1
            slot_moments[slot, MOMENT_1], slot_moments[slot, MOMENT_X] = m1, mx
            slot_moments[slot, MOMENT_Y], slot_moments[slot, MOMENT_XX] = my, mxx
            slot_moments[slot, MOMENT_XY], slot_moments[slot, MOMENT_YY] = mxy, myy
            slot_features[slot] = feature_grad


@numba.njit(nogil=True, cache=True)
def gather_slots(first, last, offsets, slots, moments, features):
    """Add up the slots of Gaussians first:last into moments [N, 6] and features [N, channels], zeros on entry."""
    used, slot_moments, slot_features = slots
    for g in range(first, last):
        for slot in range(offsets[g], offsets[g + 1]):
            if used[slot]:
                for m in range(MOMENTS):
                    moments[g, m] += slot_moments[slot, m]
                for c in range(features.shape[1]):
                    features[g, c] += slot_features[slot, c // BLOCK, c % BLOCK]
