"""Rasteriser: Gaussians and a camera in, an image of features out (paper section 3.1, "splatting").

One function; the implementation follows the Gaussians' device. `sdtalk.rendering.rules` has the exact semantics.
"""

from typing import Literal, TypeAlias

import torch

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rules import OUR_RULES, FeatureImage, RasterRules, check_batches

OnCuda: TypeAlias = Literal["triton", "gsplat"]
"""What draws where the Gaussians are on CUDA: our kernels, or a library that compiles itself with nvcc."""


def rasterise(
    gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES, on_cuda: OnCuda = "triton"
) -> FeatureImage:
    """Splat Gaussians into an image of their features; see `sdtalk.rendering.rules` for the exact semantics.

    Quaternions enter the rotation formula as they are, without normalisation. For the unit quaternions that
    `Gaussians` promises this changes nothing; the published code does the same with quaternions of other lengths,
    so a converted checkpoint keeps its pictures. The gradient is that of the raw formula.

    Args:
        gaussians: A batch of 1, shown to every camera, or one set per camera. Of any floating point type: all is
            computed in float32, and gradients come back in the Gaussians' own type.
        camera: The views, on the same device as the Gaussians.
        rules: `PUBLISHED_RULES` draw a converted checkpoint's Gaussians as its authors' code does.
        on_cuda: "gsplat" follows no rules but `OUR_RULES`: `gsplat.rasterise` says how far that is off.

    Returns:
        Features and alpha in float32, [batch, channel, height, width].

    Raises:
        ValueError: If the batches do not match.
        InputError: If gsplat is asked for and cannot be used.
    """
    check_batches(gaussians, camera)
    if gaussians.means.is_cuda and on_cuda == "gsplat":
        from sdtalk.rendering.gsplat import rasterise as rasterise_by_gsplat

        return FeatureImage(*rasterise_by_gsplat(gaussians, camera))
    if gaussians.means.is_cuda:
        from sdtalk.rendering.triton.backend import rasterise as rasterise_on_cuda

        return FeatureImage(*rasterise_on_cuda(gaussians, camera, rules))
    from sdtalk.rendering.cpu.backend import rasterise as rasterise_on_cpu

    return FeatureImage(*rasterise_on_cpu(gaussians, camera, rules))


def rasteriser_for(device: torch.device, on_cuda: OnCuda = "triton") -> str:
    """Which implementation draws on a device: "cpu" (compiled kernels), "triton" or "gsplat"."""
    return on_cuda if device.type == "cuda" else "cpu"
