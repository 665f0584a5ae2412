"""Tests of the camera's conventions: axes, pixels, windows and the lifting plane, by hand-made cases."""

import pytest
import torch

from sdtalk.camera import FACING, FOCAL_PX, Camera
from sdtalk.gaussians import GaussianDelta, Gaussians


def facing_camera(distance: float = 10.0) -> Camera:
    return Camera.from_pose(FACING[None], torch.tensor([[0.0, 0.0, distance]]))


def random_camera() -> Camera:
    rotation = torch.linalg.qr(torch.randn(2, 3, 3)).Q
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    return Camera.from_pose(rotation, torch.tensor([[0.1, -0.2, 9.0], [0.0, 0.3, 11.0]]))


def test_the_subjects_left_is_on_the_right_of_the_image_and_up_is_up() -> None:
    pixels = facing_camera().project(torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]]]))[0]
    torch.testing.assert_close(pixels[0], torch.tensor([256.0, 256.0]))
    step = FOCAL_PX * 0.1 / 10
    torch.testing.assert_close(pixels[1] - pixels[0], torch.tensor([step, 0.0]))
    torch.testing.assert_close(pixels[2] - pixels[0], torch.tensor([0.0, -step]))


def test_camera_space_and_head_space_are_inverse() -> None:
    camera, points = random_camera(), torch.randn(2, 7, 3)
    torch.testing.assert_close(
        camera.to_head_space(camera.to_camera_space(points)), points, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        camera.to_camera_space(camera.centre[:, None]), torch.zeros(2, 1, 3), atol=1e-4, rtol=0
    )


def test_plane_points_project_to_the_centres_of_their_cells_and_lie_on_the_plane() -> None:
    camera = random_camera()
    plane = camera.lifting_plane(4)
    cells = (torch.arange(4) + 0.5) * 128
    expected = (
        torch.stack(torch.meshgrid(cells, cells, indexing="xy"), -1).reshape(1, 16, 2).expand(2, -1, -1)
    )
    torch.testing.assert_close(camera.project(plane), expected, atol=2e-2, rtol=0)
    heights = (plane * camera.plane_normal[:, None]).sum(-1)
    torch.testing.assert_close(heights, torch.zeros(2, 16), atol=1e-4, rtol=0)


def test_a_window_and_another_size_show_the_same_pixels() -> None:
    camera, points = random_camera(), torch.randn(2, 5, 3) * 0.3
    pixels = camera.project(points)
    window = camera.window(100, 60, 320)
    assert (window.width, window.height) == (320, 320)
    torch.testing.assert_close(window.project(points), pixels - torch.tensor([100.0, 60.0]))
    torch.testing.assert_close(camera.resized(256).project(points), pixels / 2)


def test_every_camera_can_have_a_window_of_its_own() -> None:
    camera, points = random_camera(), torch.randn(2, 5, 3) * 0.3
    windows = camera.window(torch.tensor([100, -7]), torch.tensor([60, 0]), 320)
    for i, (left, top) in enumerate(((100, 60), (-7, 0))):
        alone = camera[i : i + 1].window(left, top, 320)
        assert torch.equal(windows.intrinsics[i : i + 1], alone.intrinsics)
        assert torch.equal(windows.project(points)[i], alone.project(points[i : i + 1])[0])
    mixed = camera.window(torch.tensor([100, -7]), 60, 320)
    assert torch.equal(mixed.intrinsics[:, 0], windows.intrinsics[:, 0])
    assert mixed.intrinsics[:, 1, 2].tolist() == [196.0, 196.0]
    with pytest.raises((RuntimeError, TypeError)):
        camera.window(torch.tensor([1, 2, 3]), 0, 320)


def test_motion_keeps_every_attribute_in_its_domain() -> None:
    count = 6
    still = Gaussians(
        torch.zeros(1, count, 3),
        torch.tensor([1.0, 0, 0, 0]).expand(1, count, 4),
        torch.full((1, count, 3), 0.01),
        torch.full((1, count), 0.5),
        torch.rand(1, count, 8),
    )
    wild = GaussianDelta(*(torch.randn(3, count, *n) * 5 for n in ((3,), (4,), (3,), ())))
    moved = still.moved_by(wild)
    torch.testing.assert_close(moved.quats.norm(dim=-1), torch.ones(3, count))
    assert (moved.scales > 0).all() and moved.opacities.min() >= 0 and moved.opacities.max() <= 1
    assert moved.features.shape == (3, count, 8)
