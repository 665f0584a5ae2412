"""Tests of the photo as a texture: where pixels come from in it, and that nothing of it is lost at rest."""

import numpy as np
import pytest
import torch
from toy import EXAMPLE

from sdtalk.camera import FACING, Camera
from sdtalk.driving import DrivingSignals
from sdtalk.gaussians import Gaussians
from sdtalk.live.renderer import THIN, LiveRenderer
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.reconstruction.activations import RGB, SOURCE
from sdtalk.rendering import reference
from sdtalk.rendering.cpu import finishing
from sdtalk.rendering.cpu.backend import blended, padded_few, prepared
from sdtalk.rendering.photo_texture import (
    PhotoPlaces,
    from_shifts,
    photo_detail,
    rasterise_by_shift,
    textured,
)
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.stopwatch import Stopwatch

SIDE, MARGIN = 48, 4


@pytest.fixture
def photo() -> Camera:
    """The camera of a photo with its margin."""
    translation = torch.tensor([[0.05, -0.02, 10.0]])
    return Camera.from_pose(FACING[None], translation, SIDE).with_margin(MARGIN)


def people(photo: Camera, count: int = 900, channels: int = 6) -> Gaussians:
    """Gaussians that know where in the photo they are, but for a third, which do not come from it."""
    torch.manual_seed(0)
    pixels = torch.rand(1, count, 2) * photo.width
    rays = torch.cat([pixels, torch.ones(1, count, 1)], -1) @ torch.linalg.inv(photo.intrinsics).mT
    means = photo.to_head_space(rays * (10 + 0.5 * torch.rand(1, count, 1)))
    weight = (torch.rand(1, count, 1) > 1 / 3).float()
    place = pixels / photo.width * 2 - 1
    rest = torch.rand(1, count, channels - 6)
    return Gaussians(
        means=means,
        quats=torch.nn.functional.normalize(torch.randn(1, count, 4), dim=-1),
        scales=0.01 + 0.03 * torch.rand(1, count, 3),
        opacities=torch.rand(1, count),
        features=torch.cat([torch.rand(1, count, 3), place * weight, weight, rest], -1),
    )


def places_of(source: torch.Tensor) -> torch.Tensor:
    """Where pixels come from [pixel, 2], of those that come from the photo."""
    return (source[:, :2] / source[:, 2:]).movedim(1, -1)[source[:, 2] > 0.05]


def pixels_of(camera: Camera) -> torch.Tensor:
    rows, columns = (torch.arange(n) + 0.5 for n in (camera.height, camera.width))
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


@pytest.mark.parametrize(
    "seen", [lambda c: c, lambda c: c.window(5, 9, 20), lambda c: c.resized(24), lambda c: c.with_margin(3)]
)
def test_places_are_where_the_photo_has_what_a_camera_sees(photo, seen) -> None:
    camera, points = seen(photo), people(photo).means
    wanted = photo.project(points) / photo.width * 2 - 1
    found = PhotoPlaces.of(camera, photo).at(camera.project(points))
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_at_rest_every_pixel_comes_from_itself(photo) -> None:
    picture = rasterise_by_shift(people(photo), photo, photo)
    source = picture.features[:, SOURCE]
    own = (pixels_of(photo) / photo.width * 2 - 1)[source[0, 2] > 0.05]
    assert len(own) > 1000
    torch.testing.assert_close(places_of(source), own, atol=2e-5, rtol=0)
    # blended as places, pixels between two centres miss by half a pixel
    blurred = places_of(rasterise(people(photo), photo).features[:, SOURCE])
    assert (blurred - own).abs().mean() * photo.width / 2 > 0.4


def test_what_moved_as_one_comes_from_beside_itself(photo) -> None:
    moved = photo.window(-3, 2, photo.width)  # everything is drawn 3 px further right and 2 px further up
    gaussians = people(photo)
    features = rasterise_by_shift(gaussians, moved, photo).features
    torch.testing.assert_close(features[:, RGB], rasterise(gaussians, moved).features[:, RGB])
    source = features[:, SOURCE]
    wanted = pixels_of(moved) + torch.tensor([-3.0, 2.0])
    wanted = (wanted / photo.width * 2 - 1)[source[0, 2] > 0.05]
    torch.testing.assert_close(places_of(source), wanted, atol=2e-5, rtol=0)


def test_shifts_are_those_of_the_reference_rasteriser(photo) -> None:
    gaussians = people(photo, 200, channels=9)
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.eye(3) + 0.05 * torch.randn(3, 3))[0]
    turn = turn * torch.sign(torch.diagonal(turn))
    camera = Camera.from_pose((FACING @ turn)[None], torch.tensor([[0.1, 0.05, 10.2]]), SIDE)
    picture = rasterise_by_shift(gaussians, camera, photo)
    plain = rasterise(gaussians, camera)
    torch.testing.assert_close(picture.alpha, plain.alpha)
    others = [0, 1, 2, 5, 6, 7, 8]
    torch.testing.assert_close(picture.features[:, others], plain.features[:, others])
    # each Gaussian by itself, summed up in float64: weights by the reference, from one channel per Gaussian
    weights = reference.rasterise(
        Gaussians(
            *(x.double() for x in vars(gaussians).values() if x is not gaussians.features),
            torch.eye(200)[None].double(),
        ),
        Camera(camera.world_to_camera.double(), camera.intrinsics.double(), SIDE, SIDE),
    ).features[0]
    place, weight = gaussians.features[0, :, 3:5].double(), gaussians.features[0, :, 5:6].double()

    def in_photo(px: torch.Tensor) -> torch.Tensor:
        return (px + MARGIN) / photo.width * 2 - 1

    shifts = place - weight * in_photo(camera.project(gaussians.means)[0].double())
    wanted = torch.einsum("nhw,nc->hwc", weights, shifts)
    wanted += torch.einsum("nhw,nc->hwc", weights, weight) * in_photo(pixels_of(camera).double())
    torch.testing.assert_close(picture.features[0, 3:5].movedim(0, -1).double(), wanted, atol=3e-5, rtol=0)


def test_where_a_gaussian_is_drawn_has_a_gradient(photo) -> None:
    gaussians = people(photo, 100)
    means = gaussians.means.clone().requires_grad_()
    moved = Gaussians(means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features)
    texture = torch.rand(1, 3, photo.width, photo.width)
    picture = rasterise_by_shift(moved, photo, photo)
    (textured(picture.features[:, SOURCE], texture) ** 2).sum().backward()
    assert torch.isfinite(means.grad).all() and means.grad.abs().sum() > 0


def test_kernels_add_textures_as_plain_pytorch_does(photo) -> None:
    gaussians = people(photo)
    nearer = photo.world_to_camera - torch.tensor([0.0, 0, 0, 0.2]) * torch.eye(4)[2:3].T
    camera = Camera(nearer, photo.intrinsics, photo.width, photo.height).window(2, -1, 40)
    texture = torch.rand(1, 3, photo.width, photo.width) - 0.5
    picture = rasterise_by_shift(gaussians, camera, photo)
    alpha = picture.alpha
    closed = torch.where(1 - alpha < THIN, 1 - (1 - alpha) ** 3 / THIN**2, alpha)
    colours = picture.features[:, RGB] + textured(picture.features[:, SOURCE], texture)
    wanted = colours * closed / alpha.clamp_min(1e-9) * (alpha > 0)

    features = torch.from_numpy(padded_few(gaussians.features[0]))
    geometry = [
        x[0].numpy() for x in (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities)
    ]
    view, shifted = prepared(tuple(geometry), camera), features.clone()
    places = PhotoPlaces.of(camera, photo)
    place = places.of_whole_pixels(0)
    finishing.shift_sources(0, len(features), features.numpy(), view.splats, place, shifted.numpy())
    rasterised, opaque = blended(view, shifted)
    rows = torch.cat([texture, texture[:, :1]], 1)[0].permute(1, 2, 0).contiguous().numpy()
    found = np.empty((4, 40, 40), np.float32)
    finishing.add_texture(0, 40, rasterised.numpy(), opaque[0].numpy(), rows, place, np.float32(THIN), found)
    sure = (picture.features[:, 5:6] > 1e-3).expand(-1, 3, -1, -1)[0]
    torch.testing.assert_close(torch.from_numpy(found[:3])[sure], wanted[0][sure], atol=2e-4, rtol=0)
    source = from_shifts(rasterised[None, SOURCE], places)
    torch.testing.assert_close(source, picture.features[:, SOURCE], atol=2e-5, rtol=0)


def test_texture_beyond_the_border_is_added_as_plain_pytorch_does() -> None:
    torch.manual_seed(0)
    alpha = torch.rand(1, 1, 24, 40).where(torch.rand(1, 1, 24, 40) > 0.3, 0)
    weight = alpha * torch.rand(1, 1, 24, 40).where(torch.rand(1, 1, 24, 40) > 0.2, 0)
    place = (torch.rand(1, 2, 24, 40) * 2.4 - 1.2) * weight  # also beyond the photo's border
    colours, texture = torch.rand(1, 3, 24, 40) * alpha, torch.rand(1, 3, 30, 30) - 0.5
    source = torch.cat([place, weight], 1)
    closed = torch.where(1 - alpha < THIN, 1 - (1 - alpha) ** 3 / THIN**2, alpha)
    wanted = (colours + textured(source, texture)) * (closed / alpha.clamp_min(1e-9)) * (alpha > 0)
    rows = torch.cat([texture, torch.zeros(1, 1, 30, 30)], 1)[0].permute(1, 2, 0).contiguous().numpy()
    picture = np.empty((4, 24, 40), np.float32)
    planes = torch.cat([colours, source], 1)[0].numpy(), alpha[0, 0].numpy()
    places = PhotoPlaces.nowhere(1).of_whole_pixels(0)
    finishing.add_texture(0, 24, *planes, rows, places, np.float32(THIN), picture)
    # where next to nothing comes from the photo, plain PyTorch divides by a floor
    sure = ((weight > 1e-3) | (weight == 0))[0].expand(3, -1, -1)
    torch.testing.assert_close(torch.from_numpy(picture[:3])[sure], wanted[0][sure], atol=2e-5, rtol=0)
    torch.testing.assert_close(torch.from_numpy(picture[3]), closed[0, 0] * (alpha[0, 0] > 0))


def test_nowhere_leaves_places_as_they_are() -> None:
    source = torch.rand(2, 3, 5, 7)
    assert torch.equal(from_shifts(source, PhotoPlaces.nowhere(2)), source)
    assert PhotoPlaces.nowhere(2).of_whole_pixels(1) == (0, 0, 0, 0)


def test_with_what_colours_miss_of_it_a_photo_comes_back_whole(photo) -> None:
    gaussians = people(photo, 4000)
    image = 0.4 + 0.2 * torch.rand(1, 3, photo.width, photo.width)
    detail = photo_detail(image, gaussians, photo)
    picture = rasterise_by_shift(gaussians, photo, photo)
    found = picture.features[:, RGB] + textured(picture.features[:, SOURCE], detail)
    exact = (picture.features[:, 5:6] > 0.3) & (detail.abs() < 0.49).all(1, keepdim=True)
    assert exact.float().mean() > 0.5
    difference = (found - image * picture.alpha).abs().amax(1, keepdim=True)[exact]
    assert difference.max() < 1e-3


@torch.inference_mode()
def test_minis_own_state_is_the_photo() -> None:
    pipeline = SDTalkPipeline.from_pretrained("mini", device="cpu")
    head = pipeline.reconstruct(EXAMPLE).gaussians
    margin = pipeline.model.config.margin_px
    image = head.photo.image[..., margin:-margin, margin:-margin]
    animated = pipeline.model.animate(head, head.audio_code, head.eyes)
    exact = pipeline.model.render(head, animated, head.rest)
    signals = DrivingSignals(head.audio_code, head.eyes, head.rest, SmallMotion.none(1))
    live = LiveRenderer(pipeline.model, head, signals).pictures(signals, Stopwatch())
    for colours, alpha in ((exact.colours, exact.alpha), (live[:, :3], live[:, 3:])):
        shown = (alpha > 0.98).expand(-1, 3, -1, -1)
        assert shown.float().mean() > 0.3
        psnr = -10 * (colours - image)[shown].square().mean().log10()
        assert psnr > 48
