"""Tests of text to speech: voices are found, spoken with, and refused; a program of ours stands in for Piper."""

import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from sdtalk.errors import InputError
from sdtalk.speech import synthesis
from sdtalk.speech.audio import read_speech
from sdtalk.speech.synthesis import LONGEST_TEXT, Voice, choose_voice, find_voices, synthesise

PIPER = """#!{python}
import sys, wave
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
text = sys.stdin.buffer.read().decode("utf-8")
if "fail" in options["--model"]:
    sys.exit("the model is broken")
with wave.open(options["--output_file"], "wb") as out:
    out.setparams((1, 2, 16000, 0, "NONE", ""))
    out.writeframes(b"".join(min(ord(c), 30000).to_bytes(2, "little") for c in text.rstrip("\\n")) * 100)
"""


@pytest.fixture
def voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only program that speaks is a stand-in for Piper, with three voices."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    program = programs / "piper"
    program.write_text(PIPER.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    for name, language in (("anna-low", "de_DE"), ("fail-low", "fr_FR"), ("joe-low", "en_US")):
        folder = home / "voices" / language
        folder.mkdir(parents=True)
        (folder / f"{name}.onnx").touch()
        (folder / f"{name}.onnx.json").write_text(f'{{"language": {{"code": "{language}"}}}}')
    (home / "voices" / "alone.onnx").touch()  # without its description Piper cannot use it
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(synthesis, "piper_folders", lambda: [home / "voices"])
    return home / "voices"


def test_a_voice_speaks_what_is_written(voices: Path) -> None:
    rate, samples = synthesise("Grüße,\n  \u4f60\u597d", "anna-low")
    assert rate == 16000
    # one line, in UTF-8, with single spaces: what the stand-in says is what it read
    assert "".join(map(chr, samples[: len(samples) // 100])) == "Grüße, 你好"
    assert len(read_speech((rate, samples)).samples) == len(samples)


@pytest.mark.parametrize(
    "name", ["joe-low", "piper:joe-low", "PIPER:Joe-Low", "en_US", "en-us", "en_US/joe-low.onnx"]
)
def test_voices_have_several_names(voices: Path, name: str) -> None:
    chosen = choose_voice(str(voices / name) if name.endswith(".onnx") else name)
    assert (chosen.name, chosen.language) == ("joe-low", "en_US")


def test_the_first_voice_is_the_usual_one(voices: Path) -> None:
    assert [voice.name for voice in find_voices()] == ["anna-low", "joe-low", "fail-low"]
    assert choose_voice() == find_voices()[0]


@pytest.mark.parametrize(
    ("text", "voice", "told"),
    [
        ("", "", "nothing in it that could be spoken"),
        ("  \n\t", "", "nothing in it that could be spoken"),
        ("?!", "", "nothing in it that could be spoken"),
        ("a" * (LONGEST_TEXT + 1), "", "5,001 characters"),
        ("Hello", "nobody", "no such voice. Choose one of piper:anna-low"),
        ("Hello", "fail-low", "could not speak (the model is broken)"),
        ("Hello", "missing.onnx", "there is no such file"),
        ("Hello", "alone.onnx", "A voice of Piper has two"),
    ],
)
def test_what_cannot_be_spoken_is_told(voices: Path, text: str, voice: str, told: str) -> None:
    voice = str(voices / voice) if voice.endswith(".onnx") else voice
    with pytest.raises(InputError) as error:
        synthesise(text, voice)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_machine_without_voices_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_voices() == []
    with pytest.raises(InputError, match="no voice .* Install Piper"):
        synthesise("Hello")


def test_espeak_ng_speaks() -> None:
    english = next((voice for voice in find_voices() if str(voice) == "espeak-ng:en-us"), None)
    if english is None:
        pytest.skip("espeak-ng is not installed")
    short, long = (
        synthesise(text, english) for text in ("Good morning.", "Good morning, how are you today?")
    )
    assert short[0] == long[0] and 0.3 < len(short[1]) / short[0] < len(long[1]) / long[0] < 5
    assert np.abs(short[1]).max() > 3000


def test_a_voice_names_itself() -> None:
    assert str(Voice("piper", "anna-low")) == "piper:anna-low"
