"""Triton rasteriser, stage 5: the gradient of projection, from the moments of the splats back to the Gaussians."""

import triton.language as tl

from sdtalk.rendering.triton.blending_backward import MOMENTS
from sdtalk.rendering.triton.kernel import kernel
from sdtalk.rendering.triton.projection import (
    CAMERA_SIZE,
    SPLAT_SIZE,
    clamped_tangent,
    image_axis,
    load_double,
    load_quat,
    load_three,
    rotation_column,
    to_camera,
)


@kernel
def to_head(camera, x, y, z):
    """Rotate vectors from camera space back into head space."""
    u = tl.load(camera) * x + tl.load(camera + 3) * y + tl.load(camera + 6) * z
    v = tl.load(camera + 1) * x + tl.load(camera + 4) * y + tl.load(camera + 7) * z
    w = tl.load(camera + 2) * x + tl.load(camera + 5) * y + tl.load(camera + 8) * z
    return u, v, w


@kernel
def covariance_gradient(A, B, C, moment_xx, moment_xy, moment_yy):
    """Gradient of the covariance a, b, c on the image: sigma = A dx^2 / 2 + B dx dy + C dy^2 / 2, conic its inverse."""
    grad_A, grad_B, grad_C = -0.5 * moment_xx, -0.5 * moment_xy, -0.5 * moment_yy
    # d covariance = -conic (d conic) conic, with grad_B the off-diagonal element of the symmetric gradient
    left_xx, left_xy = A * grad_A + B * grad_B, A * grad_B + B * grad_C
    left_yx, left_yy = B * grad_A + C * grad_B, B * grad_B + C * grad_C
    return -(left_xx * A + left_xy * B), -(left_xx * B + left_xy * C), -(left_yx * B + left_yy * C)


@kernel
def axis_gradient(
    camera, w, i, j, k, scale, fx, fy, tangent_x, tangent_y, z, grad_a, grad_b, grad_c, COLUMN: tl.constexpr
):
    """What one axis adds to the gradients of depth and tangents; its own of the scale and of its rotation column.

    The image's axis is focal / z * (axis - tangent * axis z).
    """
    depth, p, q = image_axis(camera, w, i, j, k, scale, fx, fy, tangent_x, tangent_y, z, COLUMN)
    grad_p, grad_q = 2 * (grad_a * p + grad_b * q), 2 * (grad_b * p + grad_c * q)
    grad_depth = -(grad_p * p + grad_q * q) / z
    towards_x, towards_y = grad_p * fx / z, grad_q * fy / z
    towards_z = -(towards_x * tangent_x + towards_y * tangent_y)
    x, y, z = to_head(camera, towards_x, towards_y, towards_z)
    along_x, along_y, along_z = rotation_column(w, i, j, k, COLUMN)
    grad_scale = x * along_x + y * along_y + z * along_z
    return grad_depth, -towards_x * depth, -towards_y * depth, grad_scale, x * scale, y * scale, z * scale


@kernel
def project_backward(
    means, quats, scales, opacities, cameras, splats, moments,
    grad_means, grad_quats, grad_scales, grad_opacities,
    gaussians, set_stride, width, height, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of Gaussians from one camera.

    Args:
        means: As `project` gets them, like quats, scales, opacities, cameras, gaussians, set_stride, width, height.
        quats: See means.
        scales: See means.
        opacities: See means.
        cameras: See means.
        splats: What `project` made of them.
        moments: [B, N, MOMENTS]; rows of zeros where a Gaussian was not seen.
        grad_means: [B, N, 3] out.
        grad_quats: [B, N, 4] out.
        grad_scales: [B, N, 3] out.
        grad_opacities: [B, N] out.
        gaussians: See means.
        set_stride: See means.
        width: See means.
        height: See means.
        BLOCK: Gaussians of a program.
    """
    view = tl.program_id(1).to(tl.int64)
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = g < gaussians
    source, target = view * set_stride + g, view * gaussians + g
    camera = cameras + view * CAMERA_SIZE
    fx, fy, cx, cy = tl.load(camera + 12), tl.load(camera + 13), tl.load(camera + 14), tl.load(camera + 15)
    row = target * MOMENTS
    m_1, m_x, m_y = load_three(moments, row, there)
    m_xx, m_xy, m_yy = load_three(moments, row + 3, there)
    # what was never seen has gradients of zero, and its own numbers, NaN perhaps, are not looked at
    seen = there & ((m_1 != 0) | (m_xx != 0) | (m_yy != 0))

    x, y, z = load_three(means, source * 3, seen)
    x, y, z = to_camera(camera, x, y, z)
    x, y, z = x + tl.load(camera + 9), y + tl.load(camera + 10), z + tl.load(camera + 11)
    z = tl.where(seen, z, 1.0)
    tangent_x, tangent_y = clamped_tangent(x / z, fx, cx, width), clamped_tangent(y / z, fy, cy, height)
    A, B, C = load_three(splats, target * SPLAT_SIZE + 2, seen)
    a, b, c = covariance_gradient(A, B, C, m_xx, m_xy, m_yy)
    w, i, j, k = load_quat(quats, source, seen)
    s0, s1, s2 = load_three(scales, source * 3, seen)
    d0, tx0, ty0, grad_s0, g00, g10, g20 = axis_gradient(
        camera, w, i, j, k, s0, fx, fy, tangent_x, tangent_y, z, a, b, c, 0
    )
    d1, tx1, ty1, grad_s1, g01, g11, g21 = axis_gradient(
        camera, w, i, j, k, s1, fx, fy, tangent_x, tangent_y, z, a, b, c, 1
    )
    d2, tx2, ty2, grad_s2, g02, g12, g22 = axis_gradient(
        camera, w, i, j, k, s2, fx, fy, tangent_x, tangent_y, z, a, b, c, 2
    )

    # the centre on the image moves with x / z, and so does the Jacobian's tangent where it is not clamped
    slope_x = fx * (A * m_x + B * m_y) + tl.where(tangent_x == x / z, tx0 + tx1 + tx2, 0.0)
    slope_y = fy * (B * m_x + C * m_y) + tl.where(tangent_y == y / z, ty0 + ty1 + ty2, 0.0)
    along_z = d0 + d1 + d2 - (slope_x * x + slope_y * y) / (z * z)
    mean_x, mean_y, mean_z = to_head(camera, slope_x / z, slope_y / z, along_z)
    tl.store(grad_means + target * 3, mean_x.to(tl.float32), mask=there)
    tl.store(grad_means + target * 3 + 1, mean_y.to(tl.float32), mask=there)
    tl.store(grad_means + target * 3 + 2, mean_z.to(tl.float32), mask=there)
    tl.store(grad_scales + target * 3, grad_s0.to(tl.float32), mask=there)
    tl.store(grad_scales + target * 3 + 1, grad_s1.to(tl.float32), mask=there)
    tl.store(grad_scales + target * 3 + 2, grad_s2.to(tl.float32), mask=there)
    opacity = load_double(opacities, source, seen)
    tl.store(grad_opacities + target, (m_1 / tl.where(seen, opacity, 1.0)).to(tl.float32), mask=there)

    x, y, z = i, j, k
    grad_w = 2 * (x * (g21 - g12) + y * (g02 - g20) + z * (g10 - g01))
    grad_x = 2 * (w * (g21 - g12) + y * (g01 + g10) + z * (g02 + g20) - 2 * x * (g11 + g22))
    grad_y = 2 * (w * (g02 - g20) + x * (g01 + g10) + z * (g12 + g21) - 2 * y * (g00 + g22))
    grad_z = 2 * (w * (g10 - g01) + x * (g02 + g20) + y * (g12 + g21) - 2 * z * (g00 + g11))
    tl.store(grad_quats + target * 4, grad_w.to(tl.float32), mask=there)
    tl.store(grad_quats + target * 4 + 1, grad_x.to(tl.float32), mask=there)
    tl.store(grad_quats + target * 4 + 2, grad_y.to(tl.float32), mask=there)
    tl.store(grad_quats + target * 4 + 3, grad_z.to(tl.float32), mask=there)
