"""Triton rasteriser, stage 4: the gradient of blending, front to back, with the weights computed anew.

Every list entry has a row of its own to write to, and the rows of a Gaussian lie side by side, so that adding them up
takes no atomic operations: gradients repeat to the bit.
"""

import triton.language as tl

from sdtalk.rendering.triton.binning import ranked
from sdtalk.rendering.triton.blending import MIN_TRANSMITTANCE, load_features, tile_pixels, weigh
from sdtalk.rendering.triton.kernel import kernel

MOMENTS = tl.constexpr(8)
"""Row of moments: sums over pixels of (gradient of log alpha) * (1, dx, dy, dx^2, dx dy, dy^2), and two unused."""


@kernel
def store_moments(row, there, moment, dx, dy):
    """Sums over the pixels; moment, dx and dy are [pixel, splat]."""
    tl.store(row, tl.sum(moment, axis=0), mask=there)
    tl.store(row + 1, tl.sum(moment * dx, axis=0), mask=there)
    tl.store(row + 2, tl.sum(moment * dy, axis=0), mask=there)
    tl.store(row + 3, tl.sum(moment * dx * dx, axis=0), mask=there)
    tl.store(row + 4, tl.sum(moment * dx * dy, axis=0), mask=there)
    tl.store(row + 5, tl.sum(moment * dy * dy, axis=0), mask=there)


@kernel
def blend_backward(
    entries, slots, starts, splats, features, image, alpha_image, grad_image, grad_alpha,
    slot_moments, slot_features,
    gaussians, shared, channels, width, height, columns, tiles, max_alpha,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of `blending.blend` for a tile.

    With q = gradient . feature, the gradient of log alpha is weight * q - alpha / (1 - alpha) * (the sum of
    weight * q over all splats behind); that sum is what is left of gradient . output.

    Args:
        entries: As `blend` got them, like starts, splats, features, gaussians, shared, channels, width, height,
            columns, tiles, max_alpha, CHANNELS, CHUNK and PRECISION.
        slots: [entry] int64: the row of each entry.
        starts: See entries.
        splats: See entries.
        features: See entries.
        image: What `blend` made.
        alpha_image: See image.
        grad_image: [B, channels, height, width]
        grad_alpha: [B, 1, height, width]
        slot_moments: [entry, MOMENTS] out, by row; zeros on entry.
        slot_features: [entry, channels] out, by row; zeros on entry.
        gaussians: See entries.
        shared: See entries.
        channels: See entries.
        width: See entries.
        height: See entries.
        columns: See entries.
        tiles: See entries.
        max_alpha: See entries.
        CHANNELS: See entries.
        CHUNK: See entries.
        PRECISION: See entries.
    """
    tile = tl.program_id(0)
    view, x, y = tile_pixels(tile, columns, tiles)
    channel = tl.arange(0, CHANNELS)
    inside = (x < width) & (y < height)
    pixel = y.to(tl.int64) * width + x
    area = height.to(tl.int64) * width
    target = view * channels * area + channel[None, :] * area + pixel[:, None]
    mask = inside[:, None] & (channel < channels)[None, :]
    grads = tl.load(grad_image + target, mask=mask, other=0.0)
    alpha_grads = tl.load(grad_alpha + view * area + pixel, mask=inside, other=0.0)
    remaining = tl.sum(grads * tl.load(image + target, mask=mask, other=0.0), axis=1)
    remaining += alpha_grads * tl.load(alpha_image + view * area + pixel, mask=inside, other=0.0)

    transmittance = tl.where(inside, 1.0, 0.0)
    place, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    alive = place < end
    while alive:
        there = place + tl.arange(0, CHUNK) < end
        number = tl.load(entries + place + tl.arange(0, CHUNK), mask=there, other=0)
        slot = tl.load(slots + place + tl.arange(0, CHUNK), mask=there, other=0)
        dx, dy, alpha, weight, transmittance = weigh(splats, number, there, x, y, transmittance, max_alpha)
        rows = load_features(features, number, there, gaussians, shared, channels, channel)
        share = weight * (tl.dot(grads, tl.trans(rows), input_precision=PRECISION) + alpha_grads[:, None])
        behind = remaining[:, None] - tl.cumsum(share, axis=1)
        remaining -= tl.sum(share, axis=1)
        # a capped alpha has no gradient, and neither has a splat that the pixel does not show
        free = (weight > 0) & (alpha < max_alpha)
        moment = tl.where(free, share - behind * alpha / (1 - alpha), 0.0)
        store_moments(slot_moments + slot * MOMENTS, there, moment, dx, dy)
        grad_rows = tl.dot(tl.trans(weight), grads, input_precision=PRECISION)
        goal = slot_features + slot[:, None] * channels + channel[None, :]
        tl.store(goal, grad_rows, mask=there[:, None] & (channel < channels)[None, :])
        place += CHUNK
        alive = (place < end) & (tl.max(transmittance, axis=0) >= MIN_TRANSMITTANCE)


@kernel
def gather_slots(
    order, offsets, slot_moments, slot_features, moments, grad_features,
    gaussians, channels, MOMENT_COLUMNS: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the rows of a block of splats.

    Args:
        order: [B, N] int64: the Gaussians of each camera, front to back.
        offsets: [B * N + 1] int64: where the rows of the splat of each rank begin.
        slot_moments: [entry, MOMENTS] from `blend_backward`.
        slot_features: [entry, channels] from `blend_backward`.
        moments: [B, N, MOMENTS] out.
        grad_features: [B, N, channels] out.
        gaussians: N.
        channels: Of the features.
        MOMENT_COLUMNS: MOMENTS.
        CHANNELS: A power of two, at least `channels`.
        BLOCK: Splats of a program.
    """
    view = tl.program_id(1).to(tl.int64)
    there, start, count, splat = ranked(order, offsets, view, gaussians, BLOCK)
    column, channel = tl.arange(0, MOMENT_COLUMNS), tl.arange(0, CHANNELS)
    some = (channel < channels)[None, :]
    moment_sums = tl.zeros((BLOCK, MOMENT_COLUMNS), tl.float32)
    feature_sums = tl.zeros((BLOCK, CHANNELS), tl.float32)
    for step in range(tl.max(count, axis=0)):
        mine = (step < count)[:, None]
        row = (start + step)[:, None]
        moment_sums += tl.load(slot_moments + row * MOMENT_COLUMNS + column[None, :], mask=mine, other=0.0)
        feature_sums += tl.load(
            slot_features + row * channels + channel[None, :], mask=mine & some, other=0.0
        )
    tl.store(moments + splat[:, None] * MOMENT_COLUMNS + column[None, :], moment_sums, mask=there[:, None])
    tl.store(
        grad_features + splat[:, None] * channels + channel[None, :], feature_sums, mask=there[:, None] & some
    )
