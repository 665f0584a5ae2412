"""Tests of the Triton rasteriser against the reference: interpreted on CPU tensors, or compiled where CUDA is."""

from dataclasses import fields, replace

import pytest
import torch
from scenes import (
    DISTANCE,
    SIZE,
    assert_batch_is_its_views,
    assert_equals_reference,
    camera,
    hard_scene,
    raw_scene,
    scene,
    with_gradients,
)

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.cpu.backend import rasterise as rasterise_on_cpu
from sdtalk.rendering.rules import HALF_RATE_RULES, OUR_RULES, PUBLISHED_RULES, FeatureImage, RasterRules

pytest.importorskip("triton", reason="Triton has no package for this system")
from sdtalk.rendering.triton import backend  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []


def rasterise(gaussians: Gaussians, view: Camera, rules: RasterRules = OUR_RULES) -> FeatureImage:
    """Where Triton runs here, there and back."""
    image, alpha = backend.rasterise(gaussians.to(DEVICE), view.to(DEVICE), rules)
    return FeatureImage(image.cpu(), alpha.cpu())


def assert_same(gaussians: Gaussians, view: Camera, rules: RasterRules = OUR_RULES) -> None:
    assert_equals_reference(rasterise, gaussians, view, rules)


@pytest.mark.parametrize("rules", [OUR_RULES, PUBLISHED_RULES])
@pytest.mark.parametrize("make", [scene, raw_scene])
def test_random_scenes_equal_the_reference(make, rules: RasterRules) -> None:
    assert_same(make(150, 7, 0), camera(width=29, height=37), rules)


@pytest.mark.parametrize("rules", [OUR_RULES, PUBLISHED_RULES])
def test_awkward_scenes_equal_the_reference(rules: RasterRules) -> None:
    """Behind the camera, at the near plane, off screen, tiny, huge, needles, opaque ones, transparent ones."""
    assert_same(hard_scene(5, 1), camera(), rules)


@pytest.mark.parametrize("channels", [3, 17, 32])
def test_channels(channels: int) -> None:
    assert_same(scene(60, channels, 0), camera(width=16, height=16))


@pytest.mark.parametrize("sets", [1, 3])
def test_batch(sets: int) -> None:
    gaussians, view = scene(60, 4, 5, batch=sets), camera(batch=3, width=16, height=16)
    assert_same(gaussians, view)
    assert_batch_is_its_views(rasterise, gaussians, view)


def test_repeated_features_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a head that moves: other places in every frame, the same features."""
    moved, still = scene(60, 4, 5, batch=3), scene(60, 4, 6)
    launched = []
    blend = backend._blended
    monkeypatch.setattr(backend, "_blended", lambda *a: launched.append(a[1].shape) or blend(*a))

    def render(gaussians: Gaussians, view: Camera, rules: RasterRules) -> FeatureImage:
        there = gaussians.to(DEVICE)
        image, alpha = backend.rasterise(
            replace(there, features=there.features[:1].expand(3, -1, -1)), view.to(DEVICE), rules
        )
        return FeatureImage(image.cpu(), alpha.cpu())

    repeated = replace(moved, features=still.features.expand(3, -1, -1).clone())
    view = camera(batch=3, width=16, height=16)
    found, grads = with_gradients(render, repeated, view, torch.float32)
    expected, expected_grads = with_gradients(rasterise, repeated, view, torch.float32)
    assert launched[0] == (1, 60, 4) and launched[1] == (3, 60, 4)
    assert torch.equal(found.features, expected.features)
    torch.testing.assert_close(grads["features"][0], expected_grads["features"].sum(0))
    assert torch.equal(grads["means"], expected_grads["means"])


def test_another_dilation_equals_the_reference() -> None:
    assert_same(scene(80, 4, 1), camera(width=24, height=24), HALF_RATE_RULES)


def test_ties_go_by_index() -> None:
    """A hundred opaque Gaussians in one plane, in a random order of colours."""
    gaussians = scene(100, 4, 4)
    means = gaussians.means * torch.tensor([0.3, 0.3, 0.0])
    flat = replace(gaussians, means=means, opacities=torch.full_like(gaussians.opacities, 0.9))
    view = camera(width=16, height=16)
    straight = Camera(view.world_to_camera.clone(), view.intrinsics, 16, 16)
    straight.world_to_camera[0, :3, :3] = torch.diag(
        torch.tensor([1.0, -1.0, -1.0])
    )  # depths are equal to the bit
    assert_same(flat, straight)


def test_one_gaussian() -> None:
    gaussians = scene(1, 4, 3)
    middle = replace(gaussians, means=torch.zeros(1, 1, 3), scales=torch.full((1, 1, 3), 0.1))
    assert rasterise(middle, camera()).alpha.max() > 0.1
    assert_same(middle, camera())


def test_a_hundred_thousand_gaussians_equal_the_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference would need Gaussians x pixels of memory; the interpreter is as fast with larger blocks."""
    if DEVICE == "cpu":
        for name in ("BLOCK", "GATHERED", "FILLED"):
            monkeypatch.setattr(backend, name, 1 << 14)
    gaussians, view = scene(100_000, 4, 2), camera(width=32, height=32)
    sparse = replace(gaussians, means=gaussians.means * 40)  # most of them off screen
    for many in (gaussians, sparse):
        ours, ours_grads = with_gradients(rasterise, many, view, torch.float32)
        theirs, their_grads = with_gradients(
            lambda *inputs: FeatureImage(*rasterise_on_cpu(*inputs)), many, view, torch.float32
        )
        torch.testing.assert_close(ours.features, theirs.features, atol=1e-4, rtol=1e-4)
        for name, expected in their_grads.items():
            assert (ours_grads[name] - expected).norm() < 1e-3 * expected.norm(), name


@pytest.mark.parametrize("gaussians", [scene(0, 4, 0), replace(scene(9, 4, 0), opacities=torch.zeros(1, 9)),
                                       replace(scene(9, 4, 0), means=torch.full((1, 9, 3), 2 * DISTANCE))])  # fmt: skip
def test_nothing_to_see_gives_an_empty_image(gaussians: Gaussians) -> None:
    image, grads = with_gradients(rasterise, gaussians, camera(batch=2), torch.float32)
    assert image.features.shape == (2, 4, SIZE, SIZE) and image.alpha.shape == (2, 1, SIZE, SIZE)
    assert not image.features.any() and not image.alpha.any()
    assert all(
        grad.shape == getattr(gaussians, name).shape and not grad.any() for name, grad in grads.items()
    )


def test_diverged_gaussians_are_dropped() -> None:
    gaussians = scene(50, 4, 8)
    broken, scales = gaussians.means.clone(), gaussians.scales.clone()
    broken[0, :5] = float("nan")
    scales[0, 5:10] = float("inf")
    image, grads = with_gradients(
        rasterise, replace(gaussians, means=broken, scales=scales), camera(), torch.float32
    )
    good = Gaussians(**{f.name: getattr(gaussians, f.name)[:, 10:] for f in fields(Gaussians)})
    torch.testing.assert_close(image.features, rasterise(good, camera()).features)
    assert all(grad.isfinite().all() for grad in grads.values())


def test_results_repeat_to_the_bit() -> None:
    gaussians, view = scene(150, 8, 7), camera(width=40, height=24)
    first, first_grads = with_gradients(rasterise, gaussians, view, torch.float32)
    again, again_grads = with_gradients(rasterise, gaussians, view, torch.float32)
    assert torch.equal(first.features, again.features)
    assert all(torch.equal(grad, again_grads[name]) for name, grad in first_grads.items())


def test_other_precisions_get_their_own_gradients() -> None:
    gaussians = Gaussians(
        **{f.name: getattr(scene(30, 4, 1), f.name).bfloat16().requires_grad_() for f in fields(Gaussians)}
    )
    image = rasterise(gaussians, camera(width=16, height=16))
    image.features.square().sum().backward()
    assert image.features.dtype == torch.float32 and gaussians.features.grad is not None
    assert gaussians.features.grad.dtype == torch.bfloat16 and gaussians.features.grad.any()


def test_many_tiles_are_numbered_by_more_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    gaussians, view = scene(60, 4, 2), camera(width=24, height=24)
    few = rasterise(gaussians, view)
    monkeypatch.setattr(backend, "MOST_SHORT_TILES", 1)
    assert torch.equal(rasterise(gaussians, view).features, few.features)
