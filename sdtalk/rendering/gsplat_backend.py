"""CUDA rasteriser: gsplat, imported only when Gaussians on a CUDA device arrive."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rasteriser import DILATION, NEAR
from sdtalk.rendering.reference import covariances

_REMEDY = (
    "Install gsplat 1.5.3 (pip install gsplat==1.5.3), and a CUDA toolkit with nvcc of the version torch was built "
    "with, since gsplat compiles its kernels at first use; or choose the device cpu, which needs neither"
)


def load() -> Callable[..., tuple[Tensor, Tensor, dict]]:
    """Find gsplat's rasterization function, its kernels compiled.

    Raises:
        InputError: If gsplat is missing, or its CUDA kernels are neither compiled nor can be.
    """
    try:
        from gsplat import rasterization
        from gsplat.cuda._backend import _C
    except ImportError as error:
        raise InputError("device cuda", f"gsplat cannot be imported ({error})", _REMEDY) from error
    except (RuntimeError, OSError) as error:  # what torch's extension builder raises
        raise InputError("device cuda", "gsplat could not compile its CUDA kernels", _REMEDY) from error
    if _C is None:
        raise InputError("device cuda", "gsplat has no compiled CUDA kernels and finds no nvcc", _REMEDY)
    return rasterization


def rasterise(
    gaussians: Gaussians, camera: Camera
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch 1 height width"]]:
    """Features and alpha; contract and semantics in `sdtalk.rendering.rasteriser`.

    gsplat would normalise quaternions, so it gets covariances. Its other constants are ours: alpha in
    [1/255, 0.999], stop before a transmittance of 1e-4, tangents clamped at 0.3 half-widths outside the image.
    """
    rasterization = load()
    covariance = covariances(gaussians.quats.float(), gaussians.scales.float())
    features, alphas = [], []
    for index in range(len(camera)):
        own = 0 if gaussians.means.shape[0] == 1 else index
        image, alpha, _ = rasterization(
            means=gaussians.means[own].float(),
            quats=None,
            scales=None,
            opacities=gaussians.opacities[own].float(),
            colors=gaussians.features[own].float(),
            viewmats=camera.world_to_camera[index : index + 1].float(),
            Ks=camera.intrinsics[index : index + 1].float(),
            width=camera.width,
            height=camera.height,
            near_plane=NEAR,
            eps2d=DILATION,
            packed=False,
            covars=covariance[own],
        )
        features.append(image[0].permute(2, 0, 1))
        alphas.append(alpha[0].permute(2, 0, 1))
    return torch.stack(features), torch.stack(alphas)
