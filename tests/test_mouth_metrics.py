"""Tests of how mouths follow each other, of THEval's lip metrics, and of means that are weighted."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sdtalk.tracking.face_model import FaceModel
from training.evaluation.metrics import METRICS, RenderedClip, Scores
from training.evaluation.mouth_metrics import CLOSURES, measure_mouth
from training.evaluation.results import ClipResult, means
from training.evaluation.theval import (
    EYE_CORNERS,
    FIRST_FRAMES,
    LIP_POINTS,
    LOWER,
    UPPER,
    lip_dynamics,
    long_silences,
    silent_lip_motion,
)
from training.evaluation.tracked_face import TrackedFace, TrackedFaces
from training.mini.lips_report import mouth_width

FRAMES = 100
BLANK = np.zeros((FRAMES, 8, 8, 3), np.uint8)
LIP_NAMES = {name for name, metric in METRICS.items() if metric.topic == "movement of the mouth"}


def talking(seed: int = 0, frames: int = FRAMES) -> Tensor:
    """Mouth codes that open, close and round, each slowly and in its own time."""
    random = np.random.default_rng(seed)
    times = np.arange(frames) / 25
    waves = [np.sin(2 * np.pi * (hz * times + random.uniform())) for hz in (2.5, 0.7, 0.9, 1.1, 1.3)]
    return torch.tensor(np.stack([0.3 + 0.3 * waves[0], *waves[1:]], axis=1), dtype=torch.float32)


def face(code: Tensor) -> TrackedFace:
    """A face with this mouth, in the picture; 100 px a unit."""
    model = FaceModel.bundled()
    mesh = model.mean_face + model.mouth_displacement(code)
    return TrackedFace(mesh[..., :2] * torch.tensor([100.0, -100.0]) + 256, code, 512)


def followed(ours: Tensor, real: Tensor, samples: np.ndarray | None = None, **options: bool) -> Scores:
    scores = Scores()
    clip = RenderedClip(
        "clip", BLANK[: len(ours)], BLANK[: len(ours)], samples, options.pop("own", True), **options
    )
    measure_mouth(clip, TrackedFaces(predicted=face(ours), real=face(real)), scores)
    assert scores.metrics.keys() | scores.missing.keys() == LIP_NAMES
    return scores


def test_the_real_mouth_follows_itself() -> None:
    found = followed(talking(), talking()).metrics
    assert found["mouth_correlation"] == pytest.approx(1) and found["mouth_lag_frames"] == 0
    assert found["mouth_width_correlation"] == pytest.approx(1, abs=1e-5)
    assert found["closures"] == 9 and found["closures_hit"] == 1 and found["closure_opening"] < 0.05
    assert found["lip_dynamics"] == found["lip_dynamics_real"] > 0


def test_a_late_mouth_is_late_and_one_that_only_opens_does_not_round() -> None:
    late = followed(torch.roll(talking(), 3, 0), talking()).metrics
    assert (
        late["mouth_lag_frames"] == 3 and late["mouth_width_correlation"] > 0.9 and late["closures_hit"] == 1
    )
    stiff = talking()
    stiff[:, 1:] = talking(1)[:, 1:]
    found = followed(stiff, talking()).metrics
    assert found["mouth_correlation"] == pytest.approx(1)
    plain = np.corrcoef(mouth_width(stiff), mouth_width(talking()))[0, 1]
    assert found["mouth_width_correlation"] == pytest.approx(plain, abs=1e-5) and plain < 0.9


def test_closures_are_missed_by_a_mouth_that_stays_open() -> None:
    real, ours = talking(), talking()
    ours[50:, 0] = 0.45 + (ours[50:, 0] - 0.3).clamp_min(0) / 2  # never closes in the second half
    found = followed(ours, real).metrics
    assert 0.3 < found["closures_hit"] < 0.8 and found["closure_opening"] > 0.1
    assert found["closure_own_opening"] > 0.1


def test_lips_that_meet_are_closed_however_little_the_rest_follows() -> None:
    """Brought to the real spread, what errs elsewhere seems open where it is shut."""
    real, ours = talking(), talking()
    ours[:, 0] = (ours[:, 0] > 0.1).float() * (0.1 + torch.rand(FRAMES, generator=torch.manual_seed(0)) ** 4)
    found = followed(ours, real).metrics
    assert found["closure_own_opening"] < 0.02 < found["closure_opening"]


def test_what_cannot_be_told_of_a_mouth_has_a_reason() -> None:
    still = talking()[:1].expand(FRAMES, -1)
    assert "real mouth stands still" in followed(talking(), still).missing["mouth_spread"]
    assert "predicted mouth stands still" in followed(still, talking()).missing["closures_hit"]
    slow = talking()
    slow[:, 0] = torch.linspace(0, 1, FRAMES)
    assert "never meet" in followed(slow, slow).missing["closures"]
    short = followed(talking(frames=12), talking(frames=12)).missing
    assert {*CLOSURES, "mouth_width_correlation"} <= short.keys() and "mouth_correlation" not in short
    assert "own" in followed(talking(), talking(), own=False).missing["lip_dynamics"]
    assert "mouth_correlation" in followed(talking(), talking(), own=False, measured_codes=True).metrics


def test_motion_in_silence_counts_silent_frames_only() -> None:
    """Two seconds of sound, two of silence; the real mouth moves in both, the rendered one in the first."""
    sound = np.random.default_rng(0).normal(0, 0.1, FRAMES * 640).astype(np.float32)
    sound[FRAMES * 320 :] = 0
    ours, real = talking(), talking()
    ours[40:] = ours[40]
    found = followed(ours, real, sound).metrics
    assert found["silence_motion"] < 1e-6 and found["silent_lips"] < 1e-6
    assert found["silence_motion_real"] == pytest.approx(float(real[:, 0].std()), rel=0.2)
    assert found["silent_lips_real"] > 0.01
    missing = followed(ours, real, np.random.default_rng(0).normal(0, 0.1, FRAMES * 640)).missing
    assert "silent" in missing["silence_motion"]


def test_silences_of_a_third_of_a_second_last() -> None:
    quiet = np.array([1] * 7 + [0] + [1] * 8 + [0] * 3 + [1] * 20, bool)
    lasting = long_silences(quiet)
    assert not lasting[:8].any() and lasting[8:16].all() and lasting[19:].all() and not lasting[16:19].any()
    assert not long_silences(np.zeros(5, bool)).any()


def test_lip_dynamics_pair_by_pair() -> None:
    mesh = torch.rand(6, 478, 2, dtype=torch.float64) * 100
    points = mesh.numpy()
    unit = np.linalg.norm(points[:, EYE_CORNERS[0]] - points[:, EYE_CORNERS[1]], axis=1)
    variances = []
    for i, a in enumerate(LIP_POINTS):
        for b in LIP_POINTS[i + 1 :]:
            variances.append(np.var(np.linalg.norm(points[:, a] - points[:, b], axis=1) / unit))
    assert len(variances) == 40 * 39 / 2
    assert lip_dynamics(mesh) == pytest.approx(np.mean(variances))
    assert lip_dynamics(3 * mesh + 7) == pytest.approx(lip_dynamics(mesh))
    long = torch.cat([mesh[:1].expand(FIRST_FRAMES, -1, -1), mesh])
    assert lip_dynamics(long) == 0


def test_silent_lip_motion_by_hand() -> None:
    mesh = torch.zeros(5, 478, 2)
    mesh[:, EYE_CORNERS[1], 0] = 50
    gaps = torch.tensor([0.0, 10, 20, 30, 40])
    mesh[:, LOWER, 1] = gaps[:, None]
    mesh[:, UPPER, 1] = 0
    silent = np.array([True, True, True, False, False])
    # openings of .0, .2, .4 in eye distances; mean .2; distances .2, 0, .2
    assert silent_lip_motion(mesh, silent, 100, 100) == pytest.approx(0.2)
    assert silent_lip_motion(mesh, silent, 200, 100) == pytest.approx(
        0.4
    )  # THEval squeezes pictures to a square
    assert silent_lip_motion(mesh, np.zeros(5, bool), 100, 100) is None


def test_every_closure_counts_the_same_in_means() -> None:
    def clip(name: str, **figures: float) -> ClipResult:
        return ClipResult(name, name, "", "", 10, "sound", figures, {}, "")

    found = means(
        [clip("a", closures=9, closures_hit=1, psnr=20), clip("b", closures=1, closures_hit=0, psnr=30)]
    )
    assert found.metrics["closures_hit"] == pytest.approx(0.9) and found.metrics["closures"] == 5
    assert found.metrics["psnr"] == 25
