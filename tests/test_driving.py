"""Tests of the driving signals: head motion, blinks, and pose followed from a video."""

import numpy as np
import pytest
import torch
from toy import toy_track

from sdtalk.camera import Camera
from sdtalk.driving import (
    CLOSED_GAP,
    GAPS,
    IDLE_STYLES,
    NECK,
    eye_states,
    followed_cameras,
    followed_eyes,
    followed_mouth,
    forth_and_back,
    idle_cameras,
    natural_blinks,
    turned_cameras,
)
from sdtalk.driving.head_motion import _rotations, _slow, fade_in, waves
from sdtalk.driving.idle_style import SHALLOWEST, beat_nods

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


def as_first_made(level: torch.Tensor, seed: int) -> Camera:
    """Idle motion as it was before it had styles and strengths."""
    random, frames = np.random.default_rng((seed, 1)), len(level)
    degrees = torch.stack([d * waves(frames, (0.05, 0.45), random) for d in (0.8, 1.5, 0.8)], dim=1)
    shift = torch.stack([0.01 * waves(frames, (0.05, 0.45), random) for _ in range(3)], dim=1)
    degrees[:, 0] += 0.35 * waves(frames, (0.6, 1.2), random) * _slow(level)
    fade = fade_in(frames)[:, None]
    turn, neck = _rotations(torch.deg2rad(degrees * fade)), torch.tensor(NECK)
    moved = neck - turn @ neck + shift * fade
    translation = (REST.rotation @ moved[..., None])[..., 0] + REST.translation
    return Camera.from_pose(REST.rotation @ turn, translation, REST.width)


def test_the_defaults_move_a_head_as_ever_bit_for_bit() -> None:
    level = (torch.arange(300) % 70 < 40).float()
    now = idle_cameras(REST, level, 5, stressed=[20, 90])
    assert torch.equal(now.world_to_camera, as_first_made(level, 5).world_to_camera)
    assert turned_cameras(now, 0.0, 0.0, 0.0) is now
    assert torch.equal(natural_blinks(EYES, 900, 1), eye_states("natural", EYES, 900, 1))


def test_strength_scales_idle_motion_and_none_of_it_is_still() -> None:
    level = torch.ones(500)
    usual, twice, none = (
        degrees_from(REST, idle_cameras(REST, level, 2, strength=s)) for s in (1.0, 2.0, 0.0)
    )
    assert none.max() < 0.05 and 1.9 < twice[25:].mean() / usual[25:].mean() < 2.1


def test_strength_scales_the_motion_of_a_video() -> None:
    usual, half, none = (followed_cameras(REST, driver(), 40, s) for s in (1.0, 0.5, 0.0))
    torch.testing.assert_close(none.world_to_camera, REST.world_to_camera.repeat(40, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(degrees_from(REST, half) * 2, degrees_from(REST, usual), atol=0.05, rtol=0)
    shift, whole = (c.translation - REST.translation for c in (half, usual))
    torch.testing.assert_close(shift * 2, whole, atol=1e-4, rtol=0)


def test_styles_differ_in_size_and_speed_and_are_smooth() -> None:
    level, stressed = torch.ones(1500), list(range(30, 1500, 25))
    sizes, speeds = {}, {}
    for style in IDLE_STYLES:
        paths = [idle_cameras(REST, level, seed, style, stressed=stressed) for seed in range(4)]
        sizes[style] = torch.stack([degrees_from(REST, path) for path in paths]).mean()
        steps = torch.stack([degrees_from(path[:-1], path[1:]) for path in paths])
        speeds[style] = steps.mean()
        assert steps.max() < 1.6, f"{style} jerks"  # 40 degrees a second
    assert sizes["calm"] < 0.7 * sizes["natural"] < 0.7 * sizes["lively"]
    assert 2 * speeds["calm"] < speeds["natural"] < 0.7 * min(speeds["lively"], speeds["nodding"])


def test_a_head_nods_down_at_stressed_words_only() -> None:
    style, stressed = IDLE_STYLES["nodding"], [50, 120, 121, 300, 398]
    nods = torch.stack([beat_nods(style, stressed, 400, seed) for seed in range(12)])
    assert nods.min() >= 0 and nods.max() <= style.beat_degrees
    assert not nods[:, :30].any() and not nods[:, 150:285].any()
    deep = (nods[:, [50, 300]] > SHALLOWEST * style.beat_degrees - 1e-3).float().mean()
    assert 0.4 < deep < 0.95 and nods.diff(dim=1).abs().max() < 0.35 * style.beat_degrees
    assert torch.equal(nods[3], beat_nods(style, stressed, 400, 3))
    assert not beat_nods(IDLE_STYLES["natural"], stressed, 400, 0).any()


@pytest.mark.parametrize("angles", [(20.0, 0.0, 0.0), (0.0, 12.0, 0.0), (0.0, 0.0, 15.0), (-9.0, 5.0, -7.0)])
def test_a_head_is_turned_by_degrees_about_its_neck(angles: tuple[float, float, float]) -> None:
    moving = idle_cameras(REST, torch.ones(100), 0)
    turned = turned_cameras(moving, *angles)
    angle = degrees_from(moving, turned)
    assert angle.std() < 0.05 and max(map(abs, angles)) - 0.1 < angle.mean() < sum(map(abs, angles)) + 0.1
    neck = torch.tensor(NECK).expand(100, 1, 3)
    torch.testing.assert_close(turned.project(neck), moving.project(neck), atol=1e-2, rtol=0)


def test_signs_are_those_of_the_picture() -> None:
    nose, crown = torch.tensor([[[0.0, 0.0, 0.5]]]), torch.tensor([[[0.0, 0.7, 0.0]]])
    before, (x, y) = REST.project(nose)[0, 0], (0, 1)
    assert turned_cameras(REST, 10.0, 0.0, 0.0).project(nose)[0, 0, x] > before[x] + 1, "to the right"
    assert turned_cameras(REST, 0.0, 10.0, 0.0).project(nose)[0, 0, y] < before[y] - 1, "up"
    assert turned_cameras(REST, 0.0, 0.0, 10.0).project(crown)[0, 0, x] > REST.project(crown)[0, 0, x] + 1


@pytest.mark.parametrize("rate", [5.0, 15.0, 40.0])
def test_eyes_blink_as_often_as_asked(rate: float) -> None:
    shut = natural_blinks(EYES, 25 * 600, 3, rate)[:, 0] < 0.6 * EYES[0, 0]
    blinks = int((shut.int().diff() == 1).sum()) / 10
    assert 0.8 * rate < blinks < 1.2 * rate
    assert torch.equal(eye_states("natural", EYES, 50, 0, rate=0.0), EYES.expand(50, -1))
