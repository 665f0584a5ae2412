"""Tests of the Python interface: lazy import, inputs as people have them, lazy talks, reused heads, wrong types."""

import gc
import re
import subprocess
import sys
import wave
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from script_processes import awaited, start_code
from toy import save_portrait, save_speech, toy_model

import sdtalk
from sdtalk import Head, InputError, SDTalkPipeline, Talk, TalkOptions
from sdtalk.image import read_picture
from sdtalk.process import uncollected
from sdtalk.speech.audio import read_speech
from sdtalk.speech.waveform import Waveform, as_waveform
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import probe, read_frames

STILL = {"pose": "still", "blink": "none", "size": 64}


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline(toy_model(), Tracker.from_bundled())


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav", 0.2)
    return folder


def all_frames(talk: Talk) -> np.ndarray:
    return np.stack(list(talk.frames()))


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_after_imports_as_it_was_before(collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == collects
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled() == collects
    finally:
        gc.enable()


def test_importing_the_package_loads_neither_pytorch_nor_gradio() -> None:
    loaded = "[m for m in ('torch', 'gradio', 'numpy') if m in sys.modules]"
    code = f"import sys, sdtalk; print(sdtalk.__version__, *{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [sdtalk.__version__]


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(hasattr(sdtalk, name) and name in dir(sdtalk) for name in sdtalk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Shelf'"):
        sdtalk.Shelf  # noqa: B018


@pytest.mark.parametrize("kind", ["str", "bytes", "PIL", "uint8", "float32", "float64"])
def test_a_photo_as_people_have_it(files: Path, kind: str) -> None:
    path = files / "portrait.png"
    expected = read_picture(path).pixels
    source = {
        "str": str(path),
        "bytes": path.read_bytes(),
        "PIL": Image.open(path),
        "uint8": expected,
        "float32": (expected / 255).astype(np.float32),
        "float64": expected / 255,
    }[kind]
    assert np.array_equal(read_picture(source).pixels, expected)
    if kind == "PIL":
        assert source.size == (256, 256), "the caller's picture stays as it is"


def test_transparent_and_grey_arrays() -> None:
    grey = np.full((4, 5), 100, np.uint8)
    assert (read_picture(grey).pixels == 100).all()
    clear = np.zeros((4, 5, 4), np.uint8)
    picture = read_picture(clear)
    assert (picture.pixels == 255).all() and picture.alpha is not None and not picture.alpha.any()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\) is not \[height, width, 3\]"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        (np.full((8, 8, 3), 255.0), "not all from 0 to 1"),
        (np.full((8, 8, 3), np.nan), "not all from 0 to 1"),
        (np.zeros((8, 8, 3), np.int64), "int64 is no type of pixels"),
        (b"", "empty"),
        (b"no picture", "not a picture"),
    ],
)
def test_no_picture(source: object, words: str) -> None:
    with pytest.raises(InputError, match=f"portrait: .*{words}"):
        read_picture(source, "portrait")


@pytest.mark.parametrize("kind", ["int16", "float32", "float64", "tensor", "stereo", "row"])
def test_sound_as_people_have_it(files: Path, kind: str) -> None:
    with wave.open(str(files / "speech.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    scaled = (samples / 32768).astype(np.float32)
    source, rate = {
        "int16": ((16_000, samples), None),
        "float32": ((16_000, scaled), None),
        "float64": (scaled.astype(np.float64), 16_000),
        "tensor": (torch.from_numpy(scaled), 16_000),
        "stereo": ((16_000, np.stack([scaled, scaled], 1)), None),
        "row": (torch.from_numpy(scaled)[None], 16_000),
    }[kind]
    speech = read_speech(source, sampling_rate=rate)
    assert isinstance(speech.original, Waveform) and speech.original.rate_hz == 16_000
    np.testing.assert_allclose(speech.samples, read_speech(files / "speech.wav").samples, atol=1e-6)


def test_another_rate_is_resampled_as_in_a_file(tmp_path: Path) -> None:
    path = save_speech(tmp_path / "s.wav", 0.5, rate=44_100)
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    speech = read_speech((44_100, samples))
    np.testing.assert_allclose(speech.samples, read_speech(path).samples, atol=1e-5)
    assert speech.original.seconds == pytest.approx(0.5)


SOUND = np.zeros(16_000, np.float32)


@pytest.mark.parametrize(
    ("source", "rate", "words"),
    [
        (SOUND, None, "sampling rate of the array is not given"),
        ((0, SOUND), None, "0 Hz is not possible"),
        ((16_000.5, SOUND), None, "no whole number of Hz"),
        ((16_000, SOUND[:10]), None, "less than a video frame"),
        ((16_000, SOUND[:0]), None, "lasts 0 seconds"),
        ((16_000, np.zeros((2, 2, 9))), None, "neither"),
        ((16_000, np.zeros((2, 16_000))), None, "neither"),
        ((16_000, SOUND + np.nan), None, "not numbers"),
        ((16_000, SOUND + 3000), None, "full scale is 1"),
        ((16_000, SOUND.astype(np.int64)), None, "int64 is no type of sound"),
        ((16_000, [0.0, 0.1]), None, "an object of type list is no sound"),
        ({"array": 1}, None, "an object of type dict is no sound"),
    ],
)
def test_no_sound(source: object, rate: int | None, words: str) -> None:
    with pytest.raises(InputError, match=f"speech: .*{words}"):
        waveform = as_waveform(source, rate)
        read_speech((waveform.rate_hz, waveform.samples))


def test_nothing_is_rendered_before_it_is_wanted(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path
) -> None:
    talk = pipeline(files / "portrait.png", files / "speech.wav", **STILL)
    assert (len(talk), talk.frames_per_second, talk.path) == (5, 25, None)
    assert "rendering" not in talk.timings and "not saved" in repr(talk) and "5 frames, 0.20 s" in repr(talk)
    first = next(talk.frames())
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    frames = all_frames(talk)
    assert frames.shape == (5, 64, 64, 3) and np.array_equal(frames[0], first)
    assert np.array_equal(frames, all_frames(talk)), "again from the first frame on"
    path = talk.save(tmp_path / "talk.mp4")
    assert path == talk.path and "talk.mp4" in repr(talk) and talk.timings["encoding"] > 0
    decoded = np.stack(list(read_frames(path))).astype(float)
    assert np.abs(decoded - frames).mean() < 4, "what is written is what was seen"


def test_the_sound_of_arrays_is_in_the_video(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    sound = (44_100, (np.sin(np.arange(44_100) / 20) * 9000).astype(np.int16))
    talk = pipeline(read_picture(files / "portrait.png").pixels, sound, tmp_path / "talk.mp4", **STILL)
    assert len(talk) == 25 and probe(talk.path).has_sound
    assert read_speech(talk.path).samples.std() == pytest.approx(9000 / 32768 / 2**0.5, rel=0.05)


def test_one_head_for_many_recordings(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    head = pipeline.reconstruct(files / "portrait.png")
    assert isinstance(head, Head) and re.fullmatch(r"Head\([\d,]+ Gaussians on cpu\)", repr(head))
    assert head.note.startswith("The face is only")
    for seconds in (0.2, 0.4):
        speech = save_speech(tmp_path / f"{seconds}.wav", seconds)
        talk = pipeline.talk(head, speech, **STILL)
        whole = pipeline(files / "portrait.png", speech, **STILL)
        assert talk.note == whole.note and np.array_equal(all_frames(talk), all_frames(whole))


def test_options_by_keyword_and_by_record(pipeline: SDTalkPipeline, files: Path) -> None:
    record = TalkOptions(pose="still", size=96)
    talk = pipeline(files / "portrait.png", files / "speech.wav", options=record, size=64)
    assert talk.options == TalkOptions(pose="still", size=64)
    assert TalkOptions.of(background=Path("wall.png")).background == "wall.png"
    assert TalkOptions.of(size=np.int64(64), mouth=1).size == 64


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"mout": 1.0}, "option 'mout': there is no such option. Choose of pose, blink"),
        ({"mouth": "wide"}, "option mouth: 'wide' is no number"),
        ({"expression": 1.5}, "expression 1.5: no possible share of the photo's smile"),
        ({"expression": float("nan")}, "expression nan"),
        ({"size": 64.5}, "option size: 64.5 is no whole number"),
        ({"seed": True}, "option seed: True is no whole number"),
        ({"pose": None}, "option pose: None is no text"),
    ],
)
def test_wrong_options_get_a_sentence(choices: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TalkOptions.of(**choices)


def test_the_keywords_of_the_docstring_are_those_of_the_options() -> None:
    described = SDTalkPipeline.__call__.__doc__.partition("choices: ")[2].partition("Raises:")[0]
    assert all(re.search(rf"\b{f.name}\b", described) for f in fields(TalkOptions))


def test_a_bar_is_shown_on_request(pipeline, files, tmp_path, capsys: pytest.CaptureFixture) -> None:
    pipeline(files / "portrait.png", files / "speech.wav", tmp_path / "a.mp4", progress=True, **STILL)
    assert "rendering: 100%" in capsys.readouterr().err
    pipeline(files / "portrait.png", files / "speech.wav", tmp_path / "b.mp4", **STILL)
    assert capsys.readouterr().err == ""


def test_a_notebook_shows_a_video(pipeline: SDTalkPipeline, files: Path) -> None:
    talk = pipeline(files / "portrait.png", files / "speech.wav", **STILL)
    html = talk._repr_html_()
    assert html.startswith("<video controls") and "data:video/mp4;base64,AAAA" in html
    assert talk._repr_html_() is html, "rendered once"
    clear = pipeline(files / "portrait.png", files / "speech.wav", background="transparent", **STILL)
    assert "data:video/webm;base64," in clear._repr_html_()
    assert talk.path is None, "the user has not saved it"


def test_moving_between_devices(pipeline: SDTalkPipeline) -> None:
    assert pipeline.to("cpu") is pipeline and repr(pipeline) == "SDTalkPipeline('mini', cpu, float32)"
    with pytest.raises(InputError, match="gpu"):
        pipeline.to("gpu")


PICTURE = "Give a path, a PIL image, an array [height, width, 3], or the bytes of a file."
SOUND_REMEDY = "Give a path, (sampling rate, array), or a mono tensor with sampling_rate=."
WRONG = """
from toy import toy_model
from sdtalk import InputError, SDTalkPipeline, TalkOptions
from sdtalk.tracking.tracker import Tracker
pipeline = SDTalkPipeline(toy_model(), Tracker.from_bundled())
for portrait, speech, options in [
    (3, "{speech}", {{}}), (None, "{speech}", {{}}), ("{portrait}", 3, {{}}), ("{portrait}", ["a"], {{}}),
    ("{portrait}", "{speech}", {{"options": {{"mouth": 1}}}}), ("{portrait}", "{speech}", {{"output": 3}}),
]:
    try:
        pipeline(portrait, speech, **options)
    except InputError as error:
        print(error)
try:
    TalkOptions(mouth="wide")
except InputError as error:
    print(error)
"""


def test_wrong_types_get_a_sentence_where_nothing_else_checks_them(files: Path, tmp_path: Path) -> None:
    """In a process of its own: here the tests' type checker would speak first."""
    code = WRONG.format(portrait=files / "portrait.png", speech=files / "speech.wav")
    printed = tmp_path / "printed"
    assert awaited(start_code(printed, code), printed).splitlines() == [
        f"portrait: an object of type int is no picture. {PICTURE}",
        f"portrait: an object of type NoneType is no picture. {PICTURE}",
        f"speech: an object of type int is no sound. {SOUND_REMEDY}",
        f"speech: an object of type list is no sound. {SOUND_REMEDY}",
        "options: an object of type dict is no TalkOptions. Give TalkOptions(...), or the options by keyword.",
        "output: an object of type int is no path. Give the name of the file to write.",
        "option mouth: 'wide' is no number. Give a number.",
    ]
