"""Text to speech by the voices of this machine: Piper, espeak-ng, or macOS's own. Nothing is ever downloaded."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from sdtalk.errors import InputError
from sdtalk.weights.assets import data_folder

LONGEST_TEXT = 5000
"""Characters; about six minutes of speech."""

PATIENCE_S = 600
"""A program that takes longer is stopped."""

NO_VOICE = (
    "Install Piper with a voice file (`sdtalk doctor` says where), or espeak-ng (Debian: apt install espeak-ng),"
    " or give a recording."
)

Samples = Int16[np.ndarray, " samples"] | Int16[np.ndarray, "samples channels"]


@dataclass(frozen=True)
class Voice:
    """A voice of this machine.

    Attributes:
        engine: "piper", "espeak-ng" or "say".
        name: What the engine calls it; of Piper the name of its file.
        language: Such as "en-us", or "".
        path: Of Piper's file; None: the engine knows its voices by name.
    """

    engine: str
    name: str
    language: str = ""
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.engine}:{self.name}"


@dataclass(frozen=True)
class Engine:
    """A program that speaks.

    Attributes:
        program: What it is called.
        listed: Finds its voices, the usual one first; gets the program's path.
        command: Its arguments for a voice, and the file to write; the text comes through standard input.
    """

    program: str
    listed: Callable[[str], list[Voice]]
    command: Callable[[Voice, Path], list[str]]


def piper_folders() -> list[Path]:
    """Where voice files of Piper are looked for."""
    home = Path.home()
    shares = (home / ".local/share", Path("/usr/local/share"), Path("/usr/share"))
    folders = [data_folder() / "voices", home / "piper", home / "piper-voices"]
    return folders + [share / name for share in shares for name in ("piper-voices", "piper/voices", "piper")]


def _piper_voices(program: str) -> list[Voice]:
    """Voices with their description beside them, in the usual folders and up to four levels below."""
    found: dict[str, Voice] = {}
    for folder in piper_folders():
        for depth in range(5):
            for path in sorted(folder.glob("/".join(["*"] * depth + ["*.onnx"]))):
                if path.with_name(f"{path.name}.json").is_file():
                    found.setdefault(path.stem, _piper_voice(path))
    return list(found.values())


def _piper_voice(path: Path) -> Voice:
    """A voice file; its language is in its description."""
    try:
        described = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        language = str(described["language"]["code"])
    except (OSError, ValueError, LookupError, TypeError):  # of older files, or damaged: Piper will say so
        language = ""
    return Voice("piper", path.stem, language, path)


def _espeak_voices(program: str) -> list[Voice]:
    """What `--voices` lists: priority, language, age/gender, name, file, other languages; English first."""
    lines = _output([program, "--voices"]).splitlines()[1:]
    languages = dict.fromkeys(columns[1] for line in lines if len(columns := line.split()) > 3)
    first = [name for name in ("en-us", "en-gb", "en") if name in languages]
    rest = [name for name in languages if name not in first]
    return [Voice("espeak-ng", name, name) for name in first + rest]


def _say_voices(program: str) -> list[Voice]:
    """What `say -v ?` lists: a name, which may have spaces, a language, and an example."""
    if sys.platform != "darwin":  # other systems have other programs of this name
        return []
    lines = (
        re.match(r"(.+?)\s+([a-z]{2,3}[_-]\w+)\s+#", line)
        for line in _output([program, "-v", "?"]).splitlines()
    )
    return [Voice("say", found[1], found[2].replace("_", "-").lower()) for found in lines if found]


def _output(command: list[str]) -> str:
    """What a program says; "" where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


ENGINES = {
    "piper": Engine(
        "piper", _piper_voices,
        lambda voice, out: ["--model", str(voice.path), "--output_file", str(out)],
    ),
    "espeak-ng": Engine(
        "espeak-ng", _espeak_voices, lambda voice, out: ["-v", voice.name, "-b", "1", "-w", str(out), "--stdin"]
    ),
    "say": Engine(
        "say", _say_voices,
        lambda voice, out: ["-v", voice.name, "-o", str(out), "--data-format=LEI16@22050", "-f", "-"],
    ),
}  # fmt: skip
"""The best first."""


def find_voices() -> list[Voice]:
    """The voices of this machine, the best first; looked for anew each time, in some 10 ms."""
    programs = {name: shutil.which(engine.program) for name, engine in ENGINES.items()}
    return [v for name, program in programs.items() if program for v in ENGINES[name].listed(program)]


def choose_voice(name: str = "") -> Voice:
    """The voice that a name means.

    Args:
        name: As `Voice` or its name says it; a language, for the first voice of it; the path of a voice file of Piper;
            "": the first voice.

    Raises:
        InputError: There is no such voice, or none at all.
    """
    if name.endswith(".onnx"):
        return _voice_file(Path(name))
    voices = find_voices()
    if not voices:
        raise InputError("the text", "this machine has no voice that could speak it", NO_VOICE)
    wanted = name.lower().replace("_", "-")
    for told in (str, lambda v: v.name, lambda v: v.language):
        for voice in voices:
            if not name or told(voice).lower().replace("_", "-") == wanted:
                return voice
    some = ", ".join(str(voice) for voice in voices[:6])
    remedy = f"Choose one of {some}{', ...' if len(voices) > 6 else ''}; `sdtalk doctor` lists them."
    raise InputError(f"voice {name!r}", "this machine has no such voice", remedy)


def _voice_file(path: Path) -> Voice:
    """A voice of Piper by its path."""
    for needed in (path, path.with_name(f"{path.name}.json")):
        if not needed.is_file():
            raise InputError(
                str(needed), "there is no such file", "A voice of Piper has two: .onnx and .onnx.json."
            )
    if shutil.which(ENGINES["piper"].program) is None:
        problem = "Piper, whose voice this is, is not installed"
        raise InputError(str(path), problem, "Install it: pip install piper-tts.")
    return _piper_voice(path.absolute())


def checked_text(text: str) -> str:
    """A text as one line.

    Raises:
        InputError: It is empty, has nothing to be spoken, or is too long.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not any(c.isalnum() for c in line):
        raise InputError("the text", "there is nothing in it that could be spoken", "Write a sentence.")
    if len(line) > LONGEST_TEXT:
        problem = f"it has {len(line):,} characters, and {LONGEST_TEXT:,} are the most"
        raise InputError("the text", problem, "Cut it into parts.")
    return line


def synthesise(text: str, voice: Voice | str = "") -> tuple[int, Samples]:
    """Speak a text.

    Args:
        text: What to say, in the voice's language.
        voice: A voice, or what `choose_voice` takes.

    Returns:
        Sample rate in Hz and samples, as `read_speech` and the pipeline take them.

    Raises:
        InputError: No such voice, a text that cannot be spoken, or the program fails.

    Examples:
        >>> pipeline("photo.jpg", synthesise("Good morning.", "en-us")).save("talk.mp4")
    """
    line = checked_text(text)
    chosen = voice if isinstance(voice, Voice) else choose_voice(voice)
    with tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
        out = Path(folder, "speech.wav")
        try:
            said = _spoken(chosen, line, out)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _failure(chosen, str(error)) from error
        try:
            return _samples(out)
        except (OSError, EOFError, wave.Error) as error:
            raise _failure(chosen, said or str(error)) from error


def _spoken(voice: Voice, line: str, out: Path) -> str:
    """Let a voice write a file; what its program says last about it, or ""."""
    engine = ENGINES[voice.engine]
    done = subprocess.run(
        [shutil.which(engine.program) or engine.program, *engine.command(voice, out)],
        input=f"{line}\n".encode(),
        capture_output=True,
        timeout=PATIENCE_S,
        cwd=out.parent,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},  # of a Piper in Python
    )
    return (done.stderr.decode("utf-8", errors="replace").strip().splitlines() or [""])[-1]


def _failure(voice: Voice, said: str) -> InputError:
    return InputError(f"voice {str(voice)!r}", f"it could not speak ({said})", "Choose another voice.")


def _samples(path: Path) -> tuple[int, Samples]:
    with wave.open(str(path), "rb") as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
        width, channels = file.getsampwidth(), file.getnchannels()
    if width != 2 or len(data) < 2 * channels:
        raise EOFError("it said nothing")
    samples = np.frombuffer(data, "<i2").astype(np.int16)
    return rate, samples if channels == 1 else samples.reshape(-1, channels)
