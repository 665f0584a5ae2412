"""Gaussian splatting (paper section 3.1, "splatting"): Gaussians and a camera in, an image of features out.

Three implementations share the semantics written here: compiled kernels for the CPU (`numba_backend`), gsplat for
CUDA (`gsplat_backend`), and a slow, obvious one in plain PyTorch for the tests (`reference`).

1. A centre with camera depth z <= NEAR is dropped, one with opacity < MIN_ALPHA never shows.
2. The covariance R S S^T R^T (R from the quaternion *as given*, see `rasterise`) is projected with the perspective
   Jacobian at the centre, whose tangents are clamped to the image enlarged by TANGENT_MARGIN half-widths.
   DILATION is added to the diagonal, so that no Gaussian falls between the pixel centres.
3. At a pixel, alpha = min(MAX_ALPHA, opacity * exp(-d^T C^-1 d / 2)) with d from the centre to the pixel's
   centre (i + 0.5, j + 0.5). An alpha < MIN_ALPHA is skipped.
4. Front to back by camera z, ties by index: weight = alpha * T, then T becomes T * (1 - alpha). The pixel stops
   *before* the Gaussian that would bring T below MIN_TRANSMITTANCE.

Gradients reach means, quats, scales, opacities and features, not the camera.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians

NEAR = 0.2
"""Depth at or below which a Gaussian is dropped, head-space units (published kernels)."""

DILATION = 0.3
"""Variance added to both axes of a projected Gaussian, px^2."""

TANGENT_MARGIN = 0.3
"""How far beyond the image, in half-widths, the Jacobian still follows the centre."""

MAX_ALPHA = 0.999
"""Largest alpha of one Gaussian at one pixel, so that what lies behind keeps a gradient."""

MIN_ALPHA = 1 / 255
"""Smallest alpha that counts: less could not be seen in 8 bits."""

MIN_TRANSMITTANCE = 1e-4
"""A pixel stops before its transmittance falls below this."""


@dataclass(frozen=True)
class FeatureImage:
    """What the rasteriser returns.

    Attributes:
        features: Sum of weight * feature, over a background of zeros.
        alpha: Sum of weights = 1 - transmittance, in [0, 1].
    """

    features: Float[Tensor, "batch channel height width"]
    alpha: Float[Tensor, "batch 1 height width"]


def check_batches(gaussians: Gaussians, camera: Camera) -> None:
    """Refuse Gaussians whose batch is neither 1 nor the camera's.

    Raises:
        ValueError: If the batches do not match.
    """
    count = gaussians.means.shape[0]
    if count not in (1, len(camera)):
        raise ValueError(
            f"{count} sets of Gaussians do not fit {len(camera)} cameras: give 1 or {len(camera)}"
        )


def rasterise(gaussians: Gaussians, camera: Camera) -> FeatureImage:
    """Splat Gaussians into an image of their features; see the module for the exact semantics.

    Quaternions enter the rotation formula as they are, without normalisation. For the unit quaternions that
    `Gaussians` promises this changes nothing; the published code does the same with quaternions of other lengths,
    so a converted checkpoint keeps its pictures. The gradient is that of the raw formula.

    Args:
        gaussians: A batch of 1, shown to every camera, or one set per camera.
        camera: The views, on the same device as the Gaussians.

    Returns:
        Features and alpha in float32, [batch, channel, height, width].

    Raises:
        ValueError: If the batches do not match.
        InputError: If the Gaussians are on CUDA and gsplat cannot be used.
    """
    check_batches(gaussians, camera)
    if gaussians.means.is_cuda:
        from sdtalk.rendering.gsplat_backend import rasterise as render
    else:
        from sdtalk.rendering.numba_backend import rasterise as render
    return FeatureImage(*render(gaussians, camera))
