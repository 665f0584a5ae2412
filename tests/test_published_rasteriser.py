"""Tests of the rasteriser against the published one (fixture g), and of the rules in which the two differ."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import parity_rule
import pytest
import torch

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering import reference
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.rules import OUR_RULES, PUBLISHED_RULES, RasterRules

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "g_cameras.npz")
CAMERAS = range(3)


def stored(name: str) -> torch.Tensor:
    return torch.from_numpy(FIXTURE[name])


def camera(index: int) -> Camera:
    return Camera.from_pytorch3d(stored("cameras")[index : index + 1])


def published_gaussians() -> Gaussians:
    """200 Gaussians as the published code hands them over: negative scales, quaternions of lengths 0.01 to 2.8."""
    colours = torch.from_numpy(parity_rule.normal("in/g/colors", (200, 32)))
    fields = stored("world"), stored("quat"), stored("scales"), stored("opacity")[:, 0], colours
    return Gaussians(*[field[None] for field in fields])


def upper(matrices: torch.Tensor) -> torch.Tensor:
    """Elements of the upper triangle, row by row."""
    rows, columns = torch.triu_indices(*matrices.shape[-2:])
    return matrices[:, rows, columns]


def projected(index: int) -> torch.Tensor:
    view, gaussians = camera(index), published_gaussians()
    covariance = reference.covariances(gaussians.quats[0], gaussians.scales[0])
    rotated = view.rotation @ covariance @ view.rotation.transpose(-1, -2)
    return reference.projected_covariances(view.to_camera_space(gaussians.means)[0], rotated, view)


@pytest.mark.parametrize("index", CAMERAS)
def test_centres_equal_the_published_ones(index: int) -> None:
    means = published_gaussians().means
    in_view = camera(index).to_camera_space(means)[0]
    torch.testing.assert_close(in_view, stored(f"cam{index}_p_view"), atol=1e-5, rtol=0)
    pixels = camera(index).project(means)[0] - 0.5  # there pixel (0, 0) lies at (0, 0)
    torch.testing.assert_close(pixels, stored(f"cam{index}_pixel"), atol=8e-4, rtol=0)
    assert torch.equal(camera(index).world_to_camera[0], stored("view_matrix")[index].T)
    # their matrix to homogeneous coordinates, whose image goes from -1 to 1
    seen = torch.cat([means[0], torch.ones(200, 1)], dim=1) @ stored("full_proj_matrix")[index]
    torch.testing.assert_close(seen, stored(f"cam{index}_p_hom"), atol=1e-4, rtol=0)
    homogeneous = ((seen[:, :2] / (seen[:, 3:] + 1e-7) + 1) * 512 - 1) / 2
    torch.testing.assert_close(pixels, homogeneous, atol=2e-3, rtol=0)


@pytest.mark.parametrize("index", CAMERAS)
def test_covariances_equal_the_published_ones(index: int) -> None:
    gaussians = published_gaussians()
    covariance = reference.covariances(gaussians.quats[0], gaussians.scales[0])
    torch.testing.assert_close(upper(covariance), stored(f"cam{index}_cov3D"), atol=3e-7, rtol=0)
    in_px = projected(index)
    torch.testing.assert_close(upper(in_px), stored(f"cam{index}_cov2D"), atol=2.8e-2, rtol=0)
    seen = stored(f"cam{index}_radius") > 0
    conics = upper(torch.linalg.inv(in_px))[seen]
    torch.testing.assert_close(conics, stored(f"cam{index}_conic")[seen], atol=3e-4, rtol=0)


@pytest.mark.parametrize("index", CAMERAS)
def test_squares_and_their_tiles_equal_the_published_ones(index: int) -> None:
    view = camera(index)
    radii = reference.square_radii(projected(index))
    tiles = reference.square_tiles(view.project(published_gaussians().means)[0], radii, view)
    touched = (tiles[:, 0] < tiles[:, 2]) & (tiles[:, 1] < tiles[:, 3])
    assert 0 < touched.sum() < 200
    assert torch.equal(torch.where(touched, radii, 0.0).int(), stored(f"cam{index}_radius"))
    assert torch.equal(tiles[touched].int(), stored(f"cam{index}_rect")[touched])


def picture_errors(rules: RasterRules) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute errors of the sampled features and transmittances of camera 0."""
    image = rasterise(published_gaussians(), camera(0), rules)
    errors = []
    for name, values in (("image", image.features[0]), ("final_T", 1 - image.alpha[0, 0])):
        assert tuple(values.shape) == tuple(FIXTURE[f"cam0_{name}__shape"].tolist())
        sampled = values.flatten()[stored(f"cam0_{name}__idx").long()]
        errors.append((sampled - stored(f"cam0_{name}__val")).abs())
    return errors[0], errors[1]


def test_picture_equals_the_published_one() -> None:
    # A threshold that falls on the other side moves a pixel by up to 5e-3, so the mean is what counts.
    for error in picture_errors(PUBLISHED_RULES):
        assert error.mean() < 2e-6
        assert (error > 1e-3).float().mean() < 1e-3


@pytest.mark.parametrize(
    ("rules", "least", "most"),
    [
        (OUR_RULES, 3e-5, 2e-4),  # a GPU, whose rules are ours, is off by as much
        (replace(PUBLISHED_RULES, max_alpha=OUR_RULES.max_alpha), 3e-5, 2e-4),
        (replace(PUBLISHED_RULES, square_extent=False), 5e-6, 3e-5),
    ],
)
def test_other_rules_draw_another_picture(rules: RasterRules, least: float, most: float) -> None:
    for error in picture_errors(rules):
        assert least < error.mean() < most


def one_gaussian(opacity: float, scale: float) -> Gaussians:
    return Gaussians(
        means=torch.zeros(1, 1, 3),
        quats=torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]),
        scales=torch.full((1, 1, 3), scale),
        opacities=torch.full((1, 1), opacity),
        features=torch.ones(1, 1, 4),
    )


@pytest.mark.parametrize("render", [rasterise, reference.rasterise])
def test_alpha_is_capped_and_passes_no_gradient_there(render) -> None:
    for rules, cap in ((OUR_RULES, 0.999), (PUBLISHED_RULES, 0.99)):
        gaussians = one_gaussian(1.2, 0.4)
        gaussians.opacities.requires_grad_()
        peak = render(gaussians, camera(0).resized(32), rules).alpha.max()
        assert abs(peak - cap) < 1e-6
        peak.backward()
        assert gaussians.opacities.grad == 0


@pytest.mark.parametrize("render", [rasterise, reference.rasterise])
def test_a_pixel_stops_at_the_second_capped_gaussian(render) -> None:
    # (1 - 0.99)^2 in float32 is just below 1e-4.
    front, behind = one_gaussian(1.2, 0.6), one_gaussian(1.2, 0.6)
    behind = Gaussians(
        behind.means - torch.tensor([0.0, 0.0, 0.5]),
        behind.quats,
        behind.scales,
        behind.opacities,
        behind.features,
    )
    for pair in ([front, behind], [behind, front]):
        image = render(Gaussians.concatenate(pair), camera(0).resized(32), PUBLISHED_RULES)
        assert abs(image.alpha[0, 0, 16, 16] - 0.99) < 1e-6


@pytest.mark.parametrize("render", [rasterise, reference.rasterise])
def test_square_extent_ends_at_a_tile(render) -> None:
    # sqrt((0.005 * 3072 / 9)^2 + 0.3) = 1.8 px: a square of +-6 px around x = 248.7, which its tile, columns 240 to
    # 255, holds; alpha falls below 1/255 at 3.3 * 1.8 = 5.9 px. One of twice the size and +-11 px touches two more.
    view = camera(0)
    narrow, wide = (render(one_gaussian(1.0, s), view, PUBLISHED_RULES).alpha[0, 0] for s in (0.005, 0.01))
    assert narrow.any(0).nonzero().flatten().tolist() == list(range(243, 255))
    columns = wide.any(0).nonzero().flatten()
    assert columns.min() >= 224 and columns.max() < 272


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_features_of_another_type_are_computed_in_float32(dtype: torch.dtype) -> None:
    gaussians, view = published_gaussians(), camera(0).resized(64)
    features = gaussians.features.to(dtype).requires_grad_()
    parts = gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities
    image = rasterise(Gaussians(*parts, features), view)
    expected = rasterise(Gaussians(*parts, features.detach().float()), view)
    assert torch.equal(image.features, expected.features)
    image.features.sum().backward()
    assert features.grad is not None and features.grad.dtype == dtype and features.grad.abs().sum() > 0
