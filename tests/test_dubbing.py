"""Tests of dubbing: only the lower face changes, lips and chin go where they are told to, nothing flickers."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from made_up_clips import wandering
from toy import save_speech

from sdtalk.cli.main import main
from sdtalk.dubbing import DubOptions, playback
from sdtalk.dubbing.clip_track import ClipTrack, mouth_aspect, track_clip
from sdtalk.dubbing.dub import at_rate
from sdtalk.dubbing.inner_mouth import OpenMouth
from sdtalk.dubbing.lower_face import LowerFace, appearing, share_of_speech
from sdtalk.dubbing.playback import LOOPS, frame_order, frames_in_order
from sdtalk.dubbing.repaint import repaint
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.face_model import LIPS
from sdtalk.video import open_writer, probe, read_frames

FPS, FRAMES = 30, 7
CPU = torch.device("cpu")


def write(path: Path, frames: list[np.ndarray], fps: int | float = FPS) -> Path:
    with open_writer(path, (frames[0].shape[1], frames[0].shape[0]), fps) as writer:
        writer.write_all(np.stack(frames))
    return path


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face before a moving camera at 30 frames a second, two frames of nothing in the middle, then a cut."""
    frames = wandering(FRAMES)
    frames[3:5] = [np.full_like(frames[0], 90)] * 2
    frames += wandering(2, mirrored=True)
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


@pytest.fixture(scope="module")
def still(pipeline: SDTalkPipeline) -> tuple[ClipTrack, np.ndarray]:
    """The same frame three times, tracked."""
    frame = wandering(1)[0]
    return track_clip(pipeline.tracker.networks, iter([frame] * 3), "still"), frame


def said(
    pipeline: SDTalkPipeline, still: tuple[ClipTrack, np.ndarray], opening: float, number: int = 1
) -> np.ndarray:
    shot, frame = still[0].shots[0], still[1].copy()
    code = torch.tensor([opening, 0, 0, 0, 0])
    repaint(pipeline.model, OpenMouth.of(shot, CPU), LowerFace.of(shot), number, code, frame)
    return frame


def test_lips_and_chin_go_where_they_are_told(
    pipeline: SDTalkPipeline, still: tuple[ClipTrack, np.ndarray]
) -> None:
    frames = torch.from_numpy(np.stack([said(pipeline, still, x) for x in (0.0, 0.5, 1.0)]))
    faces = [found[0].points for found in pipeline.tracker.networks.find_faces(frames)]
    aspects = [mouth_aspect(points) for points in faces]
    assert aspects[0] < 0.08 and aspects[2] > 0.15
    for before, after in pairwise(range(3)):
        assert aspects[before] < aspects[after]
        chins = [faces[number][152, 1] - faces[number][1, 1] for number in (before, after)]  # below the nose
        assert chins[0] + 0.3 < chins[1]


def test_all_but_the_lower_face_keeps_its_bits(
    pipeline: SDTalkPipeline, still: tuple[ClipTrack, np.ndarray]
) -> None:
    points, before = still[0].shots[0].landmarks[1], still[1]
    changed = (said(pipeline, still, 1.0) != before).any(2)
    rows, columns = np.nonzero(changed)
    face = points[:, :2].amax(0) - points[:, :2].amin(0)
    assert rows.min() > points[[33, 263], 1].max(), "the eyes"
    assert rows.max() < points[152, 1] + 0.4 * face[1], "the neck"
    assert columns.min() > points[:, 0].min() - 0.2 * face[0]
    assert columns.max() < points[:, 0].max() + 0.2 * face[0]
    lips = points[LIPS, :2].mean(0).long()
    assert changed[lips[1] - 5 : lips[1] + 5, lips[0] - 5 : lips[0] + 5].mean() > 0.8


def test_a_face_that_stands_still_does_not_flicker(
    pipeline: SDTalkPipeline, still: tuple[ClipTrack, np.ndarray]
) -> None:
    first, second = (said(pipeline, still, 0.7, number).astype(int) for number in (0, 2))
    assert abs(first - second).max() <= 1


def test_a_clip_is_dubbed_shot_by_shot(pipeline: SDTalkPipeline, clip: Path, tmp_path: Path) -> None:
    sound = save_speech(tmp_path / "speech.wav", 0.4)
    dub = pipeline.dub(clip, sound, mark=False)
    assert len(dub) == 12 and dub.fps == FPS and [shot.first for shot in dub.shots][-1] == FRAMES
    assert "backward" in dub.note and "2 of 9 frames show no face" in dub.note
    given, made = list(read_frames(clip, FPS)), list(dub.frames())
    for number, index in enumerate(dub.order.tolist()):
        same = (made[number] == given[index]).all()
        assert same or index not in (3, 4), "frames without a face stay as they are"
    dub.save(tmp_path / "dubbed.mp4")
    info = probe(tmp_path / "dubbed.mp4")
    assert (info.width, info.height) == dub.size and info.fps == FPS and info.has_sound


def test_the_command_makes_a_video_or_says_in_one_line_why_not(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sound = str(save_speech(tmp_path / "speech.wav", 0.1))
    nobody = str(write(tmp_path / "nobody.mp4", [np.full((64, 64, 3), 99, np.uint8)] * 2))
    for words, told in (
        ([nobody, sound], "no face was found in this video"),
        ([str(clip), sound, "--face", "2"], "face 2: "),
        ([str(clip), sound, "--loop", "x"], "Choose of pingpong, hold, cut"),
        ([str(clip), sound, "--text", "Hello"], "both are given"),
        ([str(clip)], "none of both is given"),
    ):
        output = tmp_path / "out.mp4"
        assert main(["dub", *words, "-o", str(output), "--quiet", "--device", "cpu"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and told in lines[0] and not output.exists()
    assert main(["dub", str(clip), sound, "-o", str(clip), "--quiet"]) == 2
    assert "it is also an input" in capsys.readouterr().err


def test_another_model_cannot_dub(pipeline: SDTalkPipeline, clip: Path) -> None:
    from toy import toy_model

    other = SDTalkPipeline(toy_model(), pipeline.tracker)
    with pytest.raises(InputError, match="cannot dub"):
        other.dub(clip, np.zeros(16000, np.float32), sampling_rate=16000)


@pytest.mark.parametrize("loop", LOOPS)
def test_frames_are_read_in_their_order(loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "BACKWARD_BYTES", 3 * 64 * 64 * 3)
    frames = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(12)]
    path = write(tmp_path / "numbers.mp4", frames, 25)
    order = frame_order(loop, len(frames), 30)
    assert order[0] == 0 and (order.diff().abs() <= 1).all() and len(order) == (12 if loop == "cut" else 30)
    read = [round(float(frame.mean()) / 20) for frame in frames_in_order(path, 25, order)]
    assert read == order.tolist()


def test_codes_at_another_rate_lie_between_their_neighbours() -> None:
    line = torch.arange(50.0)[:, None].expand(-1, 5)
    assert torch.equal(at_rate(line, 50, 25), line)
    faster = at_rate(line, 100, 50)[:, 0]
    torch.testing.assert_close(faster[1:-1], torch.arange(100)[1:-1] / 2 - 0.25)


def test_words_count_where_a_face_is_and_speech_reaches() -> None:
    there = torch.tensor([True] * 9 + [False] + [True] * 9)
    strength = appearing(there)
    assert strength[9] == 0 and strength[0] == strength[-1] == 1
    assert (strength[:10].diff() <= 0).all() and torch.equal(strength, strength.flip(0))
    assert torch.equal(appearing(there[:9]), torch.ones(9)), "a shot's ends need no ramp"
    share = share_of_speech()
    assert share[[13, 14, 17, 152]].min() == 1 and share[[10, 33, 263, 234, 454]].max() == 0


@pytest.mark.parametrize("choice", [{"face": -1}, {"mouth": 3.0}, {"loop": ""}, {"label": "a\nb"}])
def test_options_are_checked(choice: dict) -> None:
    with pytest.raises((InputError, TypeCheckError)):
        DubOptions(**choice)
