"""Tests of what lives in a face besides speech: gaze and lids that follow it, brows, breath, a smile that relaxes."""

from dataclasses import replace

import pytest
import torch
from toy import SIZE, toy_model, toy_picture, toy_track

from sdtalk.driving import (
    GAPS,
    DrivingSignals,
    breath_motion,
    brow_motion,
    followed_gaze,
    following_lids,
    idle_cameras,
    natural_blinks,
    natural_gaze,
    relaxed,
    small_motion,
    turned_cameras,
)
from sdtalk.driving.breath import DEPTH
from sdtalk.driving.brows import IDLE, RAISE
from sdtalk.driving.emphasis import stressed_moments
from sdtalk.driving.expression import BROADEST_SMILE, LOOKS, MOUTH_CORNERS, smile_lift
from sdtalk.driving.gaze import FARTHEST_GAZE
from sdtalk.head import HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.motion.face_motion import moved_face
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.tracking.face_model import BROWS, IRIS_POINTS, LOWER_LIDS, UPPER_LIDS, FaceModel, eye_state
from training.tracker.lid_and_brow_modes import brow_mode

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


def words(stressed_at: list[float], seconds: int = 20) -> torch.Tensor:
    """A hum of 16 kHz with louder moments."""
    times = torch.arange(seconds * 16_000) / 16_000
    loudness = 0.02 + 0.2 * sum((-((times - at) / 0.1).square()).exp() for at in stressed_at)
    return loudness * (2 * torch.pi * 150 * times).sin()


def test_brows_rise_a_little_before_some_of_the_stressed_words() -> None:
    at = [2.5 + 1.7 * i for i in range(10)]
    moments = stressed_moments(words(at))
    torch.testing.assert_close(torch.tensor(moments) / 25, torch.tensor(at), atol=0.09, rtol=0)
    height = torch.stack([brow_motion(words(at), seed) for seed in range(24)])
    around = torch.stack([height[:, m - 6 : m + 3].amax(1) for m in moments], dim=1)
    raised = around > 4 * IDLE
    assert 0.1 < raised.float().mean() < 0.3 and height.max() < RAISE[1] + 5 * IDLE
    assert not height[:, 0].any() and height.diff(dim=1).abs().max() < 0.004  # no jump: a pixel a frame


def test_brows_of_silence_only_wander() -> None:
    height = brow_motion(torch.zeros(20 * 16_000), 0)
    assert len(height) == 500 and 0.5 * IDLE < height.std() < 2 * IDLE
    assert torch.equal(height, brow_motion(torch.zeros(20 * 16_000), 0))
    assert len(brow_motion(torch.zeros(10), 0)) == 1


def test_the_brow_mode_is_found_in_clips_and_lids_stay() -> None:
    face = FaceModel.bundled()
    rise = torch.linspace(-0.02, 0.03, 40)[:, None, None]
    clip = face.mean_face + rise * face.brow_mode
    lids = [*UPPER_LIDS[0], *LOWER_LIDS[1]]
    found = brow_mode([clip], face)
    free = face.mean_face[:, 1] > 0.225
    torch.testing.assert_close(found[free], face.brow_mode[free], atol=0.01, rtol=0.01)
    assert not found[lids].any() and not found[face.mean_face[:, 1] < 0.15].any()
    assert face.brow_mode[BROWS, 1].mean() == pytest.approx(1, abs=0.01)
    mirrored = face.brow_mode[face.mirror] * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(mirrored, face.brow_mode, atol=1e-3, rtol=0)
    moved = moved_face(face.mean_face[None], torch.zeros(1, 5), torch.zeros(1, 6), brows=torch.tensor([0.02]))
    torch.testing.assert_close(eye_state(moved), eye_state(face.mean_face[None]))


@pytest.fixture(scope="module")
def model() -> SDTalk:
    return toy_model(neural_renderer="windows")


@pytest.fixture(scope="module")
def head(model: SDTalk) -> HeadGaussians:
    with torch.no_grad():
        return model.reconstruct(toy_picture(), torch.ones(1, 1, SIZE, SIZE), toy_track())


def moves(model: SDTalk, head: HeadGaussians, small: SmallMotion) -> tuple[torch.Tensor, torch.Tensor]:
    """Shift of Gaussians and mesh that small motion brings, everything else as in the photo."""
    frames = len(small)
    with torch.no_grad():
        moved = model.animate(head, head.audio_code.expand(frames, -1), head.eyes.expand(frames, -1), small)
    assert moved.mesh is not None and head.photo is not None
    return moved.gaussians.means - head.gaussians.means, moved.mesh - head.photo.mesh


def test_gaussians_and_mesh_rise_with_the_brows(model: SDTalk, head: HeadGaussians) -> None:
    small = replace(SmallMotion.none(3), brows=torch.tensor([0.0, 0.01, 0.02]))
    gaussians, mesh = moves(model, head, small)
    assert gaussians[0].abs().max() < 1e-6 and mesh[0].abs().max() < 1e-6
    torch.testing.assert_close(mesh[2], 0.02 * FaceModel.bundled().brow_mode, atol=1e-6, rtol=0)
    torch.testing.assert_close(gaussians[2], 2 * gaussians[1], atol=1e-6, rtol=0)
    assert 0.01 < gaussians[2, :, 1].max() < 0.026
    low = head.gaussians.means[0, :, 1] < -0.1
    assert gaussians[2, low].abs().max() < 0.1 * 0.02, "mouth and chin stay, nearly"


def test_breaths_are_slow_and_no_two_alike() -> None:
    rise = breath_motion(25 * 60, 0)
    assert rise[0] < 1e-3 and rise.min() >= 0 and DEPTH[0] < rise.max() <= DEPTH[1]
    assert rise.diff().abs().max() < 0.0003  # a tenth of a pixel a frame
    low, high = rise < 0.0005, rise > 0.003
    tops = int((high.int().diff() == 1).sum())
    assert 11 <= tops <= 19 and low.any()
    assert torch.equal(rise, breath_motion(25 * 60, 0)) and not torch.equal(rise, breath_motion(25 * 60, 1))
    assert torch.equal(breath_motion(500, 0), rise[:500])


def test_shoulders_rise_in_the_picture_and_the_head_does_not(model: SDTalk, head: HeadGaussians) -> None:
    small = replace(SmallMotion.none(2), breath=torch.tensor([0.0, 0.006]))
    gaussians, mesh = moves(model, head, small)
    assert gaussians[0].abs().max() < 1e-6 and mesh.abs().max() < 1e-6
    weight = head.head_weight[0]
    assert (weight < 0.05).any() and gaussians[1, weight == 1].abs().max() < 1e-6
    shoulders = gaussians[1, weight == 0]
    torch.testing.assert_close(shoulders[:, 1], torch.full((len(shoulders),), 0.006), atol=1e-6, rtol=0)
    assert shoulders[:, [0, 2]].abs().max() < 1e-6  # this head looks straight into the camera


def test_a_still_head_has_none_of_it_but_the_gaze_of_a_video() -> None:
    sound = torch.zeros(16_000 * 4)
    nothing = small_motion("still", REST, still(100), sound, 0)
    assert not any(x.any() for x in (nothing.gaze, nothing.brows, nothing.breath))
    alive = small_motion("idle", REST, still(100), sound, 0)
    assert all(x.any() for x in (alive.gaze, alive.brows, alive.breath))
    track = toy_track(3)
    for points in IRIS_POINTS:
        track.mesh[1, points, 0] += 0.01
    seen = small_motion("still", REST, still(100), sound, 0, track)
    assert seen.gaze.any() and not seen.brows.any() and not seen.breath.any()


def test_life_is_a_factor_and_without_it_eyes_stay_on_the_camera() -> None:
    sound, turned = words([2.5, 4.2]), turned_cameras(still(500), 12.0, 0.0, 0.0)
    usual, twice, none = (small_motion("idle", REST, still(500), sound, 0, life=x) for x in (1.0, 2.0, 0.0))
    assert not any(x.any() for x in (none.gaze, none.brows, none.breath))
    assert torch.equal(twice.brows, 2 * usual.brows) and torch.equal(twice.breath, 2 * usual.breath)
    assert (twice.gaze.abs()[:, :2] <= torch.tensor(FARTHEST_GAZE) + 1e-7).all()
    held = [small_motion(pose, REST, turned, sound, 0, life=0.0).gaze for pose in ("idle", "still")]
    torch.testing.assert_close(held[0], held[1])
    assert (held[0][:, 0] < -0.004).all(), "a head that turns right has eyes that look left"


def test_batches_equal_the_whole(model: SDTalk, head: HeadGaussians) -> None:
    torch.manual_seed(0)
    small = SmallMotion(0.01 * torch.rand(4, 3), 0.01 * torch.rand(4), 0.01 * torch.rand(4))
    whole = moves(model, head, small)
    parts = [moves(model, head, small[i : i + 1]) for i in range(4)]
    for i in (0, 1):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], atol=1e-6, rtol=0)


def smiling(lift: float) -> torch.Tensor:
    """An average face whose corners of the mouth stand higher."""
    mesh = FaceModel.bundled().mean_face[None].clone()
    mesh[:, MOUTH_CORNERS, 1] += lift
    return mesh


def test_only_a_smile_beyond_looks_counts_and_an_open_mouth_is_none() -> None:
    assert smile_lift(smiling(0.0)) == smile_lift(smiling(LOOKS / 2)) == 0
    assert (
        0
        < smile_lift(smiling(0.02))
        < smile_lift(smiling(0.025))
        < BROADEST_SMILE
        == smile_lift(smiling(0.1))
    )
    face = FaceModel.bundled()
    opened = smiling(0.02) + 0.8 * face.opening_mode
    assert smile_lift(opened) == pytest.approx(smile_lift(smiling(0.02)), abs=1e-5)


def test_a_smile_goes_before_the_first_word_and_stays_away() -> None:
    code, level = torch.rand(200, 5), torch.zeros(200)
    level[60:100] = level[150:160] = 1
    calm = relaxed(code, smiling(0.03), level, 0.0)
    assert torch.equal(calm[:40], code[:40]) and torch.equal(calm[:, 0], code[:, 0])
    gone = (calm - code)[:, 1:]
    torch.testing.assert_close(gone[60:], gone[60].expand(140, -1))
    assert gone.diff(dim=0).abs().max() < 0.1 * gone.abs().max()
    torch.testing.assert_close(relaxed(code, smiling(0.03), level, 0.5)[:, 1:] - code[:, 1:], gone / 2)
    assert torch.equal(relaxed(code, smiling(0.03), level, 1.0), code)
    assert torch.equal(relaxed(code, smiling(0.0), level, 0.0), code), "no smile, nothing to relax"
    assert torch.equal(relaxed(code, smiling(0.03), torch.zeros(200), 0.0), code), "nobody speaks"


def test_the_relaxed_mouth_has_lost_the_smile() -> None:
    face, mesh = FaceModel.bundled(), smiling(0.03)
    code = relaxed(torch.zeros(1, 5), mesh, torch.ones(1), 0.0)
    calm = mesh + face.mouth_displacement(code)
    assert smile_lift(calm) < 0.15 * smile_lift(mesh)
    width = [float((m[0, MOUTH_CORNERS[0]] - m[0, MOUTH_CORNERS[1]]).norm()) for m in (mesh, calm)]
    assert 0.75 < width[1] / width[0] < 0.95


def test_signals_are_cut_with_their_small_motion() -> None:
    small = SmallMotion(torch.rand(6, 3), torch.rand(6), torch.rand(6))
    signals = DrivingSignals(torch.zeros(6, 5), EYES.expand(6, -1), still(6), small)
    part = signals[2:5].to("cpu").small_motion
    assert part is not None and len(part) == 3 and torch.equal(part.brows, small.brows[2:5])
    assert DrivingSignals(signals.audio_code, signals.eyes, signals.camera)[:2].small_motion is None
    assert not SmallMotion.none(4).gaze.any() and len(SmallMotion.none(4)) == 4
