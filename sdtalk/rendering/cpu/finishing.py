"""CPU kernels that finish frames: the photo's detail carried to rasterised Gaussians, and 8-bit frames made of them."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel

MIN_WEIGHT = np.float32(1e-4)
"""Where less of a pixel comes from the photo, no detail is carried there."""


@fast_kernel
def carry_detail(first, last, features, alpha, detail, thin, picture):
    """Add the photo's detail to rows first:last of a rasterised picture, and close what is nearly opaque.

    Args:
        first: Start of the range of rows.
        last: End of the range.
        features: [6, height, width] colour, and place in the photo, x and y in [-1, 1] times weight, weight.
        alpha: [height, width].
        detail: [rows, columns, 4], the last one unused: a pixel is one load.
        thin: A transmittance T below this becomes T^3 / thin^2.
        picture: [4, height, width] out: colours, premultiplied, and alpha.
    """
    rows, columns = detail.shape[0], detail.shape[1]
    half_width, half_height = np.float32(columns) * np.float32(0.5), np.float32(rows) * np.float32(0.5)
    one, half = np.float32(1), np.float32(0.5)
    for row in range(first, last):
        for column in range(alpha.shape[1]):
            opaque = alpha[row, column]
            if opaque <= 0:
                for c in range(4):
                    picture[c, row, column] = 0
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
            picture[0, row, column], picture[1, row, column] = gain * red, gain * green
            picture[2, row, column], picture[3, row, column] = gain * blue, closed


@fast_kernel
def compose(first, last, picture, background, frame):
    """Lay rows first:last of a picture over a background, as 8-bit RGB: clamped, rounded.

    Args:
        first: Start of the range of rows of the frame.
        last: End of the range.
        picture: [4, height, width] colours, premultiplied, and alpha.
        background: [3, height, width].
        frame: [height, width, 3] uint8, out.
    """
    zero, one, half = np.float32(0), np.float32(1), np.float32(0.5)
    scale = np.float32(255)
    for row in range(first, last):
        line = frame[row]
        for column in range(frame.shape[1]):
            through = one - picture[3, row, column]
            for c in range(3):
                value = picture[c, row, column] + through * background[c, row, column]
                line[column, c] = np.uint8(min(max(value, zero), one) * scale + half)
