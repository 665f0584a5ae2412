"""CPU kernels of the window renderer: a photo drawn on a moved mesh, and signed distances to polygons."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, inlined_kernel, kernel
from sdtalk.rendering.cpu.simd import mix_pixels

EDGE_TOLERANCE = np.float32(-1e-4)
"""Barycentric slack, so that pixels on a shared edge belong to a triangle."""


@inlined_kernel
def cubic_weights(t, out):
    """Weights of the four neighbours of a place t behind the second one: cubic convolution, as PyTorch's."""
    a, one, two = np.float32(-0.75), np.float32(1), np.float32(2)
    three, five, eight = a + np.float32(3), np.float32(5) * a, np.float32(8) * a
    before, after = one + t, two - t
    out[0] = ((a * before - five) * before + eight) * before - np.float32(4) * a
    out[1] = ((a + two) * t - three) * t * t + one
    out[2] = ((a + two) * (one - t) - three) * (one - t) * (one - t) + one
    out[3] = ((a * after - five) * after + eight) * after - np.float32(4) * a


@inlined_kernel
def whole_part(x):
    """The largest whole number up to x; `math.floor` calls a library's function."""
    whole = int(x)
    return whole - 1 if x < np.float32(whole) else whole


@kernel
def sampling_buffers():
    """What `sample` works in: first floats of four rows, of four columns; weights of both; a pixel."""
    rows, columns = np.empty(4, np.int64), np.empty(4, np.int64)
    return rows, columns, np.empty(4, np.float32), np.empty(4, np.float32), np.empty(4, np.float32)


@fast_kernel
def sample(photo, extent, x, y, out, row, column, buffers):
    """Bicubic sample of a photo at px (x, y), pixel centres at + 0.5; border colours continue.

    Args:
        photo: Flat [height, width, 4], of which three channels count.
        extent: (height, width).
        x: See above.
        y: See above.
        out: [3, height, width].
        row: Of the pixel there.
        column: See row.
        buffers: From `sampling_buffers`.
    """
    rows, columns, down, across, pixel = buffers
    height, width = extent
    x, y = x - np.float32(0.5), y - np.float32(0.5)
    left, top = whole_part(x), whole_part(y)
    cubic_weights(x - np.float32(left), across)
    cubic_weights(y - np.float32(top), down)
    for k in range(4):
        rows[k] = min(max(top + k - 1, 0), height - 1) * width * 4
        columns[k] = min(max(left + k - 1, 0), width - 1) * 4
    mix_pixels(photo, rows, columns, down, across, pixel)
    for c in range(3):
        out[c, row, column] = pixel[c]


@fast_kernel
def draw_triangle(photo, extent, corners, source, height, nearest, out, shown, buffers):
    """Draw one triangle: corners [3, 2] in px of the window, source [3, 2] in px of the photo, height [3]."""
    x0, y0 = corners[0, 0], corners[0, 1]
    ux, uy = corners[1, 0] - x0, corners[1, 1] - y0
    vx, vy = corners[2, 0] - x0, corners[2, 1] - y0
    area = ux * vy - uy * vx
    if abs(area) < np.float32(1e-9):
        return
    size = shown.shape[0]
    low_x, high_x = x0 + min(np.float32(0), ux, vx), x0 + max(np.float32(0), ux, vx)
    low_y, high_y = y0 + min(np.float32(0), uy, vy), y0 + max(np.float32(0), uy, vy)
    half = np.float32(0.5)
    first_x, last_x = max(0, math.ceil(low_x - half)), min(size - 1, math.floor(high_x - half))
    first_y, last_y = max(0, math.ceil(low_y - half)), min(size - 1, math.floor(high_y - half))
    inverse = np.float32(1) / area
    for row in range(first_y, last_y + 1):
        py = np.float32(row) + half - y0
        for column in range(first_x, last_x + 1):
            px = np.float32(column) + half - x0
            b = (px * vy - py * vx) * inverse
            c = (ux * py - uy * px) * inverse
            a = np.float32(1) - b - c
            if a < EDGE_TOLERANCE or b < EDGE_TOLERANCE or c < EDGE_TOLERANCE:
                continue
            z = a * height[0] + b * height[1] + c * height[2]
            if z <= nearest[row, column]:
                continue
            nearest[row, column] = z
            shown[row, column] = 1
            x = a * source[0, 0] + b * source[1, 0] + c * source[2, 0]
            y = a * source[0, 1] + b * source[1, 1] + c * source[2, 1]
            sample(photo, extent, x, y, out, row, column, buffers)


@fast_kernel
def draw_photo(first, last, photos, photo_xy, xy, heights, triangles, out, shown):
    """Draw photos on moved meshes, windows first to last.

    Args:
        first: Of the windows to draw.
        last: Behind the last one.
        photos: [photo, height, width, 4], of which three channels count; where there are fewer than windows, each is
            that of as many in a row.
        photo_xy: [window, point, 2] the mesh in px of the photo.
        xy: [window, point, 2] the moved mesh in px of the window.
        heights: [window, point] towards the camera; the highest triangle wins a pixel.
        triangles: [triangle, 3].
        out: [window, 3, size, size] the picture; zero where there is no mesh.
        shown: [window, size, size] 1 where there is.
    """
    size = shown.shape[1]
    nearest = np.empty((size, size), np.float32)
    corners, source = np.empty((3, 2), np.float32), np.empty((3, 2), np.float32)
    height = np.empty(3, np.float32)
    buffers = sampling_buffers()
    flat, extent = photos.reshape(len(photos), -1), photos.shape[1:3]
    for w in range(first, last):
        nearest[:] = -np.inf
        photo = flat[w * len(photos) // len(xy)]
        for t in range(len(triangles)):
            for k in range(3):
                point = triangles[t, k]
                corners[k, 0], corners[k, 1] = xy[w, point, 0], xy[w, point, 1]
                source[k, 0], source[k, 1] = photo_xy[w, point, 0], photo_xy[w, point, 1]
                height[k] = heights[w, point]
            draw_triangle(photo, extent, corners, source, height, nearest, out[w], shown[w], buffers)


@fast_kernel
def draw_affinely(first, last, photos, maps, out):
    """Draw photos through affine maps, pictures first to last.

    Args:
        first: Of the pictures to draw.
        last: Behind the last one.
        photos: As `draw_photo` takes them.
        maps: [picture, 2, 3] from (x, y, 1) in px of the picture to px of the photo.
        out: [picture, 3, size, size].
    """
    size, half = out.shape[2], np.float32(0.5)
    buffers = sampling_buffers()
    flat, extent = photos.reshape(len(photos), -1), photos.shape[1:3]
    for p in range(first, last):
        to, picture, photo = maps[p], out[p], flat[p * len(photos) // len(maps)]
        for row in range(size):
            y = np.float32(row) + half
            for column in range(size):
                x = np.float32(column) + half
                u = to[0, 0] * x + to[0, 1] * y + to[0, 2]
                v = to[1, 0] * x + to[1, 1] * y + to[1, 2]
                sample(photo, extent, u, v, picture, row, column, buffers)


@fast_kernel
def look_at_edge(y, ax, ay, dx, dy, best, inside):
    """Update a row's squared distances to a polygon and whether it is inside, by one edge from (ax, ay) on.

    Pixels are at x = 1, 3, 5...
    """
    inverse = np.float32(1) / max(dx * dx + dy * dy, np.float32(1e-6))
    ty = y - ay
    crosses = (ay > y) != (ay + dy > y)
    for column in range(best.size):
        tx = np.float32(2 * column + 1) - ax
        along = min(max((tx * dx + ty * dy) * inverse, np.float32(0)), np.float32(1))
        ex, ey = tx - along * dx, ty - along * dy
        best[column] = min(best[column], ex * ex + ey * ey)
        if crosses and tx * dy * dy < dx * ty * dy:
            inside[column] = -inside[column]


@fast_kernel
def polygon_distance(first, last, corners, out):
    """Signed distance of every second pixel to closed polygons, px, negative inside.

    Args:
        first: Of the polygons.
        last: Behind the last one.
        corners: [polygon, corner, 2] in px.
        out: [polygon, size / 2, size / 2]; entry (i, j) is at x = 2 j + 1, y = 2 i + 1.
    """
    count, half = corners.shape[1], out.shape[1]
    best, inside = np.empty(half, np.float32), np.empty(half, np.float32)
    for p in range(first, last):
        for row in range(half):
            best[:], inside[:] = 1e12, 1
            for k in range(count):
                a, b = corners[p, k], corners[p, (k + 1) % count]
                look_at_edge(np.float32(2 * row + 1), a[0], a[1], b[0] - a[0], b[1] - a[1], best, inside)
            for column in range(half):
                out[p, row, column] = inside[column] * math.sqrt(best[column])
