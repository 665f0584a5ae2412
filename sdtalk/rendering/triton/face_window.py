"""CUDA kernels of the window renderer, in Triton: a photo drawn on a moved mesh, and signed distances to polygons.

They follow `rendering.cpu.face_window`; `rendering.moved_photo` has the same in plain PyTorch. No host waits for them.
"""

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.rendering.triton.bicubic import store_samples
from sdtalk.rendering.triton.kernel import kernel

EDGE_TOLERANCE = tl.constexpr(-1e-4)
"""Barycentric slack, so that pixels on a shared edge belong to a triangle."""

TILE_WIDTH, TILE_HEIGHT = 16, 8
"""Pixels that look at triangles together."""

CHUNK = 16
"""Triangles that are looked at together; most chunks are nowhere near a tile, which is all that is asked of them."""

PIXELS = 256
"""Pixels of a program that only samples or measures."""


@kernel
def triangle_corners(xy, triangles, t, mask):
    """The corners of triangles: their points, the first one's place, and the way to the two others; and the area."""
    first = tl.load(triangles + 3 * t, mask=mask, other=0)
    second = tl.load(triangles + 3 * t + 1, mask=mask, other=0)
    third = tl.load(triangles + 3 * t + 2, mask=mask, other=0)
    x, y = tl.load(xy + 2 * first), tl.load(xy + 2 * first + 1)
    ux, uy = tl.load(xy + 2 * second) - x, tl.load(xy + 2 * second + 1) - y
    vx, vy = tl.load(xy + 2 * third) - x, tl.load(xy + 2 * third + 1) - y
    area = ux * vy - uy * vx
    return (first, second, third), (x, y, ux, uy, vx, vy), area


@kernel
def draw_photo(
    photos,
    photo_xy,
    xy,
    heights,
    triangles,
    out,
    shown,
    points,
    count,
    height,
    width,
    photo_count,
    SIZE: tl.constexpr,
    ACROSS: tl.constexpr,
    DOWN: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Draw photos on moved meshes: a program is a tile of a window, and looks at all triangles.

    Args:
        photos: [photo, 3, height, width], each that of as many windows in a row.
        photo_xy: [window, point, 2] the mesh in px of the photo.
        xy: [window, point, 2] the moved mesh in px of the window.
        heights: [window, point] towards the camera; the highest triangle wins a pixel, of equal ones the first.
        triangles: [count, 3].
        out: [window, 3, SIZE, SIZE] the picture; zero where there is no mesh.
        shown: [window, SIZE, SIZE] 1 where there is.
        points: Of the mesh.
        count: Of the triangles.
        height: Of a photo.
        width: Of a photo.
        photo_count: Of photos; stays as it is from batch to batch, and a kernel with it.
        SIZE: Side of the windows.
        ACROSS: Width of a tile.
        DOWN: Its height.
        CHUNK: Triangles at a time.
    """
    window = tl.program_id(1)
    tiles: tl.constexpr = (SIZE + ACROSS - 1) // ACROSS
    left, top = (tl.program_id(0) % tiles) * ACROSS, (tl.program_id(0) // tiles) * DOWN
    place = tl.arange(0, ACROSS * DOWN)
    column, row = left + place % ACROSS, top + place // ACROSS
    px, py = column + 0.5, row + 0.5
    photo_xy += window * points * 2
    xy += window * points * 2
    heights += window * points
    best = tl.full((ACROSS * DOWN,), float("-inf"), tl.float32)
    owner = tl.full((ACROSS * DOWN,), -1, tl.int32)
    for start in range(0, count, CHUNK):
        t = start + tl.arange(0, CHUNK)
        corners, sides, area = triangle_corners(xy, triangles, t, t < count)
        x, y, ux, uy, vx, vy = sides
        near = (t < count) & (tl.abs(area) >= 1e-9)
        near &= x + tl.minimum(tl.minimum(ux, vx), 0.0) <= left + ACROSS - 0.5
        near &= x + tl.maximum(tl.maximum(ux, vx), 0.0) >= left + 0.5
        near &= y + tl.minimum(tl.minimum(uy, vy), 0.0) <= top + DOWN - 0.5
        near &= y + tl.maximum(tl.maximum(uy, vy), 0.0) >= top + 0.5
        if tl.max(near.to(tl.int32), axis=0) > 0:
            first, second, third = corners
            h0, h1, h2 = tl.load(heights + first), tl.load(heights + second), tl.load(heights + third)
            qx, qy = px[:, None] - x[None, :], py[:, None] - y[None, :]
            solid = tl.where(near, area, 1.0)[None, :]
            b = (qx * vy[None, :] - qy * vx[None, :]) / solid
            c = (ux[None, :] * qy - uy[None, :] * qx) / solid
            a = 1.0 - b - c
            inside = near[None, :] & (a >= EDGE_TOLERANCE) & (b >= EDGE_TOLERANCE) & (c >= EDGE_TOLERANCE)
            z = a * h0[None, :] + b * h1[None, :] + c * h2[None, :]
            z = tl.where(inside, z, float("-inf"))
            highest = tl.max(z, axis=1)
            which = tl.min(tl.where(z == highest[:, None], t[None, :], count), axis=1)
            higher = highest > best
            owner = tl.where(higher, which, owner)
            best = tl.where(higher, highest, best)
    inside_window = (column < SIZE) & (row < SIZE)
    drawn = inside_window & (owner >= 0)
    corners, sides, area = triangle_corners(xy, triangles, owner, drawn)
    first, second, third = corners
    x, y, ux, uy, vx, vy = sides
    solid = tl.where(drawn, area, 1.0)
    qx, qy = px - x, py - y
    b, c = (qx * vy - qy * vx) / solid, (ux * qy - uy * qx) / solid
    a = 1.0 - b - c
    source_x = a * tl.load(photo_xy + 2 * first) + b * tl.load(photo_xy + 2 * second)
    source_x += c * tl.load(photo_xy + 2 * third)
    source_y = a * tl.load(photo_xy + 2 * first + 1) + b * tl.load(photo_xy + 2 * second + 1)
    source_y += c * tl.load(photo_xy + 2 * third + 1)
    photo, pixel = (
        photos + window // (tl.num_programs(1) // photo_count) * 3 * height * width,
        row * SIZE + column,
    )
    tl.store(shown + window * SIZE * SIZE + pixel, drawn.to(tl.float32), mask=inside_window)
    out += window * 3 * SIZE * SIZE
    store_samples(photo, height, width, source_x, source_y, drawn, out, pixel, SIZE * SIZE, inside_window)


@kernel
def draw_affinely(photos, maps, out, height, width, photo_count, SIZE: tl.constexpr, PIXELS: tl.constexpr):
    """Draw photos through affine maps: a program is some pixels of a window.

    Args:
        photos: As `draw_photo` takes them.
        maps: [window, 2, 3] from (x, y, 1) in px of the window to px of the photo.
        out: [window, 3, SIZE, SIZE].
        height: Of a photo.
        width: Of a photo.
        photo_count: Of photos.
        SIZE: Side of the windows.
        PIXELS: So many.
    """
    window, pixel = tl.program_id(1), tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    mask, to = pixel < SIZE * SIZE, maps + window * 6
    x, y = pixel % SIZE + 0.5, pixel // SIZE + 0.5
    u = tl.load(to) * x + tl.load(to + 1) * y + tl.load(to + 2)
    v = tl.load(to + 3) * x + tl.load(to + 4) * y + tl.load(to + 5)
    photo, out = (
        photos + window // (tl.num_programs(1) // photo_count) * 3 * height * width,
        out + window * 3 * SIZE * SIZE,
    )
    store_samples(photo, height, width, u, v, mask, out, pixel, SIZE * SIZE, mask)


@kernel
def measure_distance(corners, out, count, HALF: tl.constexpr, PIXELS: tl.constexpr):
    """Signed distance of every second pixel to closed polygons, px, negative inside: a program is some pixels of one.

    Args:
        corners: [polygon, count, 2] in px.
        out: [polygon, HALF, HALF]; entry (i, j) is at x = 2 j + 1, y = 2 i + 1.
        count: Of the corners.
        HALF: Half of the window's side.
        PIXELS: So many.
    """
    polygon, pixel = tl.program_id(1), tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    x, y = (pixel % HALF) * 2.0 + 1.0, (pixel // HALF) * 2.0 + 1.0
    corners += polygon * count * 2
    best, crossed = tl.full((PIXELS,), float("inf"), tl.float32), tl.zeros((PIXELS,), tl.int32)
    for k in range(count):
        following = corners + 2 * ((k + 1) % count)
        ax, ay = tl.load(corners + 2 * k), tl.load(corners + 2 * k + 1)
        bx, by = tl.load(following), tl.load(following + 1)
        dx, dy, tx, ty = bx - ax, by - ay, x - ax, y - ay
        along = (tx * dx + ty * dy) / tl.maximum(dx * dx + dy * dy, 1e-6)
        along = tl.minimum(tl.maximum(along, 0.0), 1.0)
        ex, ey = tx - along * dx, ty - along * dy
        best = tl.minimum(best, ex * ex + ey * ey)
        crosses = ((ay > y) != (by > y)) & (tx * dy * dy < dx * ty * dy)
        crossed += crosses.to(tl.int32)
    distance = tl.sqrt(best)
    signed = tl.where(crossed % 2 == 1, -distance, distance)
    tl.store(out + polygon * HALF * HALF + pixel, signed, mask=pixel < HALF * HALF)


def moved_photo(
    photo: Float[Tensor, "photo 3 height width"],
    photo_xy: Float[Tensor, "window point 2"],
    xy: Float[Tensor, "window point 2"],
    heights: Float[Tensor, "window point"],
    triangles: Int[Tensor, "triangle 3"],
    size: int,
) -> tuple[Float[Tensor, "window 3 size size"], Float[Tensor, "window 1 size size"]]:
    """As `rendering.moved_photo.moved_photo`."""
    drawn, shown = photo.new_empty(len(xy), 3, size, size), photo.new_empty(len(xy), 1, size, size)
    grid = (-(-size // TILE_WIDTH) * -(-size // TILE_HEIGHT), len(xy))
    with torch.cuda.device_of(photo):
        draw_photo[grid](
            *(x.contiguous() for x in (photo, photo_xy, xy, heights, triangles)),
            drawn,
            shown,
            xy.shape[1],
            len(triangles),
            *photo.shape[2:],
            len(photo),
            SIZE=size,
            ACROSS=TILE_WIDTH,
            DOWN=TILE_HEIGHT,
            CHUNK=CHUNK,
        )
    return drawn, shown


def affine_photo(
    photo: Float[Tensor, "photo 3 height width"], maps: Float[Tensor, "window 2 3"], size: int
) -> Float[Tensor, "window 3 size size"]:
    """As `rendering.moved_photo.affine_photo`."""
    out = photo.new_empty(len(maps), 3, size, size)
    with torch.cuda.device_of(photo):
        draw_affinely[(-(-(size**2) // PIXELS), len(maps))](
            photo.contiguous(),
            maps.contiguous(),
            out,
            *photo.shape[2:],
            len(photo),
            SIZE=size,
            PIXELS=PIXELS,
        )
    return out


def polygon_distance(
    corners: Float[Tensor, "polygon corner 2"], size: int
) -> Float[Tensor, "polygon half half"]:
    """As `rendering.moved_photo.polygon_distance_reference`: at every second pixel only."""
    half = size // 2
    out = corners.new_empty(len(corners), half, half)
    with torch.cuda.device_of(corners):
        measure_distance[(-(-(half**2) // PIXELS), len(corners))](
            corners.contiguous(), out, corners.shape[1], HALF=half, PIXELS=PIXELS
        )
    return out
