"""Tests of the driving signals: head motion, blinks, and pose followed from a video."""

import pytest
import torch
from toy import toy_track

from sdtalk.camera import Camera
from sdtalk.driving import (
    CLOSED_GAP,
    GAPS,
    followed_cameras,
    followed_eyes,
    followed_mouth,
    forth_and_back,
    idle_cameras,
    natural_blinks,
)

REST = toy_track().camera
EYES = torch.tensor([[0.05, 0.06, 0.15, 0.04, 0.05, 0.16]])


def degrees_from(rest: Camera, camera: Camera) -> torch.Tensor:
    turn = rest.rotation.transpose(1, 2) @ camera.rotation
    trace = turn.diagonal(dim1=1, dim2=2).sum(1)
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())


@pytest.mark.parametrize("seed", range(4))
def test_idle_motion_is_small_smooth_and_starts_at_the_photo(seed: int) -> None:
    camera = idle_cameras(REST, torch.ones(1500), seed)
    angle = degrees_from(REST, camera)
    assert angle[0] < 0.05 and 1 < angle.max() < 8 and angle.mean() < 3.5
    assert degrees_from(camera[:-1], camera[1:]).max() < 0.5  # a frame; 12 degrees a second
    assert (camera.translation - REST.translation).norm(dim=1).max() < 0.15  # 3 cm
    identity = camera.rotation @ camera.rotation.transpose(1, 2)
    torch.testing.assert_close(identity, torch.eye(3).expand_as(identity), atol=1e-5, rtol=0)


def test_idle_motion_has_no_jitter() -> None:
    place = idle_cameras(REST, torch.zeros(1000), 0).project(
        torch.tensor([[[0.0, 0.16, 0.3]]]).repeat(1000, 1, 1)
    )
    shake = place - torch.nn.functional.avg_pool1d(place[:, 0].T, 5, 1, 2, count_include_pad=False).T[:, None]
    assert shake[5:-5].std() < 0.02  # px of a frame of 64 px


def test_the_seed_decides() -> None:
    level = torch.ones(100)
    first, again, other = (idle_cameras(REST, level, s).world_to_camera for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    first, again, other = (natural_blinks(EYES, 500, s) for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_blinks_come_every_two_to_six_seconds_and_are_short() -> None:
    eyes = natural_blinks(EYES, 25 * 120, 0)
    share = eyes[:, 0] / EYES[0, 0]
    torch.testing.assert_close(eyes[:, GAPS], EYES[:, GAPS] * share[:, None])
    assert torch.equal(eyes[:, [2, 5]], EYES[:, [2, 5]].expand(len(eyes), -1)), "width stays"
    assert share[0] == 1 and share.min() < CLOSED_GAP + 0.3 and share.max() == 1
    closing = (share < 1).int()
    starts = (closing.diff() == 1).nonzero()[:, 0]
    ends = (closing.diff() == -1).nonzero()[:, 0]
    gaps = starts.diff() / 25
    assert 15 < len(starts) < 60 and gaps.min() > 1.9 and gaps.max() < 6.5
    assert (ends - starts[: len(ends)]).max() <= 9


def test_forth_and_back_never_jumps() -> None:
    assert forth_and_back(4, 9).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert forth_and_back(1, 3).tolist() == [0, 0, 0] and forth_and_back(2, 4).tolist() == [0, 1, 0, 1]


def driver(frames: int = 40) -> Camera:
    """A head that somebody filmed from the side and from farther away."""
    swing = idle_cameras(REST, torch.zeros(frames), 7)
    angle = torch.tensor(0.4)
    aside = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    return Camera.from_pose(swing.rotation @ aside, swing.translation + torch.tensor([0.3, 0.1, 4.0]))


def test_a_still_video_leaves_the_pose_of_the_photo() -> None:
    still = driver()[torch.zeros(10, dtype=torch.long)]
    camera = followed_cameras(REST, still, 25)
    torch.testing.assert_close(
        camera.world_to_camera, REST.world_to_camera.repeat(25, 1, 1), atol=1e-5, rtol=0
    )


def test_poses_of_a_video_are_relative_to_its_own_mean() -> None:
    camera = followed_cameras(REST, driver(), 40)
    assert degrees_from(REST, camera).mean() < 4, "the side view is not taken over"
    torch.testing.assert_close(
        degrees_from(camera[:1], camera), degrees_from(driver()[:1], driver()), atol=0.1, rtol=0
    )
    torch.testing.assert_close(camera.translation.mean(0), REST.translation[0], atol=1e-4, rtol=0)
    assert len(followed_cameras(REST, driver(), 100)) == 100 and camera.width == REST.width


def test_eyes_of_a_video_count_relative_to_their_median() -> None:
    wide = torch.tensor([[0.1, 0.1, 0.3, 0.1, 0.1, 0.3]]).repeat(5, 1)
    wide[2, GAPS] = 0.01
    eyes = followed_eyes(EYES, wide, 8)
    assert torch.equal(eyes[0], EYES[0])
    torch.testing.assert_close(eyes[2, GAPS], EYES[0, GAPS] / 10)
    assert torch.equal(eyes[2, [2, 5]], EYES[0, [2, 5]])


def test_a_followed_mouth_is_as_open_and_starts_at_the_photos_shape() -> None:
    torch.manual_seed(0)
    driver = torch.randn(6, 5)
    own = followed_mouth(driver, driver[:1])
    assert torch.equal(own[:, 0], driver[:, 0]) and not own[0, 1:].any()
    torch.testing.assert_close(own[:, 1:].diff(dim=0), driver[:, 1:].diff(dim=0))
    looks = torch.tensor([[0.0, 1.0, -2.0, 3.0, 0.5]])
    torch.testing.assert_close(followed_mouth(driver + looks, None), followed_mouth(driver, None))
