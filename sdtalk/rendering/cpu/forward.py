"""CPU rasteriser, stage 4: blend the splats of every tile front to back."""

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, kernel
from sdtalk.rendering.cpu.projection import SPLAT_SIZE
from sdtalk.rendering.cpu.simd import BLOCK, NARROW_BLOCK, add_scaled, add_scaled_narrow
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


@kernel
def write_tile(corner, extent, channels, sums, transmittance, image, alpha_image):
    """Copy a tile's sums [pixel, channel] to the image [channel, row, column]."""
    left, top = corner
    for row in range(extent[1]):
        for column in range(extent[0]):
            alpha_image[top + row, left + column] = 1 - abs(transmittance[row * STRIDE + column])
        for channel in range(image.shape[0]):
            line = image[channel, top + row]
            for column in range(extent[0]):
                line[left + column] = sums[(row * STRIDE + column) * channels + channel]


@fast_kernel
def blend(
    first, last, columns, size, max_alpha, splats, boxes, features, entries, starts, image, alpha_image
):
    """Blend tiles first:last.

    Args:
        first: Start of the range of tiles.
        last: End of the range.
        columns: Tiles per row.
        size: (width, height) in px.
        max_alpha: `RasterRules.max_alpha`, float32.
        splats: [N, 8] from `project`.
        boxes: [N, 16] from `project`.
        features: [N, channels], channels padded to NARROW_BLOCK, or a multiple of BLOCK.
        entries: [E, 2] from `bin_splats`.
        starts: [tiles + 1] from `bin_splats`.
        image: [channels, height, width] out.
        alpha_image: [height, width] out.
    """
    channels = features.shape[1]
    row_length, blocks = np.uint64(channels), np.uint64(channels // BLOCK)
    buffers = tile_buffers()
    transmittance, _, weights, pixels = buffers
    sums = np.empty(AREA * channels, np.float32)
    flat_splats, flat_features = splats.reshape(-1), features.reshape(-1)
    for tile in range(first, last):
        left, top, width, height = start_tile(tile, columns, size, transmittance)
        sums[:] = 0
        first_row, end_row = 0, height
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % CHECK_EVERY == 0:
                first_row, end_row = shrink(first_row, end_row, transmittance)
                if first_row == end_row:
                    break
            ask_ahead(entries, entry, 0, flat_splats, np.uint64(SPLAT_SIZE), flat_features, row_length)
            g = entries[entry, 0]
            source = np.uint64(g) * row_length
            count = weigh(splats, boxes, g, (left, top), (first_row, end_row), max_alpha, buffers)
            for k in range(count):
                pixel = np.uint64(pixels[k])
                if channels == NARROW_BLOCK:
                    add_scaled_narrow(
                        sums, pixel * row_length, flat_features, source, weights[pixel], np.uint64(1)
                    )
                else:
                    add_scaled(sums, pixel * row_length, flat_features, source, weights[pixel], blocks)
        write_tile((left, top), (width, height), channels, sums, transmittance, image, alpha_image)


@fast_kernel
def sum_weights(first, last, columns, size, max_alpha, splats, boxes, features, entries, starts, totals):
    """Sum up over pixels how much each splat of tiles first:last contributes.

    Args:
        first: Start of the range of tiles.
        last: End of the range.
        columns: As `blend` gets them, like size, max_alpha, splats, boxes, features, entries, starts.
        size: See columns.
        max_alpha: See columns.
        splats: See columns.
        boxes: See columns.
        features: Not looked at.
        entries: See columns.
        starts: See columns.
        totals: [E] out, by slot; zeros on entry.
    """
    buffers = tile_buffers()
    transmittance, _, weights, pixels = buffers
    for tile in range(first, last):
        left, top, _, height = start_tile(tile, columns, size, transmittance)
        first_row, end_row = 0, height
        for entry in range(starts[tile], starts[tile + 1]):
            if (entry - starts[tile]) % CHECK_EVERY == 0:
                first_row, end_row = shrink(first_row, end_row, transmittance)
                if first_row == end_row:
                    break
            g, slot = entries[entry, 0], entries[entry, 1]
            count = weigh(splats, boxes, g, (left, top), (first_row, end_row), max_alpha, buffers)
            total = np.float32(0)
            for k in range(count):
                total += weights[np.uint64(pixels[k])]
            totals[slot] = total
