"""Rasterisation rules: the semantics, constants and types that every rasteriser here shares.

Three implementations follow them: compiled kernels for the CPU (`rendering.cpu`) and for CUDA (`rendering.triton`), and
a slow, obvious one in plain PyTorch for the tests (`rendering.reference`). gsplat (`rendering.gsplat`) follows only
`OUR_RULES`. `rendering.rasteriser` chooses.

1. A centre with camera depth z <= NEAR is dropped, one with opacity < MIN_ALPHA never shows.
2. The covariance R S S^T R^T (R from the quaternion *as given*, see `rasteriser.rasterise`) is projected with the
   perspective Jacobian at the centre, whose tangents are clamped to the image enlarged by TANGENT_MARGIN half-widths.
   The dilation is added to the diagonal, so that no Gaussian falls between the pixel centres.
3. At a pixel, alpha = min(max_alpha, opacity * exp(-d^T C^-1 d / 2)) with d from the centre to the pixel's
   centre (i + 0.5, j + 0.5). An alpha < MIN_ALPHA is skipped.
4. Front to back by camera z, ties by index: weight = alpha * T, then T becomes T * (1 - alpha). The pixel stops
   *before* the Gaussian that would bring T below MIN_TRANSMITTANCE.

`RasterRules` says in what the published rasteriser departs from this. All implementations take any finite values:
of scales only the squares count, opacities above 1 reach max_alpha in a wider area and negative ones never show.

Gradients reach means, quats, scales, opacities and features, not the camera. They are those of the picture as it is
drawn: none where alpha is capped, and none through thresholds, depth order or tiles.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians

NEAR = 0.2
"""Depth at or below which a Gaussian is dropped, head-space units (published kernels)."""

DILATION = 0.3
"""Variance added to both axes of a projected Gaussian, px^2, unless `RasterRules` say otherwise."""

TANGENT_MARGIN = 0.3
"""How far beyond the image, in half-widths, the Jacobian still follows the centre."""

MIN_ALPHA = 1 / 255
"""Smallest alpha that counts: less could not be seen in 8 bits."""

MIN_TRANSMITTANCE = 1e-4
"""A pixel stops before its transmittance falls below this."""

PUBLISHED_TILE = 16
"""Side of the published rasteriser's tiles, px; they matter to the picture, see `RasterRules.square_extent`."""

MIN_ROOT = 0.1
"""The published rasteriser's least (half difference of the eigenvalues)^2, px^4, when it bounds a Gaussian."""


@dataclass(frozen=True)
class RasterRules:
    """What rasterisers of Gaussians disagree on.

    Attributes:
        max_alpha: Largest alpha of one Gaussian at one pixel, so that what lies behind keeps a gradient.
        square_extent: Whether a Gaussian counts only in the tiles of 16 x 16 px that a square around its centre
            touches, of half side ceil(3 sqrt(largest eigenvalue of its projected covariance)) px. Otherwise it counts
            wherever its alpha is at least MIN_ALPHA, up to 3.33 standard deviations for an opacity of 1.
        dilation: Variance added to both axes of a projected Gaussian, px^2.
    """

    max_alpha: float = 0.999
    square_extent: bool = False
    dilation: float = DILATION


OUR_RULES = RasterRules()
PUBLISHED_RULES = RasterRules(max_alpha=0.9900000095367432, square_extent=True)
"""Those of the rasteriser that the authors' weights were trained with (reference Q15).

max_alpha is 0.99 in float32, to the bit: (1 - max_alpha)^2 lies just below MIN_TRANSMITTANCE, so a pixel stops at the
second Gaussian whose alpha is capped. With 0.99 in double precision it would not.
"""

HALF_RATE_RULES = RasterRules(dilation=DILATION / 4)
"""For a camera of half the size: its pixels are samples of the whole picture, Gaussians are no wider than there."""


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
