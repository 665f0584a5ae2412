"""Made-up scenes for tests of rasterisers, and the comparison with the reference."""

from collections.abc import Callable
from dataclasses import fields

import torch
import torch.nn.functional as F

from sdtalk.camera import FACING, Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering import reference
from sdtalk.rendering.rules import OUR_RULES, FeatureImage, RasterRules

Render = Callable[[Gaussians, Camera, RasterRules], FeatureImage]

SIZE = 48
DISTANCE = 10.0


def camera(batch: int = 1, width: int = SIZE, height: int = SIZE) -> Camera:
    """Views of one head from slightly different sides, 12 half-widths focal length."""
    yaw = torch.linspace(0.0, 0.3, batch)
    turn = torch.eye(3).repeat(batch, 1, 1)
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 2, 0], turn[:, 2, 2] = yaw.cos(), yaw.sin(), -yaw.sin(), yaw.cos()
    shift = torch.tensor([[0.02, -0.01, DISTANCE]]).repeat(batch, 1)
    square = Camera.from_pose(FACING @ turn, shift, width)
    matrix = square.intrinsics.clone()
    matrix[:, 1, 2] = height / 2
    return Camera(square.world_to_camera, matrix, width, height)


def scene(count: int, channels: int, seed: int, batch: int = 1) -> Gaussians:
    """Anisotropic Gaussians all over the image and around it, thin ones and opaque ones."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(batch, count, *shape, generator=generator)

    return Gaussians(
        means=normal(3) * torch.tensor([0.5, 0.5, 0.8]),
        quats=F.normalize(normal(4), dim=-1),
        scales=0.06 * torch.exp(0.7 * normal(3)),
        opacities=torch.sigmoid(2 * normal()),
        features=normal(channels),
    )


def hard_scene(channels: int, seed: int) -> Gaussians:
    """A scene with every awkward Gaussian: behind, at the near plane, off screen, tiny, huge, needles, clamped."""
    gaussians = scene(120, channels, seed)
    means, scales, opacities = gaussians.means.clone(), gaussians.scales.clone(), gaussians.opacities.clone()
    means[0, 0:10, 2] += 2 * DISTANCE
    means[0, 10:14, 2] = DISTANCE - 0.3 + 0.05 * torch.arange(4)
    means[0, 14:24, 0] += 1.5
    scales[0, 20:24] = 0.6
    scales[0, 24:34] = 1e-5
    scales[0, 34:38] = 2.0
    scales[0, 38:48] *= torch.tensor([8.0, 0.01, 1.0])
    opacities[0, 48:60] = 1.0
    opacities[0, 60:66] = 0.9992
    opacities[0, 66:70] = 0.0
    opacities[0, 70:74] = 1 / 254
    return Gaussians(means, gaussians.quats, scales, opacities, gaussians.features)


def raw_scene(count: int, channels: int, seed: int, batch: int = 1) -> Gaussians:
    """What a converted checkpoint hands over: sums without a domain, quaternions of lengths about 0.02 to 3."""
    gaussians = scene(count, channels, seed, batch)
    generator = torch.Generator().manual_seed(seed + 100)
    sign = torch.randint(0, 2, gaussians.scales.shape, generator=generator) * 2 - 1
    length = torch.exp(torch.empty(batch, count, 1).uniform_(-4, 1, generator=generator))
    opacities = torch.empty(batch, count).uniform_(-0.1, 1.3, generator=generator)
    return Gaussians(
        gaussians.means, gaussians.quats * length, gaussians.scales * sign, opacities, gaussians.features
    )


def with_gradients(
    render: Render, gaussians: Gaussians, view: Camera, dtype: torch.dtype, rules: RasterRules = OUR_RULES
) -> tuple[FeatureImage, dict[str, torch.Tensor]]:
    """Render, weigh every output at random, and return the gradient of every field."""
    leaves = {
        f.name: getattr(gaussians, f.name).clone().to(dtype).requires_grad_() for f in fields(Gaussians)
    }
    matrices = view.world_to_camera.to(dtype), view.intrinsics.to(dtype)
    image = render(Gaussians(**leaves), Camera(*matrices, view.width, view.height), rules)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (out.double() * torch.randn(out.shape, generator=generator).double()).sum()
        for out in (image.features, image.alpha)
    )
    loss.backward()
    return image, {name: leaf.grad.double() for name, leaf in leaves.items()}


def assert_equals_reference(
    render: Render, gaussians: Gaussians, view: Camera, rules: RasterRules = OUR_RULES
) -> None:
    slow, slow_grads = with_gradients(reference.rasterise, gaussians, view, torch.float64, rules)
    fast, fast_grads = with_gradients(render, gaussians, view, torch.float32, rules)
    torch.testing.assert_close(fast.features.double(), slow.features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fast.alpha.double(), slow.alpha, atol=1e-4, rtol=1e-4)
    for name, expected in slow_grads.items():
        error = (fast_grads[name] - expected).norm() / expected.norm()
        assert error < 1e-3, f"gradient of {name} is off by {error:.1e}"


def assert_batch_is_its_views(render: Render, gaussians: Gaussians, view: Camera) -> None:
    """Each camera's picture is the one that it gives alone, to the bit."""
    image = render(gaussians, view, OUR_RULES)
    for index in range(len(view)):
        own = min(index, len(gaussians.means) - 1)
        alone = Gaussians(**{f.name: getattr(gaussians, f.name)[[own]] for f in fields(Gaussians)})
        assert torch.equal(
            render(alone, view[index : index + 1], OUR_RULES).features[0], image.features[index]
        )
