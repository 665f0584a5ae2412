"""Bicubic sampling of photos in Triton, as PyTorch's `grid_sample` does it; border colours continue."""

import triton.language as tl

from sdtalk.rendering.triton.kernel import kernel

CUBIC = tl.constexpr(-0.75)
"""PyTorch's parameter of cubic convolution."""


@kernel
def cubic_weights(t):
    """Weights of the four neighbours of a place t behind the second one."""
    before, after, rest = t + 1.0, 2.0 - t, 1.0 - t
    first = ((CUBIC * before - 5.0 * CUBIC) * before + 8.0 * CUBIC) * before - 4.0 * CUBIC
    second = ((CUBIC + 2.0) * t - (CUBIC + 3.0)) * t * t + 1.0
    third = ((CUBIC + 2.0) * rest - (CUBIC + 3.0)) * rest * rest + 1.0
    fourth = ((CUBIC * after - 5.0 * CUBIC) * after + 8.0 * CUBIC) * after - 4.0 * CUBIC
    return first, second, third, fourth


@kernel
def row_sample(plane, row, columns, weights, last, mask):
    """Four neighbours in a row of a plane; rows and columns beyond the border are those at it."""
    start = plane + row
    c0, c1, c2, c3 = columns
    w0, w1, w2, w3 = weights
    value = w0 * tl.load(start + tl.minimum(tl.maximum(c0, 0), last), mask=mask, other=0.0)
    value += w1 * tl.load(start + tl.minimum(tl.maximum(c1, 0), last), mask=mask, other=0.0)
    value += w2 * tl.load(start + tl.minimum(tl.maximum(c2, 0), last), mask=mask, other=0.0)
    return value + w3 * tl.load(start + tl.minimum(tl.maximum(c3, 0), last), mask=mask, other=0.0)


@kernel
def store_samples(photo, height, width, x, y, shown, out, pixel, plane, mask):
    """Bicubic samples of a photo at px (x, y), pixel centres at + 0.5, into three planes; zero where not shown."""
    x, y = x - 0.5, y - 0.5
    left, top = tl.floor(x), tl.floor(y)
    across, down = cubic_weights(x - left), cubic_weights(y - top)
    # farther away there is nothing new, and whole numbers have an end
    column = tl.minimum(tl.maximum(left, -4.0), width + 4.0).to(tl.int32)
    row = tl.minimum(tl.maximum(top, -4.0), height + 4.0).to(tl.int32)
    columns = column - 1, column, column + 1, column + 2
    r0 = tl.minimum(tl.maximum(row - 1, 0), height - 1) * width
    r1 = tl.minimum(tl.maximum(row, 0), height - 1) * width
    r2 = tl.minimum(tl.maximum(row + 1, 0), height - 1) * width
    r3 = tl.minimum(tl.maximum(row + 2, 0), height - 1) * width
    d0, d1, d2, d3 = down
    for channel in tl.static_range(3):
        source = photo + channel * height * width
        value = d0 * row_sample(source, r0, columns, across, width - 1, shown)
        value += d1 * row_sample(source, r1, columns, across, width - 1, shown)
        value += d2 * row_sample(source, r2, columns, across, width - 1, shown)
        value += d3 * row_sample(source, r3, columns, across, width - 1, shown)
        tl.store(out + channel * plane + pixel, tl.where(shown, value, 0.0), mask=mask)
