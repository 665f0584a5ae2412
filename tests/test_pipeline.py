"""Tests of the pipeline from files to a file, with the real tracker and a network of toy size."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from toy import EXAMPLE, save_portrait, save_speech, toy_model

from sdtalk.driving import GAPS
from sdtalk.errors import InputError
from sdtalk.image import Crop, crop_picture, read_picture
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.reenact import ReenactOptions, frame_pairs, prepare, reenact
from sdtalk.speech.audio import read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import DrivingSignals, render_frames
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import open_writer, probe, read_frames

STILL = TalkOptions(pose="still", blink="none", size=64)


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline(toy_model(), Tracker.from_bundled())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait, a recording of five frames, and a clip of six in which the picture moves."""
    folder = tmp_path_factory.mktemp("inputs")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav", 0.2)
    picture = read_picture(EXAMPLE).pixels
    for name, sound in (("clip.mp4", save_speech(folder / "clip.wav", 0.24)), ("silent.mp4", None)):
        with open_writer(folder / name, (256, 256), sound=sound, frames=6) as writer:
            for i in range(6):
                writer.write(crop_picture(picture, Crop(4.0 * i, 2.0 * i, 460.0), 256))
    return folder


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


@pytest.mark.parametrize("seconds", [0.04, 0.2, 0.31])
def test_the_video_is_as_long_as_the_sound(pipeline, files, tmp_path, seconds: float) -> None:
    speech = save_speech(tmp_path / "speech.wav", seconds)
    told: list[tuple[str, int, int]] = []
    progress = lambda *step: told.append(step)  # noqa: E731
    talk = pipeline(files / "portrait.png", speech, tmp_path / "o.mp4", STILL, progress=progress)
    assert len(talk) == np.ceil(seconds * 25) == len(frames_of(talk.path))
    assert told[0] == ("preparing", 0, 0) and told[-1] == ("rendering", len(talk), len(talk))
    assert talk.note.startswith("The face is only") and talk.timings["rendering"] > 0
    info = probe(talk.path)
    assert info.has_sound and (info.width, info.height) == (64, 64) and abs(info.duration - seconds) <= 0.041
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mp4", "speech.wav"]


def test_the_seed_decides(pipeline, files, tmp_path) -> None:
    options = TalkOptions(size=64, seed=1)
    video, again = (
        frames_of(pipeline(files / "portrait.png", files / "speech.wav", tmp_path / name, options).path)
        for name in ("a.mp4", "b.mp4")
    )
    assert np.array_equal(video, again)
    sound = read_speech(save_speech(tmp_path / "long.wav", 10))
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    first, second = (
        pipeline.signals(person, sound, TalkOptions(seed=seed), lambda *_: None, Stopwatch())
        for seed in (1, 2)
    )
    assert torch.equal(first.audio_code, second.audio_code) and not torch.equal(first.eyes, second.eyes)
    assert not torch.equal(first.camera.world_to_camera, second.camera.world_to_camera)


def test_without_motion_all_frames_are_the_portrait(pipeline, files) -> None:
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    untrained = toy_model(trained=False, plane_size=128)
    head = SDTalkPipeline(untrained, pipeline.tracker).reconstruct_tracked(person)
    track = person.track
    three = DrivingSignals(
        head.audio_code.expand(3, -1), head.eyes.expand(3, -1), track.camera[torch.zeros(3).long()]
    )
    frames = next(render_frames(untrained, head, three, torch.zeros(1, 3, 512, 512)))
    assert np.array_equal(frames[0], frames[1])
    face = np.s_[200:320, 200:320]
    real = (person.image[0].permute(1, 2, 0).numpy() * 255)[face]
    assert np.abs(frames[0][face] - real).mean() < 6


def test_the_mouth_option_scales_the_mouth(pipeline, files) -> None:
    sound = read_speech(files / "speech.wav")
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    codes = []
    for mouth in (1.0, 0.0, 1.5):
        plan = pipeline.signals(
            person, sound, TalkOptions(mouth=mouth, expression=1.0), lambda *_: None, Stopwatch()
        )
        codes.append(plan.audio_code)
    assert len(codes[0]) == 5 and codes[0].any() and not codes[1].any()
    torch.testing.assert_close(codes[2], 1.5 * codes[0])


def test_the_smile_of_the_example_relaxes_by_half_unless_it_is_to_stay(pipeline, files, tmp_path) -> None:
    sound = read_speech(save_speech(tmp_path / "long.wav", 2))
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    kept, half, none = (
        pipeline.signals(person, sound, options, lambda *_: None, Stopwatch()).audio_code
        for options in (TalkOptions(expression=1.0), TalkOptions(), TalkOptions(expression=0.0))
    )
    assert torch.equal(kept[:, 0], none[:, 0]) and (none - kept)[-1, 1] < -1
    torch.testing.assert_close(half, (kept + none) / 2)


def test_pose_and_blinks_of_a_video(pipeline, files) -> None:
    sound = read_speech(files / "speech.wav")
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    clip = str(files / "clip.mp4")
    told: list[tuple[str, int, int]] = []
    options = TalkOptions(pose=clip, blink=clip)
    plan = pipeline.signals(person, sound, options, lambda *step: told.append(step), Stopwatch())
    place = plan.camera.project(torch.zeros(5, 1, 3))[:, 0]
    assert (place[1:, 0] < place[:-1, 0]).all(), "the picture moves to the left"
    torch.testing.assert_close(
        place.mean(0), person.track.camera.project(torch.zeros(1, 1, 3))[0, 0], atol=1, rtol=0
    )
    share = plan.eyes[:, GAPS] / person.track.eyes[:, GAPS]
    assert ((share > 0.7) & (share < 1.3)).all()
    assert told[-1] == ("tracking", 5, 5), "no more is tracked than needed, once for both"


def test_people_do_not_mix_and_memory_of_calls_is_none(pipeline, files) -> None:
    picture = read_picture(files / "portrait.png").pixels
    person, other = (pipeline.tracker.portrait(p, "p") for p in (picture, picture[:, ::-1].copy()))
    first = pipeline.reconstruct_tracked(person)
    pipeline.reconstruct_tracked(other)
    again = pipeline.reconstruct_tracked(person)
    assert torch.equal(first.gaussians.features, again.gaussians.features)


@pytest.mark.parametrize("stage", ["preparing", "rendering"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("a", "b", "c"), RuntimeError])
def test_nothing_stays_behind(pipeline, files, tmp_path, error, stage: str) -> None:
    def stop(now: str, *_: object) -> None:
        if now == stage:
            raise error

    with pytest.raises(error if isinstance(error, type) else InputError):
        pipeline(
            files / "portrait.png", files / "speech.wav", tmp_path / "new" / "o.mp4", STILL, progress=stop
        )
    assert not list(tmp_path.iterdir())


def test_frames_come_while_they_are_wanted(pipeline, files) -> None:
    """A signals of a day starts at once: nothing is computed for frames that nobody takes."""
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    head, day = pipeline.reconstruct_tracked(person), 25 * 60 * 10
    long = DrivingSignals(
        head.audio_code.expand(day, -1),
        head.eyes.expand(day, -1),
        person.track.camera[torch.zeros(day).long()],
    )
    batches: Iterator = render_frames(pipeline.model, head, long, torch.zeros(1, 3, 512, 512), 64)
    assert next(batches).shape == next(batches).shape == (4, 64, 64, 3)
    batches.close()


@pytest.mark.parametrize("size", [512, 128, 600])
@pytest.mark.parametrize("shade", [0.0, 1.0])
def test_transparent_frames_look_the_same_over_a_background(pipeline, files, size: int, shade: float) -> None:
    untrained = toy_model(trained=False, plane_size=128)
    person = pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")
    head = SDTalkPipeline(untrained, pipeline.tracker).reconstruct_tracked(person)
    scene = torch.full((1, 3, 512, 512), shade)
    signals = DrivingSignals(head.audio_code, head.eyes, person.track.camera)
    over, alone = (next(render_frames(untrained, head, signals, behind, size)) for behind in (scene, None))
    assert over.shape == (1, size, size, 3) and alone.shape == (1, size, size, 4)
    alpha = alone[..., 3:] / 255
    assert (alpha == 0).mean() > 0.1 and (alpha == 1).mean() > 0.3
    error = np.abs(alone[..., :3] * alpha + 255 * shade * (1 - alpha) - over)
    assert np.percentile(error, 99.9) <= 2 and error.mean() < 0.2


def test_a_transparent_video(pipeline, files, tmp_path) -> None:
    options = replace(STILL, background="transparent", label="AI-generated")
    talk = pipeline(files / "portrait.png", files / "speech.wav", tmp_path / "o", options)
    pictures = [iio.imread(path) for path in sorted(talk.path.glob("*.png"))]
    assert len(pictures) == len(talk) == 5 and pictures[0].shape == (64, 64, 4)
    assert np.array_equal(pictures, list(talk.frames()))
    assert (pictures[0][:8, :8, 3] == 0).all() and (pictures[0][20:40, 28:36, 3] == 255).all()
    heard, given = (read_speech(p).samples for p in (talk.path / "speech.wav", files / "speech.wav"))
    assert len(heard) == len(given)
    for refused in (
        lambda: pipeline(files / "portrait.png", files / "speech.wav", tmp_path / "o.mp4", options),
        lambda: talk.save(tmp_path / "o.mp4"),
    ):
        with pytest.raises(InputError, match="cannot be transparent"):
            refused()
    assert list(tmp_path.iterdir()) == [tmp_path / "o"]


def test_a_transparent_reenactment(pipeline, files, tmp_path) -> None:
    options = ReenactOptions(background="transparent")
    reenact(pipeline, files / "silent.mp4", tmp_path / "o.webm", tmp_path / "t", options)
    assert probe(tmp_path / "o.webm").duration == pytest.approx(0.24)
    real = iio.imread(tmp_path / "t" / "000000.png")
    assert real.shape == (512, 512, 4) and (real[200:300, 220:290, 3] > 200).all()
    with pytest.raises(InputError, match="cannot be transparent"):
        reenact(pipeline, files / "silent.mp4", tmp_path / "o.mp4", None, options)


@pytest.mark.parametrize(
    "changes", [{"size": 8}, {"size": 9000}, {"seed": -1}, {"mouth": float("nan")}, {"mouth": 9.0}]
)
def test_impossible_options(changes: dict) -> None:
    with pytest.raises(InputError, match=next(iter(changes))):
        TalkOptions(**changes)


def test_a_clip_repeats_itself(pipeline, files, tmp_path) -> None:
    exact = SDTalkPipeline(toy_model(trained=False, plane_size=128), pipeline.tracker)
    reenactment = prepare(exact, files / "clip.mp4")
    pairs = list(frame_pairs(exact, reenactment))
    assert len(pairs) == 6 and reenactment.note == ""
    prediction, real = (np.stack(side).astype(float) for side in zip(*pairs, strict=True))
    assert prediction.shape == (6, 512, 512, 3)
    error = np.abs(prediction - real).mean(axis=(1, 2, 3))
    assert error[0] < 6, "the first frame is the source"
    frozen = np.abs(prediction[0] - real).mean(axis=(1, 2, 3))
    assert error[-1] < 0.8 * frozen[-1], "the poses are followed"
    done = reenact(exact, files / "clip.mp4", tmp_path / "o.mp4", tmp_path / "t.mp4")
    assert done.frames == 6 == len(frames_of(tmp_path / "o.mp4")) == len(frames_of(tmp_path / "t.mp4"))
    assert probe(tmp_path / "o.mp4").has_sound and probe(tmp_path / "t.mp4").has_sound


def test_a_clip_without_sound_moves_a_portrait(pipeline, files, tmp_path) -> None:
    options = ReenactOptions(str(files / "portrait.png"), "white")
    done = reenact(pipeline, files / "silent.mp4", tmp_path / "o.mp4", None, options)
    assert "no sound" in done.note and not probe(tmp_path / "o.mp4").has_sound
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]


def test_reenact_refuses_outputs_that_clash(pipeline, files, tmp_path) -> None:
    same = tmp_path / "o.mp4"
    with pytest.raises(InputError, match="both output and target"):
        reenact(pipeline, files / "clip.mp4", same, same)
    with pytest.raises(InputError, match="also an input"):
        reenact(pipeline, files / "clip.mp4", same, files / "clip.mp4")
