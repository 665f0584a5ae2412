"""CPU kernels that finish frames: the photo's detail carried to rasterised Gaussians, and 8-bit frames made of them."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel

MIN_WEIGHT = np.float32(1e-4)
"""Where less of a pixel comes from the photo, no detail is carried there."""


@fast_kernel
def carry_detail(first, last, features, alpha, detail, thin, zoom, picture):
    """Add the photo's detail to rows first:last of a rasterised picture, and close what is nearly opaque.

    Args:
        first: Start of the range of rows.
        last: End of the range.
        features: [6, height, width] colour, and place in the photo, x and y in [-1, 1] times weight, weight.
        alpha: [height, width].
        detail: [rows, columns, 4], the last one unused: a pixel is one load.
        thin: A transmittance T below this becomes T^3 / thin^2.
        zoom: Every pixel becomes zoom x zoom.
        picture: [4, zoom * height, zoom * width] out: colours, premultiplied, and alpha.
    """
    rows, columns = detail.shape[0], detail.shape[1]
    half_width, half_height = np.float32(columns) * np.float32(0.5), np.float32(rows) * np.float32(0.5)
    one, half = np.float32(1), np.float32(0.5)
    for row in range(first, last):
        for column in range(alpha.shape[1]):
            opaque = alpha[row, column]
            if opaque <= 0:
                for v in range(row * zoom, (row + 1) * zoom):
                    for u in range(column * zoom, (column + 1) * zoom):
                        for c in range(4):
                            picture[c, v, u] = 0
                continue
            through = one - opaque
            if through < thin:
                through = through * through * through / (thin * thin)
            closed = one - through
            gain = closed / opaque
            red, green, blue = features[0, row, column], features[1, row, column], features[2, row, column]
            weight = features[5, row, column]
            if weight > MIN_WEIGHT:
                x = (features[3, row, column] / weight + one) * half_width - half
                y = (features[4, row, column] / weight + one) * half_height - half
                x, y = min(max(x, -one), np.float32(columns)), min(max(y, -one), np.float32(rows))
                left, top = int(math.floor(x)), int(math.floor(y))
                right_share, low_share = x - np.float32(left), y - np.float32(top)
                for j in range(2):
                    v = top + j
                    if v < 0 or v >= rows:
                        continue
                    share = weight * (low_share if j else one - low_share)
                    for i in range(2):
                        u = left + i
                        if u < 0 or u >= columns:
                            continue
                        part = share * (right_share if i else one - right_share)
                        red += part * detail[v, u, 0]
                        green += part * detail[v, u, 1]
                        blue += part * detail[v, u, 2]
            red, green, blue = gain * red, gain * green, gain * blue
            for v in range(row * zoom, (row + 1) * zoom):
                for u in range(column * zoom, (column + 1) * zoom):
                    picture[0, v, u], picture[1, v, u], picture[2, v, u] = red, green, blue
                    picture[3, v, u] = closed


@fast_kernel
def compose(first, last, picture, background, zoom, frame):
    """Lay rows first:last of a picture over a background, as 8-bit RGB: clamped, rounded.

    Args:
        first: Start of the range of rows of the frame.
        last: End of the range.
        picture: [4, zoom * height, zoom * width] colours, premultiplied, and alpha.
        background: [3, zoom * height, zoom * width].
        zoom: The mean of zoom x zoom pixels becomes one.
        frame: [height, width, 3] uint8, out.
    """
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    scale = np.float32(255) / np.float32(zoom * zoom)
    for row in range(first, last):
        line = frame[row]
        for column in range(frame.shape[1]):
            if zoom == 1:  # the usual case, three times as fast without loops
                through = one - picture[3, row, column]
                for c in range(3):
                    value = picture[c, row, column] + through * background[c, row, column]
                    line[column, c] = np.uint8(min(max(value, zero), one) * scale + half)
                continue
            for c in range(3):
                total = zero
                for v in range(row * zoom, (row + 1) * zoom):
                    for u in range(column * zoom, (column + 1) * zoom):
                        value = picture[c, v, u] + (one - picture[3, v, u]) * background[c, v, u]
                        total += min(max(value, zero), one)
                line[column, c] = np.uint8(total * scale + half)
