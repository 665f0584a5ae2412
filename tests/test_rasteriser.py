"""Tests of the compiled rasteriser: against its slow reference, and properties of any rasteriser."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
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
from sdtalk.errors import InputError
from sdtalk.gaussians import Gaussians
from sdtalk.rendering import gsplat, reference
from sdtalk.rendering.cpu.backend import contributions
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.rules import HALF_RATE_RULES, OUR_RULES, PUBLISHED_RULES, FeatureImage, RasterRules


def assert_same(gaussians: Gaussians, view: Camera, rules: RasterRules = OUR_RULES) -> None:
    assert_equals_reference(rasterise, gaussians, view, rules)


@pytest.mark.parametrize("rules", [OUR_RULES, PUBLISHED_RULES])
@pytest.mark.parametrize("seed", range(4))
def test_random_scenes_equal_the_reference(seed: int, rules: RasterRules) -> None:
    assert_same(scene(250, 7, seed), camera(), rules)


@pytest.mark.parametrize("rules", [OUR_RULES, PUBLISHED_RULES])
@pytest.mark.parametrize("seed", range(4))
def test_awkward_scenes_equal_the_reference(seed: int, rules: RasterRules) -> None:
    assert_same(hard_scene(5, seed), camera(), rules)


@pytest.mark.parametrize("rules", [OUR_RULES, PUBLISHED_RULES])
@pytest.mark.parametrize("seed", range(4))
def test_raw_sums_equal_the_reference(seed: int, rules: RasterRules) -> None:
    assert_same(raw_scene(250, 5, seed), camera(width=103, height=71), rules)


@pytest.mark.parametrize("channels", [4, 7, 32])
def test_channels(channels: int) -> None:
    assert_same(scene(100, channels, 0), camera(width=32, height=32))


def test_another_dilation_equals_the_reference() -> None:
    assert_same(hard_scene(5, 1), camera(), HALF_RATE_RULES)


def test_contributions_are_the_sums_of_the_weights() -> None:
    """Which are the gradient of a picture of ones to the features."""
    gaussians, view = hard_scene(1, 2), camera()
    ones = torch.ones_like(gaussians.features, requires_grad=True)
    reference.rasterise(replace(gaussians, features=ones), view).features.sum().backward()
    assert ones.grad is not None
    found = contributions(gaussians, view)
    torch.testing.assert_close(found, ones.grad[0, :, 0], atol=1e-3, rtol=1e-3)
    assert (found == 0).any() and (found > 1).any()


def test_image_need_not_be_square_or_whole_tiles() -> None:
    assert_same(scene(150, 4, 3), camera(width=71, height=37))


@pytest.mark.parametrize("sets", [1, 3])
def test_batch(sets: int) -> None:
    gaussians, view = scene(80, 4, 5, batch=sets), camera(batch=3, width=32, height=32)
    assert_same(gaussians, view)
    assert_batch_is_its_views(rasterise, gaussians, view)


def test_batches_must_fit() -> None:
    with pytest.raises(ValueError, match="2 sets of Gaussians do not fit 3 cameras"):
        rasterise(scene(5, 4, 0, batch=2), camera(batch=3))


def test_quaternions_are_used_as_given() -> None:
    gaussians = scene(60, 4, 6)
    assert_same(
        Gaussians(
            gaussians.means, 0.5 * gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features
        ),
        camera(),
    )


def test_gradients_of_the_reference() -> None:
    gaussians, view = scene(3, 2, 2), camera(width=6, height=6)
    view = Camera(view.world_to_camera.double(), view.intrinsics.double(), 6, 6)
    leaves = [getattr(gaussians, f.name).double().requires_grad_() for f in fields(Gaussians)]
    # Wide and low, so that no alpha crosses a threshold within gradcheck's step.
    leaves[2] = (leaves[2].detach() * 8 + 0.3).requires_grad_()
    leaves[3] = (leaves[3].detach() * 0.5 + 0.2).requires_grad_()

    def render(*values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = reference.rasterise(Gaussians(*values), view)
        return image.features, image.alpha

    assert torch.autograd.gradcheck(render, leaves, atol=1e-6)


def one(mean: list[float], opacity: float, colour: float, scale: float = 0.05) -> Gaussians:
    return Gaussians(
        means=torch.tensor([[mean]]),
        quats=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        scales=torch.full((1, 1, 3), scale),
        opacities=torch.full((1, 1), opacity),
        features=torch.full((1, 1, 4), colour),
    )


def test_centroid_is_where_the_camera_projects_the_mean() -> None:
    gaussians, view = one([0.12, 0.07, 0.3], 0.9, 1.0), camera()
    weights = rasterise(gaussians, view).alpha[0, 0]
    centres = torch.arange(SIZE) + 0.5
    total = weights.sum()
    centroid = torch.stack(
        [(weights.sum(0) * centres).sum() / total, (weights.sum(1) * centres).sum() / total]
    )
    torch.testing.assert_close(centroid, view.project(gaussians.means)[0, 0], atol=0.02, rtol=0)


def test_nearer_of_two_opaque_gaussians_wins() -> None:
    near, far = one([0.0, 0.0, 1.0], 1.0, 5.0, scale=0.3), one([0.0, 0.0, -1.0], 1.0, -3.0, scale=0.3)
    for order in ([near, far], [far, near]):
        image = rasterise(Gaussians.concatenate(order), camera())
        assert image.features[0, :, SIZE // 2, SIZE // 2].sub(5.0).abs().max() < 0.05


def test_at_equal_depth_the_first_is_in_front() -> None:
    pair = [one([0.0, 0.0, 0.0], 0.999, 1.0, scale=0.3), one([0.0, 0.0, 0.0], 0.999, 2.0, scale=0.3)]
    for order, first in ((pair, 1.0), (pair[::-1], 2.0)):
        value = rasterise(Gaussians.concatenate(order), camera()).features[0, 0, SIZE // 2, SIZE // 2]
        assert abs(value - first) < 0.05


def test_invisible_gaussians_leave_nothing() -> None:
    for gaussians in (one([0.0, 0.0, 0.0], 0.0, 1.0), one([0.0, 0.0, 2 * DISTANCE], 1.0, 1.0)):
        image = rasterise(gaussians, camera())
        assert not image.features.any() and not image.alpha.any()


def test_weights_and_transmittance_sum_to_one() -> None:
    gaussians = hard_scene(4, 1)
    constant = Gaussians(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        torch.ones_like(gaussians.features),
    )
    image = rasterise(constant, camera())
    torch.testing.assert_close(image.features, image.alpha.expand_as(image.features), atol=1e-5, rtol=0)
    assert 0 <= image.alpha.min() and image.alpha.max() <= 1


def test_results_repeat_whatever_the_threads() -> None:
    gaussians, view = scene(300, 8, 7), camera(width=100, height=90)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2, 3):
            torch.set_num_threads(count)
            results.append(with_gradients(rasterise, gaussians, view, torch.float32))
    finally:
        torch.set_num_threads(threads)
    for image, grads in results[1:]:
        assert torch.equal(image.features, results[0][0].features)
        assert all(torch.equal(grads[name], results[0][1][name]) for name in grads)


def test_calls_from_two_threads_do_not_mix() -> None:
    view = camera(width=96, height=96)
    scenes = [scene(200, 8, seed) for seed in range(2)]
    alone = [with_gradients(rasterise, g, view, torch.float32) for g in scenes]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(with_gradients, rasterise, scenes[i % 2], view, torch.float32) for i in range(20)]
    for index, job in enumerate(jobs):
        image, grads = job.result()
        assert torch.equal(image.features, alone[index % 2][0].features)
        assert all(torch.equal(grads[name], alone[index % 2][1][name]) for name in grads)


def test_diverged_gaussians_are_dropped() -> None:
    gaussians = scene(50, 4, 8)
    broken = gaussians.means.clone()
    broken[0, :5] = float("nan")
    scales = gaussians.scales.clone()
    scales[0, 5:10] = float("inf")
    image, grads = with_gradients(
        rasterise,
        Gaussians(broken, gaussians.quats, scales, gaussians.opacities, gaussians.features),
        camera(),
        torch.float32,
    )
    assert image.features.isfinite().all()
    assert all(grad.isfinite().all() for grad in grads.values())


def test_no_gaussians_give_an_empty_image() -> None:
    image, grads = with_gradients(rasterise, scene(0, 4, 0), camera(), torch.float32)
    assert image.features.shape == (1, 4, SIZE, SIZE) and not image.features.any()
    assert grads["means"].shape == (1, 0, 3)


def test_gsplat_that_cannot_run_says_what_to_do() -> None:
    if torch.cuda.is_available() and importlib.util.find_spec("gsplat"):
        pytest.skip("gsplat can run here")
    with pytest.raises(InputError, match="rasteriser gsplat.*nvcc.*choose the rasteriser triton"):
        gsplat.load()


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and importlib.util.find_spec("gsplat")),
    reason="needs a CUDA device and gsplat",
)
@pytest.mark.parametrize("sets", [1, 3])
@pytest.mark.parametrize("make", [scene, raw_scene])
def test_gsplat_equals_the_compiled_kernels(make, sets: int) -> None:
    gaussians, view = make(250, 32, 0, batch=sets), camera(batch=3)

    def on_cuda(g: Gaussians, c: Camera, rules: RasterRules) -> FeatureImage:
        image = rasterise(g.to("cuda"), c.to("cuda"), rules, on_cuda="gsplat")
        return FeatureImage(image.features.cpu(), image.alpha.cpu())

    ours, our_grads = with_gradients(rasterise, gaussians, view, torch.float32)
    theirs, their_grads = with_gradients(on_cuda, gaussians, view, torch.float32)
    # Its fast exponential decides some thresholds otherwise, each up to 4e-3 at one pixel.
    error = (theirs.features - ours.features).abs()
    assert error.mean() < 1e-4 and (error > 1e-3).float().mean() < 0.01
    for name, expected in our_grads.items():
        difference = (their_grads[name] - expected).norm() / expected.norm()
        assert difference < 2e-2, f"gradient of {name} is off by {difference:.1e}"
