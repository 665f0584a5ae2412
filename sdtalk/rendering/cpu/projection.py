"""CPU rasteriser, stage 1: Gaussians to ellipses on the image, and the gradient back to the Gaussians.

Scalar loops over the Gaussians, in double precision: the determinant of a long, thin covariance cancels.
Kernels take a range `first:last` of Gaussians, so that threads share the work (`backend.spread`).
"""

import math

import numpy as np

from sdtalk.rendering.cpu.box import pixel_box
from sdtalk.rendering.cpu.kernel import kernel
from sdtalk.rendering.rules import MIN_ALPHA, NEAR, TANGENT_MARGIN

CENTRE_X, CENTRE_Y, CONIC_XX, CONIC_XY, CONIC_YY, LOG2_OPACITY = range(6)
"""Columns of a splat: its centre in px where pixel (0, 0) is (0, 0), the inverse covariance, log2 of opacity."""

LEFT, RIGHT, TOP, BOTTOM = range(12, 16)
"""Columns of a splat read as int16, in the memory of its last two: its first and last column and row of pixels."""

MOMENT_1, MOMENT_X, MOMENT_Y, MOMENT_XX, MOMENT_XY, MOMENT_YY = range(6)
"""Sums over pixels of (gradient of log alpha) * (1, dx, dy, dx^2, dx dy, dy^2), dx and dy from the centre."""

SPLAT_SIZE = 8

TILE_WIDTH = 64
TILE_HEIGHT = 16
"""Size of a tile in px: of eight shapes the best for few features, and for gradients."""

HIDDEN = np.uint32(0xFFFFFFFF)
"""Key of what no pixel can see: no depth has these bits."""

BOX_MARGIN_PX = 0.01
"""Float32 rounding of alpha must not decide at the border of a box."""


@kernel
def camera_axes(quats, scales, g, rotation, rotated_axes, axes):
    """Fill `axes` with R(quat) and `rotated_axes` with W R(quat) diag(scale), W the camera rotation."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    axes[0, 0], axes[0, 1], axes[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    axes[1, 0], axes[1, 1], axes[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    axes[2, 0], axes[2, 1], axes[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    for i in range(3):
        for k in range(3):
            total = rotation[i, 0] * axes[0, k] + rotation[i, 1] * axes[1, k] + rotation[i, 2] * axes[2, k]
            rotated_axes[i, k] = total * scales[g, k]


@kernel
def to_camera(means, g, rotation, translation):
    """Position in camera space."""
    m0, m1, m2 = np.float64(means[g, 0]), np.float64(means[g, 1]), np.float64(means[g, 2])
    x = rotation[0, 0] * m0 + rotation[0, 1] * m1 + rotation[0, 2] * m2 + translation[0]
    y = rotation[1, 0] * m0 + rotation[1, 1] * m1 + rotation[1, 2] * m2 + translation[1]
    z = rotation[2, 0] * m0 + rotation[2, 1] * m1 + rotation[2, 2] * m2 + translation[2]
    return x, y, z


@kernel
def clamped_tangent(tangent, focal, centre, size):
    """The tangent the Jacobian is taken at, and whether it is the Gaussian's own."""
    margin = TANGENT_MARGIN * size / 2 / focal
    clamped = min(max(tangent, -centre / focal - margin), (size - centre) / focal + margin)
    return clamped, clamped == tangent


@kernel
def project_axes(rotated_axes, fx, fy, tangent_x, tangent_y, z, image_axes):
    """Fill `image_axes` (2 x 3) with Jacobian @ rotated_axes; return the covariance a, b, c, not dilated."""
    for k in range(3):
        image_axes[0, k] = fx / z * (rotated_axes[0, k] - tangent_x * rotated_axes[2, k])
        image_axes[1, k] = fy / z * (rotated_axes[1, k] - tangent_y * rotated_axes[2, k])
    a, b, c = 0.0, 0.0, 0.0
    for k in range(3):
        a += image_axes[0, k] * image_axes[0, k]
        b += image_axes[0, k] * image_axes[1, k]
        c += image_axes[1, k] * image_axes[1, k]
    return a, b, c


@kernel
def project(
    first,
    last,
    means,
    quats,
    scales,
    opacities,
    view,
    lens,
    size,
    dilation,
    square,
    splats,
    boxes,
    keys,
    tiles,
):
    """Project Gaussians first:last to ellipses.

    Args:
        first: Start of the range.
        last: End of the range.
        means: [N, 3] head space.
        quats: [N, 4] wxyz.
        scales: [N, 3].
        opacities: [N].
        view: (rotation [3, 3], translation [3]) head to camera space, float64.
        lens: (fx, fy, cx, cy) in px.
        size: (width, height) in px.
        dilation: `RasterRules.dilation`.
        square: `RasterRules.square_extent`.
        splats: [N, 8] out, see the column names above.
        boxes: [N, 16] out, the same memory as int16.
        keys: [N] uint32 out: the bits of the depth, which order as it does; HIDDEN for what no pixel can see.
        tiles: [N, 4] int16 out: columns and rows of tiles a Gaussian's box touches, as left, right, top, bottom
            with the ends excluded.
    """
    rotation, translation = view
    fx, fy, cx, cy = lens
    width, height = size
    axes, rotated_axes, image_axes = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    for g in range(first, last):
        keys[g] = HIDDEN
        tiles[g] = 0
        x, y, z = to_camera(means, g, rotation, translation)
        opacity = opacities[g]
        if not (z > NEAR and opacity >= MIN_ALPHA):  # "not", so that NaN is dropped too
            continue
        camera_axes(quats, scales, g, rotation, rotated_axes, axes)
        tangent_x, _ = clamped_tangent(x / z, fx, cx, width)
        tangent_y, _ = clamped_tangent(y / z, fy, cy, height)
        a, b, c = project_axes(rotated_axes, fx, fy, tangent_x, tangent_y, z, image_axes)
        a, c = a + dilation, c + dilation
        determinant = a * c - b * b
        if not (0 < determinant < math.inf):
            continue
        u, v = fx * x / z + cx - 0.5, fy * y / z + cy - 0.5
        # alpha >= MIN_ALPHA inside this Mahalanobis distance; the ellipse's box follows from the variances.
        reach = math.sqrt(2 * math.log(opacity / MIN_ALPHA))
        half_width, half_height = reach * math.sqrt(a) + BOX_MARGIN_PX, reach * math.sqrt(c) + BOX_MARGIN_PX
        inside = u + half_width >= 0 and u - half_width <= width - 1
        if not (inside and v + half_height >= 0 and v - half_height <= height - 1):
            continue
        box = pixel_box(u, v, half_width, half_height, (a, c, determinant), size, square)
        left, right, top, bottom = box
        if left > right or top > bottom:
            continue
        splats[g, CENTRE_X], splats[g, CENTRE_Y] = u, v
        splats[g, CONIC_XX] = c / determinant
        splats[g, CONIC_XY] = -b / determinant
        splats[g, CONIC_YY] = a / determinant
        splats[g, LOG2_OPACITY] = math.log2(opacity)
        boxes[g, LEFT], boxes[g, RIGHT], boxes[g, TOP], boxes[g, BOTTOM] = box
        tiles[g, 0], tiles[g, 1] = left // TILE_WIDTH, right // TILE_WIDTH + 1
        tiles[g, 2], tiles[g, 3] = top // TILE_HEIGHT, bottom // TILE_HEIGHT + 1
        keys[g] = np.float32(z).view(np.uint32)


@kernel
def covariance_gradient(splats, moments, g, image_axes, image_axes_grad):
    """Fill `image_axes_grad` from the moments: sigma = A dx^2 / 2 + B dx dy + C dy^2 / 2, conic = covariance^-1."""
    A, B, C = (
        np.float64(splats[g, CONIC_XX]),
        np.float64(splats[g, CONIC_XY]),
        np.float64(splats[g, CONIC_YY]),
    )
    grad_A, grad_B = -0.5 * moments[g, MOMENT_XX], -0.5 * moments[g, MOMENT_XY]
    grad_C = -0.5 * moments[g, MOMENT_YY]
    # d covariance = -conic (d conic) conic, with grad_B the off-diagonal element of the symmetric gradient.
    left_xx, left_xy = A * grad_A + B * grad_B, A * grad_B + B * grad_C
    left_yx, left_yy = B * grad_A + C * grad_B, B * grad_B + C * grad_C
    grad_a = -(left_xx * A + left_xy * B)
    grad_b = -(left_xx * B + left_xy * C)
    grad_c = -(left_yx * B + left_yy * C)
    for k in range(3):
        image_axes_grad[0, k] = 2 * (grad_a * image_axes[0, k] + grad_b * image_axes[1, k])
        image_axes_grad[1, k] = 2 * (grad_b * image_axes[0, k] + grad_c * image_axes[1, k])


@kernel
def quat_gradient(quats, g, grad, out):
    """Gradient of the rotation formula: `grad` is that of the 3 x 3 matrix, `out` that of all quats wxyz."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    g01, g10, g02, g20, g12, g21 = grad[0, 1], grad[1, 0], grad[0, 2], grad[2, 0], grad[1, 2], grad[2, 1]
    g00, g11, g22 = grad[0, 0], grad[1, 1], grad[2, 2]
    out[g, 0] = 2 * (x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01))
    out[g, 1] = 2 * (w * (g21 - g12) + y * (g01 + g10) + z * (g02 + g20) - 2 * x * (g11 + g22))
    out[g, 2] = 2 * (w * (g02 - g20) + x * (g01 + g10) + z * (g12 + g21) - 2 * y * (g00 + g22))
    out[g, 3] = 2 * (w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - 2 * z * (g00 + g11))


@kernel
def project_backward(first, last, means, quats, scales, opacities, view, lens, size, splats, moments, grads):
    """Gradients of Gaussians first:last from the moments of their splats.

    Args:
        first: Start of the range.
        last: End of the range.
        means: As `project` got them, like quats, scales, opacities, view, lens and size.
        quats: See means.
        scales: See means.
        opacities: See means.
        view: See means.
        lens: See means.
        size: See means.
        splats: What `project` made of them.
        moments: [N, 6]; rows of zeros where a Gaussian was not seen.
        grads: (means, quats, scales, opacities) out, zeros on entry.
    """
    rotation, translation = view
    fx, fy, cx, cy = lens
    grad_means, grad_quats, grad_scales, grad_opacities = grads
    axes, rotated_axes, image_axes = np.empty((3, 3)), np.empty((3, 3)), np.empty((2, 3))
    image_grad, axes_grad, point_grad = np.empty((2, 3)), np.empty((3, 3)), np.empty(3)
    for g in range(first, last):
        if moments[g, MOMENT_XX] == 0 and moments[g, MOMENT_YY] == 0 and moments[g, MOMENT_1] == 0:
            continue
        grad_opacities[g] = moments[g, MOMENT_1] / opacities[g]
        x, y, z = to_camera(means, g, rotation, translation)
        tangent_x, free_x = clamped_tangent(x / z, fx, cx, size[0])
        tangent_y, free_y = clamped_tangent(y / z, fy, cy, size[1])
        camera_axes(quats, scales, g, rotation, rotated_axes, axes)
        project_axes(rotated_axes, fx, fy, tangent_x, tangent_y, z, image_axes)
        covariance_gradient(splats, moments, g, image_axes, image_grad)

        moment_x, moment_y = moments[g, MOMENT_X], moments[g, MOMENT_Y]
        grad_u = splats[g, CONIC_XX] * moment_x + splats[g, CONIC_XY] * moment_y
        grad_v = splats[g, CONIC_XY] * moment_x + splats[g, CONIC_YY] * moment_y
        grad_depth, grad_tangent_x, grad_tangent_y = 0.0, 0.0, 0.0
        for k in range(3):  # image axes = focal / z * (rotated axis - tangent * rotated axis z)
            grad_depth -= (image_grad[0, k] * image_axes[0, k] + image_grad[1, k] * image_axes[1, k]) / z
            grad_tangent_x -= image_grad[0, k] * fx / z * rotated_axes[2, k]
            grad_tangent_y -= image_grad[1, k] * fy / z * rotated_axes[2, k]
            towards_x, towards_y = image_grad[0, k] * fx / z, image_grad[1, k] * fy / z
            towards_z = -(towards_x * tangent_x + towards_y * tangent_y)
            scale_grad = 0.0
            for i in range(3):
                along = rotation[0, i] * towards_x + rotation[1, i] * towards_y + rotation[2, i] * towards_z
                scale_grad += along * axes[i, k]
                axes_grad[i, k] = along * scales[g, k]
            grad_scales[g, k] = scale_grad
        quat_gradient(quats, g, axes_grad, grad_quats)

        slope_x = fx * grad_u + (grad_tangent_x if free_x else 0.0)  # both move with x / z
        slope_y = fy * grad_v + (grad_tangent_y if free_y else 0.0)
        point_grad[0], point_grad[1] = slope_x / z, slope_y / z
        point_grad[2] = grad_depth - (slope_x * x + slope_y * y) / (z * z)
        for i in range(3):
            total = rotation[0, i] * point_grad[0] + rotation[1, i] * point_grad[1]
            grad_means[g, i] = total + rotation[2, i] * point_grad[2]
