"""CPU rasteriser, stage 5: the gradient of blending, front to back, with the weights computed anew."""

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, kernel
from sdtalk.rendering.cpu.projection import CENTRE_X, CENTRE_Y, SPLAT_SIZE
from sdtalk.rendering.cpu.simd import BLOCK, dot, sum_rows
from sdtalk.rendering.cpu.weights import (
    AREA,
    CHECK_EVERY,
    STRIDE,
    ask_ahead,
    shrink,
    start_tile,
    tile_buffers,
    weigh,
)

MOMENTS = 6


@fast_kernel
def multiply(left, right, out):
    """Set out = left * right; slices of equal length."""
    for i in range(out.size):
        out[i] = left[i] * right[i]


@fast_kernel
def multiply_add(left, right, out):
    """Add left * right to out; slices of equal length."""
    for i in range(out.size):
        out[i] += left[i] * right[i]


@fast_kernel
def load_tile(corner, extent, channels, images, grad_images, grads, alpha_grads, remaining):
    """Copy a tile's gradients to grads [pixel, channel]; `remaining` becomes gradient . output of the pixel."""
    left, top = corner
    image, alpha_image = images
    grad_image, grad_alpha = grad_images
    for row in range(extent[1]):
        base = row * STRIDE
        line = remaining[base : base + extent[0]]
        place = slice(left, left + extent[0])
        alpha_grads[base : base + extent[0]] = grad_alpha[top + row, place]
        multiply(grad_alpha[top + row, place], alpha_image[top + row, place], line)
        for channel in range(image.shape[0]):
            grad = grad_image[channel, top + row, place]
            multiply_add(grad, image[channel, top + row, place], line)
            start = base * channels + channel
            for column in range(grad.size):
                grads[np.uint64(start + column * channels)] = grad[column]


@fast_kernel
def splat_gradient(
    centre, max_alpha, count, buffers, tile_grads, features, source, slot_features, target, moments, slot
):
    """Add one splat's gradients in one tile to its slot, and take its share off `remaining`.

    With q = gradient . feature, the gradient of log alpha is weight * q - alpha / (1 - alpha) * (the sum of
    weight * q over all splats behind); that sum is what is left of `remaining`.

    Args:
        centre: (x, y) of the splat in the tile.
        max_alpha: `RasterRules.max_alpha`, float32.
        count: How many pixels `weigh` listed in the buffers.
        buffers: From `tile_buffers`.
        tile_grads: (grads, alpha_grads, remaining) from `load_tile`.
        features: Flat features of all Gaussians.
        source: Where this Gaussian's begin.
        slot_features: Flat feature gradients of all slots.
        target: Where this slot's begin.
        moments: [E, 6] of all slots, out.
        slot: Which of them.
    """
    _, alphas, weights, pixels = buffers
    grads, alpha_grads, remaining = tile_grads
    row_length = np.uint64(grads.size // AREA)
    blocks = row_length // np.uint64(BLOCK)
    x, y = centre
    m_1 = m_x = m_y = m_xx = m_xy = m_yy = np.float32(0)
    for k in range(count):
        pixel = np.uint64(pixels[k])
        weight, alpha, at = weights[pixel], alphas[pixel], pixel * row_length
        share = weight * (alpha_grads[pixel] + dot(grads, at, features, source, blocks))
        behind = remaining[pixel] - share
        remaining[pixel] = behind
        if alpha < max_alpha:  # a clamped alpha has no gradient
            moment = share - behind * alpha / (np.float32(1) - alpha)
            dx, dy = np.float32(pixels[k] % STRIDE) - x, np.float32(pixels[k] // STRIDE) - y
            m_1 += moment
            m_x += moment * dx
            m_y += moment * dy
            m_xx += moment * dx * dx
            m_xy += moment * dx * dy
            m_yy += moment * dy * dy
    sum_rows(slot_features, target, grads, weights, pixels, np.uint64(count), blocks)
    moments[slot, 0], moments[slot, 1], moments[slot, 2] = m_1, m_x, m_y
    moments[slot, 3], moments[slot, 4], moments[slot, 5] = m_xx, m_xy, m_yy


@fast_kernel
def blend_backward(
    first,
    last,
    columns,
    size,
    max_alpha,
    splats,
    boxes,
    features,
    entries,
    starts,
    images,
    grad_images,
    slots,
):
    """Gradient of `blend` for tiles first:last.

    Args:
        first: Start of the range of tiles.
        last: End of the range.
        columns: As `blend` got them, like size, max_alpha, splats, boxes, features, entries, starts.
        size: See columns.
        max_alpha: See columns.
        splats: See columns.
        boxes: See columns.
        features: See columns.
        entries: See columns.
        starts: See columns.
        images: (image, alpha_image) that `blend` made.
        grad_images: Their gradients.
        slots: (used [E] zeros, moments [E, 6], feature gradients [E, channels]) out, by slot.
    """
    channels = features.shape[1]
    row_length = np.uint64(channels)
    buffers = tile_buffers()
    transmittance = buffers[0]
    remaining, alpha_grads = np.empty(AREA, np.float32), np.empty(AREA, np.float32)
    grads = np.zeros(AREA * channels, np.float32)
    used, slot_moments, slot_features = slots
    flat_features, flat_slots = features.reshape(-1), slot_features.reshape(-1)
    flat_splats, flat_moments = splats.reshape(-1), slot_moments.reshape(-1)
    for tile in range(first, last):
        left, top, width, height = start_tile(tile, columns, size, transmittance)
        corner = left, top
        load_tile(corner, (width, height), channels, images, grad_images, grads, alpha_grads, remaining)
        first_row, end_row = 0, height
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % CHECK_EVERY == 0:
                first_row, end_row = shrink(first_row, end_row, transmittance)
                if first_row == end_row:
                    break
            ask_ahead(entries, entry, 0, flat_splats, np.uint64(SPLAT_SIZE), flat_features, row_length)
            ask_ahead(entries, entry, 1, flat_moments, np.uint64(MOMENTS), flat_slots, row_length)
            g, slot = entries[entry, 0], entries[entry, 1]
            count = weigh(splats, boxes, g, corner, (first_row, end_row), max_alpha, buffers)
            if count == 0:
                continue
            used[slot] = 1
            splat_gradient(
                (splats[g, CENTRE_X] - np.float32(left), splats[g, CENTRE_Y] - np.float32(top)), max_alpha, count,
                buffers, (grads, alpha_grads, remaining),
                flat_features, np.uint64(g) * row_length, flat_slots, np.uint64(slot) * row_length,
                slot_moments, slot,
            )  # fmt: skip


@kernel
def gather_slots(first, last, offsets, slots, moments, features):
    """Add up the slots of Gaussians first:last into moments [N, 6] and features [N, channels], zeros on entry."""
    used, slot_moments, slot_features = slots
    for g in range(first, last):
        for slot in range(offsets[g], offsets[g + 1]):
            if used[slot]:
                for m in range(MOMENTS):
                    moments[g, m] += slot_moments[slot, m]
                for c in range(features.shape[1]):
                    features[g, c] += slot_features[slot, c]
