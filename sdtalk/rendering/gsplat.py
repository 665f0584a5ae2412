"""CUDA rasteriser by gsplat, for who has its kernels and asks for them; imported only then."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.reference import covariances
from sdtalk.rendering.rules import DILATION, NEAR

_REMEDY = (
    'Install gsplat 1.5.3 (pip install "sdtalk[gsplat]"), and a CUDA toolkit with nvcc of the version torch was built '
    "with, since gsplat compiles its kernels at first use; or choose the rasteriser triton, which needs neither"
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
        raise InputError("rasteriser gsplat", f"it cannot be imported ({error})", _REMEDY) from error
    except (RuntimeError, OSError) as error:  # what torch's extension builder raises
        raise InputError("rasteriser gsplat", "it could not compile its CUDA kernels", _REMEDY) from error
    if _C is None:
        raise InputError("rasteriser gsplat", "it has no compiled CUDA kernels and finds no nvcc", _REMEDY)
    return rasterization


def rasterise(
    gaussians: Gaussians, camera: Camera
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch 1 height width"]]:
    """Features and alpha; contract and semantics in `sdtalk.rendering.rules`.

    gsplat takes raw values: it gets covariances, since it would normalise quaternions, and drops Gaussians of an
    opacity below 1/255, negative ones among them. A set that all cameras share is projected to all of them in one
    call, and so are sets of their own. Features of another type, such as bf16, are converted to float32, which is
    exact; the image is float32, too, and gradients are rounded to the type of the features.

    The constants compiled into gsplat 1.5.3 are those of `OUR_RULES`: alpha in [1/255, 0.999], stop before a
    transmittance of 1e-4, tangents clamped at 0.3 half-widths outside the image. Opacities above 1 are cut off at
    3.33 standard deviations, beyond which such a Gaussian's alpha is below opacity / 255. What `PUBLISHED_RULES` would
    change, gsplat has no parameter for. In a 512 x 512 picture of 200 random Gaussians, opacities -0.1 to 1.2 and
    standard normal features, the two differ by 7.9e-5 on average and 0.22 at most: 7.0e-5 on average because of
    the cap of 0.999 instead of 0.99, 8.6e-6 because of the extent.
    """
    sets = gaussians.means.shape[0]
    image, alpha, _ = load()(
        means=gaussians.means.float(),
        quats=None,
        scales=None,
        opacities=gaussians.opacities.float(),
        colors=gaussians.features.float(),
        viewmats=camera.world_to_camera.float().reshape(sets, -1, 4, 4),
        Ks=camera.intrinsics.float().reshape(sets, -1, 3, 3),
        width=camera.width,
        height=camera.height,
        near_plane=NEAR,
        eps2d=DILATION,
        packed=False,
        covars=covariances(gaussians.quats.float(), gaussians.scales.float()),
    )
    return image.flatten(0, 1).permute(0, 3, 1, 2), alpha.flatten(0, 1).permute(0, 3, 1, 2)
