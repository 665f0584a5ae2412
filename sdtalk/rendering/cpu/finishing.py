"""CPU kernels that finish frames: texture added to rasterised Gaussians, and 8-bit frames made of them."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel

MIN_WEIGHT = np.float32(1e-4)
"""Where less of a pixel comes from the photo, no texture is looked for."""


@fast_kernel
def shift_sources(first, last, features, splats, places, shifted):
    """How far Gaussians first:last are drawn from where in the photo they come from, to be blended instead of where.

    Args:
        first: Start of the range.
        last: End of the range.
        features: [N, 6 or more] as `add_texture` has them of pixels.
        splats: [N, 8] from `projection.project`.
        places: (scale, offset, each x and y) of pixels in the photo, see `photo_texture.PhotoPlaces`; pixel (0, 0) is
            (0, 0).
        shifted: [N, as many] the same features; x and y out: less those of the pixel, times weight.
    """
    scale_x, scale_y, offset_x, offset_y = places
    for g in range(first, last):
        weight = features[g, 5]
        shifted[g, 3] = features[g, 3] - weight * (scale_x * splats[g, 0] + offset_x)
        shifted[g, 4] = features[g, 4] - weight * (scale_y * splats[g, 1] + offset_y)


@fast_kernel
def add_texture(first, last, features, alpha, texture, places, thin, picture):
    """Add the texture to rows first:last of a rasterised picture, and close what is nearly opaque.

    Args:
        first: Start of the range of rows.
        last: End of the range.
        features: [6, height, width] colour, and place in the photo, x and y in [-1, 1] times weight, weight; the
            places less those of the pixels, see `shift_sources`.
        alpha: [height, width].
        texture: [rows, columns, 4], the last one unused: a pixel is one load.
        places: As of `shift_sources`; all 0 where places are blended as they are.
        thin: A transmittance T below this becomes T^3 / thin^2.
        picture: [4, height, width] out: colours, premultiplied, and alpha.
    """
    rows, columns = texture.shape[0], texture.shape[1]
    half_width, half_height = np.float32(columns) * np.float32(0.5), np.float32(rows) * np.float32(0.5)
    one, half = np.float32(1), np.float32(0.5)
    scale_x, scale_y, offset_x, offset_y = places
    for row in range(first, last):
        own_y = scale_y * np.float32(row) + offset_y
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
                own_x = scale_x * np.float32(column) + offset_x
                x = (features[3, row, column] / weight + own_x + one) * half_width - half
                y = (features[4, row, column] / weight + own_y + one) * half_height - half
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
                        red += part * texture[v, u, 0]
                        green += part * texture[v, u, 1]
                        blue += part * texture[v, u, 2]
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
