"""Rasteriser: Gaussians and a camera in, an image of features out (paper section 3.1, "splatting").

One function; the implementation follows the Gaussians' device. `sdtalk.rendering.rules` has the exact semantics.
"""

import torch

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rules import OUR_RULES, FeatureImage, RasterRules, check_batches


def rasterise(gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES) -> FeatureImage:
    """Splat Gaussians into an image of their features; see `sdtalk.rendering.rules` for the exact semantics.

    Quaternions enter the rotation formula as they are, without normalisation. For the unit quaternions that
    `Gaussians` promises this changes nothing; the published code does the same with quaternions of other lengths,
    so a converted checkpoint keeps its pictures. The gradient is that of the raw formula.

    Args:
        gaussians: A batch of 1, shown to every camera, or one set per camera. Of any floating point type: all is
            computed in float32, and gradients come back in the Gaussians' own type.
        camera: The views, on the same device as the Gaussians.
        rules: `PUBLISHED_RULES` draw a converted checkpoint's Gaussians as its authors' code does. Not followed on
            CUDA, where gsplat's constants are compiled in: `gsplat.rasterise` says how far that is off.

    Returns:
        Features and alpha in float32, [batch, channel, height, width].

    Raises:
        ValueError: If the batches do not match.
        InputError: If the Gaussians are on CUDA and gsplat cannot be used.
    """
    check_batches(gaussians, camera)
    if gaussians.means.is_cuda:
        from sdtalk.rendering.triton.backend import rasterise as rasterise_on_cuda

        return FeatureImage(*rasterise_on_cuda(gaussians, camera, rules))
    from sdtalk.rendering.cpu.backend import rasterise as rasterise_on_cpu

    return FeatureImage(*rasterise_on_cpu(gaussians, camera, rules))


def rasteriser_for(device: torch.device) -> str:
    """Which implementation draws on a device: "cpu" (compiled kernels) or "triton"."""
    return "triton" if device.type == "cuda" else "cpu"
