"""Tests of bad inputs to the command line: one line that names the input, exit code 2, nothing left behind."""

import io
import json
import pickle
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy import EXAMPLE, save_portrait, save_speech, toy_model

from sdtalk.checkpoint import load_model
from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.video import open_writer


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs with nothing wrong, and a checkpoint of toy size."""
    folder = tmp_path_factory.mktemp("good")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav")
    toy_model().save_pretrained(folder / "toy")
    return folder


def run(good: Path, output: Path, changes: dict[str, object]) -> int:
    choice = {"portrait": good / "portrait.png", "speech": good / "speech.wav", "--model": good / "toy"}
    choice |= {"-o": output, "--pose": "still", "--blink": "none", "--size": 64, **changes}
    words = [str(choice.pop("portrait")), str(choice.pop("speech"))]
    return main([*words, *(str(word) for pair in choice.items() for word in pair)])


def refused(good: Path, folder: Path, changes: dict[str, object], capsys: pytest.CaptureFixture) -> str:
    """Run with changed arguments in a folder whose content must not change; returns the line."""
    before = sorted(folder.rglob("*"))
    code = run(good, changes.pop("-o", folder / "talk.mp4"), changes)  # type: ignore[arg-type]
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("sdtalk: ")]
    assert len(lines) == 1 and captured.err.splitlines()[-1] == lines[0] and "Traceback" not in captured.err
    assert lines[0].endswith(".") and lines[0].count(": ") >= 2
    assert sorted(folder.rglob("*")) == before
    return lines[0]


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8))


def write_sound(path: Path, samples: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * samples))


def write_nan(path: Path) -> None:
    from scipy.io import wavfile

    wavfile.write(path, 16_000, np.full(8000, np.nan, np.float32))


def write_dumb_video(path: Path) -> None:
    with open_writer(path, (64, 64)) as writer:
        for _ in range(5):
            writer.write(np.zeros((64, 64, 3), np.uint8))


BAD: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "empty picture": ("portrait", "a.png", lambda p: p.write_bytes(b""), "empty"),
    "text as a picture": ("portrait", "a.jpg", lambda p: p.write_text("not a picture"), "not a picture"),
    "truncated picture": ("portrait", "a.png", lambda p: p.write_bytes(EXAMPLE.read_bytes()[:5000]), "damaged"),
    "folder as a picture": ("portrait", "a.png", lambda p: p.mkdir(), "not a file"),
    "missing picture": ("portrait", "a.png", lambda p: None, "no such file"),
    "1 x 1 picture": ("portrait", "a.png", lambda p: noise(1).save(p), "no face"),
    "no face": ("portrait", "a.png", lambda p: noise(200).save(p), "no face"),
    "sound as a picture": ("portrait", "a.png", lambda p: save_speech(p), "not a picture"),
    "empty sound": ("speech", "a.wav", lambda p: p.write_bytes(b""), "empty"),
    "text as a sound": ("speech", "a.mp3", lambda p: p.write_text("no sound"), "no sound"),
    "picture as a sound": ("speech", "a.wav", lambda p: noise(9).save(p, "PNG"), "sound"),
    "missing sound": ("speech", "a.wav", lambda p: None, "no such file"),
    "0 seconds": ("speech", "a.wav", lambda p: write_sound(p, 0), "sound"),
    "one sample": ("speech", "a.wav", lambda p: write_sound(p, 1), "less than a video frame"),
    "NaN": ("speech", "a.wav", write_nan, "not numbers"),
    "video without a sound track": ("speech", "a.mp4", write_dumb_video, "no sound track"),
    "truncated sound": ("speech", "a.wav", lambda p: _truncated(p), "cut off"),
    "text as a pose": ("--pose", "a.mp4", lambda p: p.write_text("no video"), "not a video"),
    "missing pose": ("--pose", "a.mp4", lambda p: None, "no such file"),
    "picture as a pose": ("--pose", "a.png", lambda p: noise(64).save(p), "still picture"),
    "pose without a face": ("--pose", "a.mp4", write_dumb_video, "no face"),
    "missing blink": ("--blink", "blinks", lambda p: None, "no such choice"),
    "text as a background": ("--background", "a.txt", lambda p: p.write_text("red?"), "not a picture"),
    "missing background": ("--background", "a.png", lambda p: None, "no such colour and no such file"),
    "output of another kind": ("-o", "talk.avi", lambda p: None, ".mp4"),
    "folder as output": ("-o", "talk.mp4", lambda p: p.mkdir(), "cannot be written"),
    "model that is not there": ("--model", "nothing", lambda p: None, "no such folder"),
    "file as a model": ("--model", "model.bin", lambda p: p.write_bytes(b"x"), "it is a file"),
    "empty folder as a model": ("--model", "folder", lambda p: p.mkdir(), "config.json"),
}  # fmt: skip


def _truncated(path: Path) -> None:
    save_speech(path, 3)
    path.write_bytes(path.read_bytes()[:30_000])


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    argument, name, make, says = BAD[kind]
    path = tmp_path / name
    make(path)
    line = refused(good, tmp_path, {argument: path}, capsys)
    assert name in line and says in line


@pytest.mark.parametrize(
    ("argument", "value"),
    [("--size", 5), ("--size", 100_000), ("--seed", -1), ("--mouth", "nan"), ("--mouth", -1), ("--pose", "idel"),
     ("--blink", "often"), ("--background", "redd"), ("--device", "tpu"), ("--device", "cuda:99")],
)  # fmt: skip
def test_bad_values(
    argument: str, value: object, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert str(value) in refused(good, tmp_path, {argument: value}, capsys)


def test_output_over_an_input(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_dumb_video(tmp_path / "a.mp4")
    before = (tmp_path / "a.mp4").read_bytes()
    line = refused(good, tmp_path, {"-o": tmp_path / "a.mp4", "--pose": tmp_path / "a.mp4"}, capsys)
    assert "also an input" in line and (tmp_path / "a.mp4").read_bytes() == before


def test_disk_that_is_full(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    assert "cannot be written" in refused(good, tmp_path, {"-o": Path("/dev/full/talk.mp4")}, capsys)


def _with(name: str, tensor: torch.Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors.pop(name, None)
        save_file(tensors | ({} if tensor is None else {name: tensor}), folder / "model.safetensors")

    return change


def _config(**entries: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text()) | entries
        (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return change


class Bomb:
    """Does harm when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harm"),)


def _pickled(folder: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump(Bomb(), buffer)
    (folder / "model.safetensors").write_bytes(buffer.getvalue())


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


SHAPE = (1, 2, 3)
BAD_CHECKPOINTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing tensor": (_with("neural_renderer.out.bias", None), "'neural_renderer.out.bias' is missing"),
    "extra tensor": (_with("extra", torch.ones(1)), "'extra' does not belong there"),
    "wrong shape": (_with("neural_renderer.out.bias", torch.ones(SHAPE)), "has the shape (1, 2, 3) instead of (12,)"),
    "NaN": (_with("neural_renderer.out.bias", torch.full((12,), torch.nan)), "neural_renderer.out.bias"),
    "text": (lambda f: (f / "model.safetensors").write_text("weights"), "not a complete safetensors file"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "not a complete safetensors file"),
    "pickle": (_pickled, "not a complete safetensors file"),
    "truncated": (_cut, "not a complete safetensors file"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "is missing"),
    "config is no JSON": (lambda f: (f / "config.json").write_text("{"), "no JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "sizes"),
    "unknown entry": (_config(colour=1), "the entry 'colour' is unknown"),
    "missing entry": (_config(plane_size=None), "'plane_size' is missing"),
    "entry of another type": (_config(plane_size="48"), "plane_size = '48'"),
    "entry out of range": (_config(motion_width=-3), "motion_width = -3"),
    "entry that asks for all memory": (_config(plane_size=1 << 40), "plane_size"),
    "another size": (_config(motion_width=16), "has the shape"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_CHECKPOINTS)
def test_bad_checkpoints(kind: str, tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((good / "toy" / name).read_bytes())
    change, says = BAD_CHECKPOINTS[kind]
    change(tmp_path)
    with pytest.raises(InputError) as error:
        load_model(tmp_path)
    line = str(error.value)
    assert says in line and line.startswith(str(tmp_path)) and "\n" not in line
    assert not Path("harm").exists()


def test_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="^model 'nobody/nothing': .*not in the cache") as error:
        load_model("nobody/nothing")
    assert "\n" not in str(error.value)


def _cmyk(path: Path) -> None:
    with Image.open(EXAMPLE) as image:
        image.convert("RGB").resize((256, 256)).convert("CMYK").save(path, "JPEG")


def _alpha(path: Path) -> None:
    with Image.open(EXAMPLE) as image:
        small = image.convert("RGBA").resize((256, 256))
    small.putalpha(Image.new("L", small.size, 250))
    small.save(path, "PNG")


def _sixteen_bits(path: Path) -> None:
    with Image.open(EXAMPLE) as image:
        grey = np.asarray(image.convert("L").resize((256, 256)), np.uint16)
    Image.fromarray(grey * 257).save(path, "PNG")


def _on_its_side(path: Path) -> None:
    with Image.open(EXAMPLE) as image:
        small = image.convert("RGB").resize((256, 256)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    small.save(path, "JPEG", exif=exif)


def _animated(path: Path) -> None:
    with Image.open(EXAMPLE) as image:
        frame = image.convert("RGB").resize((256, 256))
    frame.save(path, "GIF", save_all=True, append_images=[noise(256)])


FINE: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "CMYK": ("portrait", "a.jpg", _cmyk),
    "alpha, and a wrong ending": ("portrait", "a.jpeg", _alpha),
    "16 bits": ("portrait", "a.png", _sixteen_bits),
    "EXIF": ("portrait", "a.jpg", _on_its_side),
    "animation": ("portrait", "a.gif", _animated),
    "stereo, 44.1 kHz": ("speech", "a.wav", lambda p: save_speech(p, 0.1, 44_100, 2)),
    "silence": ("speech", "a.wav", lambda p: write_sound(p, 1600)),
    "colour": ("--background", "336699", lambda p: None),
    "picture behind": ("--background", "a.png", lambda p: noise(40).save(p)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FINE)
def test_what_should_just_work(kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    argument, name, make = FINE[kind]
    make(tmp_path / name)
    value = tmp_path / name if (tmp_path / name).exists() else name
    speech = {"speech": save_speech(tmp_path / "short.wav", 0.04)}
    assert run(good, tmp_path / "talk.mp4", {**speech, argument: value}) == 0, capsys.readouterr().err
    assert (tmp_path / "talk.mp4").stat().st_size > 1000
    assert ("first of its frames" in capsys.readouterr().err) == (kind == "animation")
