"""Tests of the small motion: gaze and lids that follow it."""

import pytest
import torch
from toy import toy_track

from sdtalk.driving import (
    GAPS,
    DrivingSignals,
    followed_gaze,
    following_lids,
    idle_cameras,
    natural_blinks,
    natural_gaze,
)
from sdtalk.driving.gaze import FARTHEST_GAZE
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.tracking.face_model import IRIS_POINTS, FaceModel

REST = toy_track().camera
EYES = torch.tensor([[0.05, 0.06, 0.15, 0.04, 0.05, 0.16]])
FRAMES = 25 * 60


def still(frames: int) -> torch.Tensor:
    return REST[torch.zeros(frames, dtype=torch.long)]


@pytest.mark.parametrize("seed", range(3))
def test_eyes_rest_on_the_camera_most_of_the_time_and_glance_aside(seed: int) -> None:
    gaze = natural_gaze(REST, still(FRAMES), seed)
    assert not gaze[0].any() and not gaze[:, 2].any()
    assert (gaze.abs()[:, :2] <= torch.tensor(FARTHEST_GAZE) + 1e-7).all()
    aside = gaze[:, :2].norm(dim=1) > 0.004
    assert 0.08 < aside.float().mean() < 0.5
    glances = int((aside.int().diff() == 1).sum())
    assert 8 < glances < 45  # a minute
    assert 0.0015 < gaze[:, 0].std() < 0.005 and gaze[:, 1].std() < 0.8 * gaze[:, 0].std()


def test_gaze_is_held_between_saccades_of_one_or_two_frames() -> None:
    step = natural_gaze(REST, still(FRAMES), 0).diff(dim=0).norm(dim=1)
    fast = step > 0.002
    assert fast.float().mean() < 0.1 and step[~fast].mean() < 0.0004
    runs = [len(run) for run in "".join("x" if f else " " for f in fast).split()]
    assert runs and max(runs) <= 3


def test_eyes_stay_on_the_camera_while_the_head_turns() -> None:
    turned = idle_cameras(REST, torch.ones(FRAMES), 1)
    held = natural_gaze(REST, turned, 5) - natural_gaze(REST, still(FRAMES), 5)
    sideways = turned.centre[:, 0] / turned.centre.norm(dim=1)  # where the camera is, as the head sees it
    assert torch.corrcoef(torch.stack([held[:, 0], sideways]))[0, 1] > 0.9
    assert not held[0].any()


def test_the_seed_decides() -> None:
    first, again, other = (natural_gaze(REST, still(200), seed) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_longer_video_begins_as_a_shorter_one() -> None:
    assert torch.equal(natural_gaze(REST, still(300), 2)[:200], natural_gaze(REST, still(200), 2))


def test_gaze_of_a_video_counts_from_its_usual_one() -> None:
    mesh = FaceModel.bundled().mean_face.repeat(5, 1, 1)
    for points in IRIS_POINTS:
        mesh[2, points, 0] += 0.01
        mesh[3, points, 1] -= 0.3
    gaze = followed_gaze(mesh, 8)
    torch.testing.assert_close(gaze[2], torch.tensor([0.01, 0, 0]))
    torch.testing.assert_close(gaze[3], torch.tensor([0, -FARTHEST_GAZE[1], 0]))
    assert not gaze[[0, 1, 4, 7]].any() and torch.equal(gaze[5], gaze[3])
    torch.testing.assert_close(followed_gaze(mesh, 5, mesh[2:3])[0], torch.tensor([-0.01, 0, 0]))


def test_lids_follow_the_gaze_up_and_down_only() -> None:
    gaze = torch.tensor([[0.0, 0, 0], [0.01, 0, 0], [0, -0.008, 0], [0, 0.008, 0]])
    eyes = following_lids(EYES.expand(4, -1), EYES, gaze)
    assert torch.equal(eyes[0], EYES[0]) and torch.equal(eyes[1], EYES[0])
    change = (eyes - EYES)[:, GAPS]
    torch.testing.assert_close(change[2], torch.full((4,), -0.0064))
    torch.testing.assert_close(change[3], torch.full((4,), 0.0064))
    assert torch.equal(eyes[:, [2, 5]], EYES[:, [2, 5]].expand(4, -1))
    blinks = natural_blinks(EYES, 500, 0)
    shut = blinks[:, 0].argmin()
    down = torch.tensor([[0.0, -0.008, 0.0]]).expand(500, -1)
    assert (following_lids(blinks, EYES, down)[shut, GAPS] > 0).all()


def test_signals_are_cut_with_their_small_motion() -> None:
    small = SmallMotion(torch.rand(6, 3), torch.rand(6), torch.rand(6))
    signals = DrivingSignals(torch.zeros(6, 5), EYES.expand(6, -1), still(6), small)
    part = signals[2:5].to("cpu").small_motion
    assert part is not None and len(part) == 3 and torch.equal(part.brows, small.brows[2:5])
    assert DrivingSignals(signals.audio_code, signals.eyes, signals.camera)[:2].small_motion is None
    assert not SmallMotion.none(4).gaze.any() and len(SmallMotion.none(4)) == 4
