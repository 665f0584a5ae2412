"""Triton rasteriser, stage 1: Gaussians to ellipses on the image.

In double precision, as on the CPU (`rendering.cpu.projection`, which has the derivations): the determinant of a long,
thin covariance cancels. It is little work beside blending, also on cards that do it slowly.
"""

import triton.language as tl

from sdtalk.rendering import rules
from sdtalk.rendering.triton.kernel import kernel

SPLAT_SIZE = tl.constexpr(8)
"""Numbers of a splat: centre u, v in px, pixel (0, 0) at (0, 0); inverse covariance xx, xy, yy; log2 of opacity."""

CAMERA_SIZE = tl.constexpr(17)
"""Numbers of a camera: rotation by rows, translation, fx, fy, cx, cy, dilation; float64."""

TILE_WIDTH = tl.constexpr(8)
TILE_HEIGHT = tl.constexpr(8)
"""Size of a tile in px; both go into PUBLISHED_TILE, so that the published rules' squares are a matter of tiles."""

PUBLISHED_TILE = tl.constexpr(rules.PUBLISHED_TILE)

HIDDEN = tl.constexpr(0x7FFFFFFF)
"""Depth bits of what no pixel can see."""

BOX_MARGIN_PX = tl.constexpr(0.01)
"""Float32 rounding of alpha must not decide at the border of a box."""

NEAR = tl.constexpr(rules.NEAR)
MIN_ALPHA = tl.constexpr(rules.MIN_ALPHA)
MIN_ROOT = tl.constexpr(rules.MIN_ROOT)
TANGENT_MARGIN = tl.constexpr(rules.TANGENT_MARGIN)


@kernel
def load_double(pointer, offsets, mask):
    """Numbers in double precision, 0 where masked."""
    return tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float64)


@kernel
def load_three(pointer, first, mask):
    """Three numbers in a row, in double precision."""
    x, y = load_double(pointer, first, mask), load_double(pointer, first + 1, mask)
    return x, y, load_double(pointer, first + 2, mask)


@kernel
def load_quat(quats, row, mask):
    """Quaternions wxyz, in double precision."""
    x, y, z = load_three(quats, row * 4 + 1, mask)
    return load_double(quats, row * 4, mask), x, y, z


@kernel
def rotation_column(w, x, y, z, COLUMN: tl.constexpr):
    """A column of the rotation formula, of quaternions as they are."""
    if COLUMN == 0:
        return 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
    elif COLUMN == 1:
        return 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)
    else:
        return 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)


@kernel
def to_camera(camera, x, y, z):
    """Rotate vectors into camera space."""
    u = tl.load(camera) * x + tl.load(camera + 1) * y + tl.load(camera + 2) * z
    v = tl.load(camera + 3) * x + tl.load(camera + 4) * y + tl.load(camera + 5) * z
    w = tl.load(camera + 6) * x + tl.load(camera + 7) * y + tl.load(camera + 8) * z
    return u, v, w


@kernel
def clamped_tangent(tangent, focal, centre, size):
    """The tangent the Jacobian is taken at."""
    margin = TANGENT_MARGIN * size / 2 / focal
    return tl.minimum(tl.maximum(tangent, -centre / focal - margin), (size - centre) / focal + margin)


@kernel
def image_axis(camera, w, x, y, z, scale, fx, fy, tangent_x, tangent_y, depth, COLUMN: tl.constexpr):
    """One axis of the Gaussians: its length along z of camera space, and what the Jacobian makes of it in px."""
    along_x, along_y, along_z = rotation_column(w, x, y, z, COLUMN)
    along_x, along_y, along_z = to_camera(camera, along_x * scale, along_y * scale, along_z * scale)
    return along_z, fx / depth * (along_x - tangent_x * along_z), fy / depth * (along_y - tangent_y * along_z)


@kernel
def tile_range(low, high, size, tiles, TILE: tl.constexpr):
    """First tile, and the one after the last, of the pixels from low to high along one axis; empty ranges have none."""
    first = tl.ceil(tl.maximum(low, 0.0))
    last = tl.floor(tl.minimum(high, size - 1.0))
    some = first <= last
    first, last = tl.where(some, first, 0.0).to(tl.int32), tl.where(some, last, 0.0).to(tl.int32)
    return first // TILE, tl.where(some, tl.minimum(last // TILE + 1, tiles), first // TILE)


@kernel
def square_range(centre, radius, size, TILE: tl.constexpr):
    """The same of a square by the published rules, see `reference.square_tiles`; may end beyond the image."""
    tiles = tl.cdiv(size, PUBLISHED_TILE)
    first = tl.minimum(tl.maximum((centre - radius) / PUBLISHED_TILE, 0.0), tiles)
    end = tl.minimum(tl.maximum((centre + radius + (PUBLISHED_TILE - 1)) / PUBLISHED_TILE, 0.0), tiles)
    return first.to(tl.int32) * (PUBLISHED_TILE // TILE), end.to(tl.int32) * (PUBLISHED_TILE // TILE)


@kernel
def project(
    means, quats, scales, opacities, cameras, splats, depths, ranges, counts,
    gaussians, set_stride, width, height, columns, rows,
    SQUARE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Project a block of Gaussians for one camera.

    Args:
        means: [S, N, 3], as of `Gaussians`, like quats, scales and opacities.
        quats: See means.
        scales: See means.
        opacities: See means.
        cameras: [B, CAMERA_SIZE].
        splats: [B, N, SPLAT_SIZE] out.
        depths: [B, N] int32 out: bits of the depth, which order as it does, or HIDDEN.
        ranges: [B, N, 4] int16 out: columns and rows of tiles as left, right, top, bottom, the ends excluded.
        counts: [B, N] int32 out: how many tiles those are.
        gaussians: N.
        set_stride: N where each camera has Gaussians of its own, 0 where all share one set.
        width: Of the image in px.
        height: See width.
        columns: Tiles in a row.
        rows: Tiles in a column.
        SQUARE: `RasterRules.square_extent`.
        BLOCK: Gaussians of a program.
    """
    view = tl.program_id(1).to(tl.int64)
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = g < gaussians
    source, target = view * set_stride + g, view * gaussians + g
    camera = cameras + view * CAMERA_SIZE
    fx, fy, cx = tl.load(camera + 12), tl.load(camera + 13), tl.load(camera + 14)
    cy, dilation = tl.load(camera + 15), tl.load(camera + 16)

    x, y, z = load_three(means, source * 3, there)
    x, y, z = to_camera(camera, x, y, z)
    x, y, z = x + tl.load(camera + 9), y + tl.load(camera + 10), z + tl.load(camera + 11)
    opacity = tl.load(opacities + source, mask=there, other=0.0)
    seen = there & (z > NEAR) & (opacity >= MIN_ALPHA)
    z = tl.where(seen, z, 1.0)
    tangent_x, tangent_y = clamped_tangent(x / z, fx, cx, width), clamped_tangent(y / z, fy, cy, height)
    w, i, j, k = load_quat(quats, source, there)
    s0, s1, s2 = load_three(scales, source * 3, there)
    _, p0, q0 = image_axis(camera, w, i, j, k, s0, fx, fy, tangent_x, tangent_y, z, 0)
    _, p1, q1 = image_axis(camera, w, i, j, k, s1, fx, fy, tangent_x, tangent_y, z, 1)
    _, p2, q2 = image_axis(camera, w, i, j, k, s2, fx, fy, tangent_x, tangent_y, z, 2)
    a = p0 * p0 + p1 * p1 + p2 * p2 + dilation
    b = p0 * q0 + p1 * q1 + p2 * q2
    c = q0 * q0 + q1 * q1 + q2 * q2 + dilation
    determinant = a * c - b * b
    seen = seen & (determinant > 0) & (determinant < float("inf"))
    a, b, c = tl.where(seen, a, 1.0), tl.where(seen, b, 0.0), tl.where(seen, c, 1.0)
    determinant = tl.where(seen, determinant, 1.0)

    # alpha >= MIN_ALPHA inside this Mahalanobis distance; the ellipse's box follows from the variances
    u, v = fx * x / z + cx - 0.5, fy * y / z + cy - 0.5
    u, v = tl.where(seen, u, 0.0), tl.where(seen, v, 0.0)
    reach = tl.sqrt(2 * tl.log(tl.maximum(opacity, MIN_ALPHA) / MIN_ALPHA)).to(tl.float64)
    half_width, half_height = reach * tl.sqrt(a) + BOX_MARGIN_PX, reach * tl.sqrt(c) + BOX_MARGIN_PX
    left, right = tile_range(u - half_width, u + half_width, width, columns, TILE_WIDTH)
    top, bottom = tile_range(v - half_height, v + half_height, height, rows, TILE_HEIGHT)
    if SQUARE:
        middle = 0.5 * (a + c)
        radius = tl.ceil(3 * tl.sqrt(middle + tl.sqrt(tl.maximum(middle * middle - determinant, MIN_ROOT))))
        first_column, last_column = square_range(u, radius, width, TILE_WIDTH)
        first_row, last_row = square_range(v, radius, height, TILE_HEIGHT)
        left, right = tl.maximum(left, first_column), tl.minimum(right, last_column)
        top, bottom = tl.maximum(top, first_row), tl.minimum(bottom, last_row)
    count = tl.where(seen & (left < right) & (top < bottom), (right - left) * (bottom - top), 0)

    splat = splats + target * SPLAT_SIZE
    tl.store(splat, u.to(tl.float32), mask=there)
    tl.store(splat + 1, v.to(tl.float32), mask=there)
    tl.store(splat + 2, (c / determinant).to(tl.float32), mask=there)
    tl.store(splat + 3, (-b / determinant).to(tl.float32), mask=there)
    tl.store(splat + 4, (a / determinant).to(tl.float32), mask=there)
    tl.store(splat + 5, tl.log2(tl.maximum(opacity, MIN_ALPHA)), mask=there)
    tl.store(counts + target, count, mask=there)
    bits = z.to(tl.float32).to(tl.int32, bitcast=True)
    tl.store(depths + target, tl.where(count > 0, bits, HIDDEN), mask=there)
    tl.store(ranges + target * 4, left.to(tl.int16), mask=there)
    tl.store(ranges + target * 4 + 1, right.to(tl.int16), mask=there)
    tl.store(ranges + target * 4 + 2, top.to(tl.int16), mask=there)
    tl.store(ranges + target * 4 + 3, bottom.to(tl.int16), mask=there)
