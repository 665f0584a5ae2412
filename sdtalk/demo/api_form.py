"""Form of the HTTP interface: what a program sends becomes a video job; values are those of the command line.

Text is never taken for the path of a file on this machine: files are sent, or not used.
"""

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import anyio.to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request

from sdtalk.background import colour_of
from sdtalk.demo.inputs import error_message, known_model
from sdtalk.demo.video_job import VideoJob
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.video.formats import FORMATS, WITHOUT_ALPHA
from sdtalk.video.label import AI_GENERATED

FILES = ("portrait", "speech")
WORDS_OR_FILE = {
    "pose": ("idle", "still"),
    "blink": ("natural", "none"),
    "background": ("original", "transparent"),
}
"""Options that are one of these words, or a file; a background is a colour, too."""

TEXTS = ("label", "frame", "shape", "style")
"""Options that are text, and never a path."""

OPTIONS: dict[str, Any] = {field.name: field.default for field in fields(TalkOptions)}
FIELDS = (*FILES, "consent", "model", "face", "turn", "format", *OPTIONS)
VIDEO_FORMATS = tuple(suffix.removeprefix(".") for suffix in FORMATS if suffix)
Number = TypeVar("Number", int, float)
NAMES = {int: "whole number", float: "number"}
YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

MOST_FILES = len(FILES) + len(WORDS_OR_FILE)


async def received(request: Request, folder: Path) -> dict[str, str | Path]:
    """Take in a form (multipart/form-data).

    Args:
        request: Brings it.
        folder: Where files are put, each in a folder of its own, with the name it had.

    Returns:
        Values by parameter: text, or the path of a file.

    Raises:
        InputError: A parameter is not known.
        starlette.exceptions.HTTPException: It is no form, or has too many parts.
    """
    given: dict[str, str | Path] = {}
    async with request.form(max_files=MOST_FILES, max_fields=len(FIELDS)) as form:
        for name, value in form.multi_items():
            if name not in FIELDS:
                raise InputError(name[:40], "there is no such parameter", f"Choose of {', '.join(FIELDS)}.")
            if isinstance(value, UploadFile):
                called = "".join(filter(str.isprintable, Path(value.filename or "").name))
                path = folder / name / (called or "file")
                await anyio.to_thread.run_sync(_store, value.file, path)
                given[name] = path
            else:
                given[name] = value
    return given


def _store(source: BinaryIO, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(source, target)
    except OSError as error:  # a name that is too long, a full disk
        problem = f"it cannot be stored ({error.strerror})"
        raise InputError(path.parent.name, problem, "Send it with a shorter name, or later.") from error


def ordered(
    given: Mapping[str, str | Path], models: list[str], folder: Path, free_label: bool = False
) -> VideoJob:
    """What a form asks for.

    Args:
        given: From `received`.
        models: Names of the models there are; the first is the default.
        folder: Of the job.
        free_label: Whether programs may choose the label, and leave out the invisible mark.

    Raises:
        InputError: Something is missing, or a value is not possible.
    """
    portrait, speech = (_file(given, name) for name in FILES)
    if not _truth(given, "consent", False):
        remedy = "Send the parameter consent=true if the person shown is you or has agreed to this video."
        raise InputError("consent", "it has not been given", remedy)
    if not free_label:
        for name in ("label", "mark"):
            if name in given:
                problem = "this server labels and marks every video in its own way"
                raise InputError(name, problem, "Leave it out, or start the server with --free-label.")
    chosen = {name: _option(given, name) for name in OPTIONS if name in given}
    options = TalkOptions.of(TalkOptions(label=AI_GENERATED), **chosen)
    model = known_model(str(given.get("model") or models[0]), models)
    turn, face = _number(given, "turn", 0), _number(given, "face", 0)
    suffix = _suffix(given, options.transparent)
    return VideoJob(model, portrait, speech, options, folder, face=face, turn=turn, suffix=suffix)


def parameter_of(error: InputError, given: Mapping[str, str | Path]) -> str | None:
    """Which parameter an error is about; None: none of them."""
    for name, value in given.items():
        if isinstance(value, Path) and error.subject == str(value):
            return name
    words = error.subject.removeprefix("option ").lower().split()
    return words[0] if words and words[0] in FIELDS else None


def as_json(error: InputError, given: Mapping[str, str | Path], model_source: str | None) -> dict:
    """An error as programs get it: one sentence, and its parts; without paths of this machine."""
    paths = [str(value) for value in given.values() if isinstance(value, Path)]
    return {
        "error": error_message(error, *paths, model_source),
        "parameter": parameter_of(error, given),
        "problem": error_message(error.problem, *paths, model_source),
        "remedy": error_message(error.remedy, *paths, model_source),
    }


def _file(given: Mapping[str, str | Path], name: str) -> str:
    value = given.get(name)
    if isinstance(value, Path):
        return str(value)
    problem = "it is text, not a file" if value else "there is none yet"
    raise InputError(name, problem, f"Send a file as the parameter {name}.")


def _option(given: Mapping[str, str | Path], name: str) -> str | int | float | bool:
    """The value of an option, in the type that it has."""
    value, kind = given[name], type(OPTIONS[name])
    if name in WORDS_OR_FILE:
        return _words_or_file(name, value)
    if kind is bool:
        return _truth(given, name, OPTIONS[name])
    if kind in (int, float):
        return _number(given, name, OPTIONS[name])
    if isinstance(value, Path) or name not in TEXTS:
        raise InputError(name, "a file is of no use here", "Send text.")
    return value


def _words_or_file(name: str, value: str | Path) -> str:
    words = WORDS_OR_FILE[name]
    colour = name == "background" and isinstance(value, str) and colour_of(value) is not None
    if isinstance(value, Path) or value in words or colour:
        return str(value)
    besides = "a colour, or a picture" if name == "background" else "or a video"
    raise InputError(
        name, f"{value[:40]!r} is no such choice", f"Send {', '.join(words)}, {besides} as a file."
    )


def _truth(given: Mapping[str, str | Path], name: str, default: bool) -> bool:
    value = str(given.get(name, "true" if default else "false")).lower()
    if value not in YES + NO:
        raise InputError(name, f"{value[:40]!r} is neither true nor false", "Send true or false.")
    return value in YES


def _number(given: Mapping[str, str | Path], name: str, default: Number) -> Number:
    value = given.get(name, "")
    if value == "":
        return default
    try:
        return type(default)(str(value))
    except ValueError:
        kind = NAMES[type(default)]
        raise InputError(name, f"{str(value)[:40]!r} is no {kind}", f"Send a {kind}.") from None


def _suffix(given: Mapping[str, str | Path], transparent: bool) -> str:
    kind = str(given.get("format") or ("webm" if transparent else "mp4"))
    if kind not in VIDEO_FORMATS:
        raise InputError(
            "format", f"{kind[:40]!r} is none of ours", f"Send one of {', '.join(VIDEO_FORMATS)}."
        )
    if transparent and f".{kind}" in WITHOUT_ALPHA:
        raise InputError("format", f"an {kind} cannot be transparent", "Send webm, mov or gif.")
    return f".{kind}"
