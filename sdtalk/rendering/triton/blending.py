"""Triton rasteriser, stage 3: blend the splats of every tile front to back, a chunk of them at a time.

Weights are [pixel, splat] and features [splat, channel], so that a matrix unit does the sum over splats; 32 channels
cost little more than 3.
"""

import triton.language as tl

from sdtalk.rendering import rules
from sdtalk.rendering.triton.kernel import kernel
from sdtalk.rendering.triton.projection import SPLAT_SIZE, TILE_HEIGHT, TILE_WIDTH

LOG2_E = tl.constexpr(1.4426950408889634)
AREA = tl.constexpr(TILE_WIDTH.value * TILE_HEIGHT.value)
"""Pixels of a tile."""

MIN_ALPHA = tl.constexpr(rules.MIN_ALPHA)
MIN_TRANSMITTANCE = tl.constexpr(rules.MIN_TRANSMITTANCE)


@kernel
def tile_pixels(tile, columns, tiles):
    """Which camera a tile is of, and columns and rows of its pixels."""
    view, number = tile // tiles, tile % tiles
    pixel = tl.arange(0, AREA)
    x = (number % columns) * TILE_WIDTH + pixel % TILE_WIDTH
    return view, x, (number // columns) * TILE_HEIGHT + pixel // TILE_WIDTH


@kernel
def weigh(splats, number, there, x, y, transmittance, max_alpha):
    """Alphas and weights of a chunk of splats at a tile's pixels.

    Args:
        splats: From `projection.project`.
        number: [splat] Which of them.
        there: [splat] Whether there is one.
        x: [pixel] In px.
        y: [pixel]
        transmittance: [pixel] Before the chunk.
        max_alpha: `RasterRules.max_alpha`.

    Returns:
        dx, dy from the splats' centres, alphas, weights: [pixel, splat]; the transmittance after the chunk [pixel], or
        anything below the minimum where the pixel has stopped.
    """
    splat = splats + number.to(tl.int64) * SPLAT_SIZE
    dx = x.to(tl.float32)[:, None] - tl.load(splat, mask=there, other=0.0)[None, :]
    dy = y.to(tl.float32)[:, None] - tl.load(splat + 1, mask=there, other=0.0)[None, :]
    xx = (-0.5 * LOG2_E) * tl.load(splat + 2, mask=there, other=0.0)
    xy = -LOG2_E * tl.load(splat + 3, mask=there, other=0.0)
    yy = (-0.5 * LOG2_E) * tl.load(splat + 4, mask=there, other=0.0)
    log2_opacity = tl.load(splat + 5, mask=there, other=-1000.0)
    power = (xx[None, :] * dx + xy[None, :] * dy) * dx + (yy[None, :] * dy * dy + log2_opacity[None, :])
    alpha = tl.exp2(power)
    alpha = tl.where(
        alpha >= MIN_ALPHA, tl.minimum(alpha, max_alpha), 0.0
    )  # nothing, too, where it is not a number
    # T never grows: below the minimum lie the splat at which the pixel stops and all after it
    after = transmittance[:, None] * tl.cumprod(1 - alpha, axis=1)
    weight = tl.where(after >= MIN_TRANSMITTANCE, alpha * (after / (1 - alpha)), 0.0)
    return dx, dy, alpha, weight, tl.min(after, axis=1)


@kernel
def load_features(features, number, there, gaussians, shared, channels, channel):
    """Features [splat, channel] of a chunk; a set that all cameras share has no rows for the later ones."""
    row = tl.where(shared, number % gaussians, number).to(tl.int64)
    mask = there[:, None] & (channel < channels)[None, :]
    return tl.load(features + row[:, None] * channels + channel[None, :], mask=mask, other=0.0)


@kernel
def blend(
    entries, starts, splats, features, image, alpha_image,
    gaussians, shared, channels, width, height, columns, tiles, max_alpha,
    CHANNELS: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Blend a tile.

    Args:
        entries: [entry] int32: splats by tile, front to back.
        starts: [B * tiles + 1] int64: where the entries of each tile begin.
        splats: [B, N, SPLAT_SIZE] from `projection.project`.
        features: [S, N, channels].
        image: [B, channels, height, width] out.
        alpha_image: [B, 1, height, width] out.
        gaussians: N.
        shared: Whether all cameras share one set of features.
        channels: Of the features.
        width: Of the image in px.
        height: See width.
        columns: Tiles in a row.
        tiles: Tiles of a camera.
        max_alpha: `RasterRules.max_alpha`.
        CHANNELS: Those of the features, or more, that a matrix unit takes.
        CHUNK: Splats at a time.
        PRECISION: Of the matrix product.
    """
    tile = tl.program_id(0)
    view, x, y = tile_pixels(tile, columns, tiles)
    channel = tl.arange(0, CHANNELS)
    transmittance = tl.full((AREA,), 1.0, tl.float32)
    covered = tl.zeros((AREA,), tl.float32)
    colours = tl.zeros((AREA, CHANNELS), tl.float32)
    place, end = tl.load(starts + tile), tl.load(starts + tile + 1)
    there = place + tl.arange(0, CHUNK) < end
    number = tl.load(entries + place + tl.arange(0, CHUNK), mask=there, other=0)
    alive = place < end
    while alive:
        place += CHUNK
        next_there = place + tl.arange(0, CHUNK) < end
        # asked for before it is needed
        next_number = tl.load(entries + place + tl.arange(0, CHUNK), mask=next_there, other=0)
        _, _, _, weight, transmittance = weigh(splats, number, there, x, y, transmittance, max_alpha)
        rows = load_features(features, number, there, gaussians, shared, channels, channel)
        colours = tl.dot(weight, rows, colours, input_precision=PRECISION)
        covered += tl.sum(weight, axis=1)
        there, number = next_there, next_number
        alive = (place < end) & (tl.max(transmittance, axis=0) >= MIN_TRANSMITTANCE)

    inside = (x < width) & (y < height)
    pixel = y.to(tl.int64) * width + x
    area = height.to(tl.int64) * width
    tl.store(alpha_image + view * area + pixel, covered, mask=inside)
    target = image + view * channels * area + channel[None, :] * area + pixel[:, None]
    tl.store(target, colours, mask=inside[:, None] & (channel < channels)[None, :])
