"""Tests of the drift of long videos: a steady one has none, one that blurs or changes its face has."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_up_clips import wandering
from scipy.ndimage import gaussian_filter
from toy import save_portrait, save_speech, toy_model

from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import open_writer
from training.evaluation.drift import as_json, main, plot, talk_frames
from training.evaluation.drift_metrics import CURVES, MeasuredFrame, drift, measure_frame
from training.evaluation.identity import IrSe50

WEIGHTS = FaceModel.bundled().pose_weights.numpy()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def measured() -> dict[str, MeasuredFrame]:
    """The example's face, the same blurred, and its mirror image; embedded by a network with made-up weights."""
    tracker, network = Tracker.from_bundled(), IrSe50().eval().requires_grad_(False)
    face = wandering(1)[0]
    pictures = {"face": face, "blurred": gaussian_filter(face, (2, 2, 0)), "mirrored": face[:, ::-1]}
    found = {
        name: measure_frame(tracker, network, np.ascontiguousarray(p), 0) for name, p in pictures.items()
    }
    return found | {"nobody": measure_frame(tracker, network, np.zeros_like(face), 0)}


def video_of(measured: dict[str, MeasuredFrame], names: list[str]) -> list[MeasuredFrame]:
    """One frame a second."""
    return [MeasuredFrame(i, f.energy, f.face, f.embedding) for i, f in enumerate(measured[n] for n in names)]


def test_a_steady_video_does_not_drift(measured: dict[str, MeasuredFrame]) -> None:
    found = drift(iter(video_of(measured, ["face"] * 20)), WEIGHTS, "video")
    assert found.curves.keys() == CURVES.keys() and not found.missing
    assert np.allclose(found.curves["sharpness"], 1) and np.allclose(found.curves["identity"], 1)
    assert np.allclose(found.curves["shape_mm"], 0, atol=1e-4)
    assert all(abs(part["slope_per_minute"]) < 1e-3 for part in found.summary().values())


def test_what_changes_is_seen_where_it_changes(measured: dict[str, MeasuredFrame]) -> None:
    names = ["face"] * 10 + ["blurred"] * 5 + ["nobody"] + ["mirrored"] * 6
    found = drift(iter(video_of(measured, names)), WEIGHTS, "video")
    sharpness, identity = found.curves["sharpness"], found.curves["identity"]
    assert np.allclose(sharpness[:10], 1) and (sharpness[10:15] < 0.6).all()
    assert (identity[10:15] < 1).all() and np.isnan(identity[15]) and np.isnan(sharpness[15])
    assert (found.curves["shape_mm"][16:] > 0.3).all()
    summary = found.summary()
    assert summary["identity"]["start"] == pytest.approx(1) and summary["identity"]["end"] < 1
    assert summary["shape_mm"]["slope_per_minute"] > 0


def test_without_the_network_identity_has_a_reason(
    measured: dict[str, MeasuredFrame], tmp_path: Path
) -> None:
    frames = [
        MeasuredFrame(f.seconds, f.energy, f.face, None) for f in video_of(measured, ["face", "nobody"])
    ]
    found = drift(iter(frames), WEIGHTS, "video")
    assert "sdtalk assets add arcface" in found.missing["identity"]
    written = json.loads(as_json(found, {"command": "drift"}))
    assert written["sharpness"] == [1, None] and "identity" not in written["curves"]
    plot(found, tmp_path / "drift.png")
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(InputError, match="no face is found in its first seconds"):
        drift(iter(video_of(measured, ["nobody"] * 3)), WEIGHTS, "video")


def test_a_video_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    frames, out = wandering(6), tmp_path / "out"
    with open_writer(tmp_path / "a.mp4", frames[0].shape[1::-1]) as writer:
        for frame in frames:
            writer.write(frame)
    assert main([str(tmp_path / "a.mp4"), "--every", "2", "--device", "cpu", "-o", str(out)]) == 0
    written = json.loads((out / "drift.json").read_text())
    assert written["seconds"] == [0, 0.08, 0.16] and len(written["sharpness"]) == 3
    assert "in the last seconds" in capsys.readouterr().out


def test_only_the_frames_that_are_measured_can_be_rendered(tmp_path: Path) -> None:
    """A sound of 0.08 s is repeated until there are four frames."""
    toy_model().save_pretrained(tmp_path / "model")
    photo, speech = save_portrait(tmp_path / "p.png"), save_speech(tmp_path / "s.wav", 0.08)
    pipeline = SDTalkPipeline.from_pretrained(tmp_path / "model", "cpu")
    every, some = (list(talk_frames(pipeline, photo, speech, 3, 4, only)) for only in (False, True))
    assert len(every) == len(some) == 2
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(every, some, strict=True))


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ([], "it is not clear what to measure"),
        (["a.mp4", "--photo", "a.png", "--speech", "a.wav"], "it is not clear what to measure"),
        (["--photo", "a.png"], "it is not clear what to measure"),
        (["nowhere.mp4"], "nowhere.mp4"),
        (["a.mp4", "--minutes", "nan"], "--minutes nan"),
        (["a.mp4", "--every", "0"], "--every 0"),
    ],
)
def test_mistakes_are_told(arguments: list[str], problem: str, capsys: pytest.CaptureFixture) -> None:
    assert main([*arguments, "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and problem in printed
