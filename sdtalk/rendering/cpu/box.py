"""CPU rasteriser, stage 1, continued: the box of pixels that an ellipse may reach."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import kernel
from sdtalk.rendering.rules import MIN_ROOT, PUBLISHED_TILE


@kernel
def square_extent(centre, radius, size):
    """First and last pixel along one axis of the tiles that a square touches, by the published rules.

    Args:
        centre: Of the square in px, pixel 0 at 0.
        radius: Half its side.
        size: Of the image in px.

    Returns:
        A last one before the first where the square touches no tile.
    """
    tiles = -(-size // PUBLISHED_TILE)
    first = min(max((centre - radius) / PUBLISHED_TILE, 0.0), tiles)
    end = min(max((centre + radius + PUBLISHED_TILE - 1) / PUBLISHED_TILE, 0.0), tiles)
    return int(first) * PUBLISHED_TILE, int(end) * PUBLISHED_TILE - 1


@kernel
def pixel_box(u, v, half_width, half_height, covariance, size, square):
    """First and last column, first and last row of the pixels a Gaussian may reach, within the image.

    Args:
        u: Centre in px, pixel (0, 0) at (0, 0).
        v: See u.
        half_width: Where alpha falls below MIN_ALPHA.
        half_height: See half_width.
        covariance: (a, c, determinant) of [[a, b], [b, c]] in px^2.
        size: (width, height) of the image in px.
        square: Whether the published rules bound it, too.
    """
    left, right = math.ceil(max(u - half_width, 0.0)), math.floor(min(u + half_width, size[0] - 1.0))
    top, bottom = math.ceil(max(v - half_height, 0.0)), math.floor(min(v + half_height, size[1] - 1.0))
    if square:
        a, c, determinant = covariance
        middle = 0.5 * (a + c)
        radius = np.ceil(3 * math.sqrt(middle + math.sqrt(max(middle * middle - determinant, MIN_ROOT))))
        first_column, last_column = square_extent(u, radius, size[0])
        first_row, last_row = square_extent(v, radius, size[1])
        left, right = max(left, first_column), min(right, last_column)
        top, bottom = max(top, first_row), min(bottom, last_row)
    return left, right, top, bottom
