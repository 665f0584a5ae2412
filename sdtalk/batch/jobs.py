"""Batch jobs: one talking video each, read from the rows of a .jsonl or .csv file."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sdtalk.background import parse_background
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.presets import preset
from sdtalk.tracking.found_faces import LARGEST

NEEDED = ("portrait", "speech")
WORDS = {"pose": ("idle", "still"), "blink": ("natural", "none")}
"""What an option can be besides the path of a video."""


@dataclass(frozen=True)
class Job:
    """One video of a batch.

    Attributes:
        portrait: Picture with one face.
        speech: Recording, or a video with sound.
        output: Name of the video in the batch's folder; None: made of the names of portrait and speech.
        options: How the video is made.
        row: What the job is called in reports; 0: its place among the jobs, from 1.
        problem: What is wrong with the row it was read from, or ""; such a job is reported and not made.
        face: Which face of the picture, counted from left to right from 1; 0: the largest.
        turn: Turn the picture clockwise first: 0, 90, 180 or 270 degrees.

    Examples:
        >>> Job("ann.jpg", "hello.wav", options=TalkOptions(pose="still"))
    """

    portrait: str | Path
    speech: str | Path
    output: str | None = None
    options: TalkOptions = TalkOptions()
    row: int = 0
    problem: str = ""
    face: int = LARGEST
    turn: int = 0


def read_jobs(path: str | Path) -> list[Job]:
    """Read a file of jobs; a row that cannot be understood becomes a job with a `problem`.

    Args:
        path: JSON lines with an object each (.jsonl), or a table with a row of column names (.csv; separated by
            commas, semicolons or tabs). The names are portrait, speech, output, face, turn, preset (one of
            `sdtalk.presets`) and the fields of `TalkOptions`; what is absent, empty or null takes its default, or what
            the preset says. Paths are relative to this file, output to the batch's folder.

    Returns:
        Jobs in order; `row` counts from the top of the file, as editors and spreadsheets do.

    Raises:
        InputError: It cannot be read, is of another kind, or lists no jobs.
    """
    path = Path(path)
    kinds = {".jsonl": _json_rows, ".csv": _csv_rows}
    if path.suffix.lower() not in kinds:
        raise InputError(
            str(path), "it is neither a .jsonl nor a .csv file", "Give a list of jobs as one of them."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark at the start
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(
            str(path), f"it cannot be read ({problem})", "Check the path of the jobs."
        ) from error
    jobs = [_job(path.parent, row, values) for row, values in kinds[path.suffix.lower()](path, text)]
    if not jobs:
        raise InputError(str(path), "it lists no jobs", "Write one job a line.")
    return jobs


Row = tuple[int, dict[str, Any] | str]
"""Number of a row, and its values by name, or what is wrong with it."""


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # not at the other line ends that Unicode knows
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            values = f"it is no JSON ({error})"
        yield number, values if isinstance(values, dict | str) else "it is no JSON object"


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    separator = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    names: list[str] = []
    try:
        for number, cells in enumerate(rows, 1):
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                _check_columns(path, names)
            elif len(cells) > len(names):
                yield number, f"it has {len(cells)} cells, and the first row {len(names)}"
            else:
                yield (
                    number,
                    {n: _value(n, c.strip()) for n, c in zip(names, cells, strict=False) if c.strip()},
                )
    except csv.Error as error:
        raise InputError(str(path), f"it is no table ({error})", "Save it as CSV again.") from error


def _check_columns(path: Path, names: list[str]) -> None:
    for name in NEEDED:
        if name not in names:
            raise InputError(
                str(path), f"its first row names no column {name!r}", "Name portrait and speech."
            )
    if len(set(names)) < len(names):
        raise InputError(str(path), "its first row names a column twice", "Name every column once.")


TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
"""How a truth value may be written in a table."""


def _value(name: str, cell: str) -> str | int | float:
    """A cell as the type of its option, where it reads so."""
    kinds: dict[str, type] = {field.name: type(field.default) for field in fields(TalkOptions)}
    kinds |= {"face": int, "turn": int}
    if kinds.get(name) is bool:
        return TRUTH.get(cell.strip().lower(), cell)
    try:
        return kinds.get(name, str)(cell)
    except ValueError:
        return cell  # `TalkOptions` says what is wrong with it


def _job(base: Path, row: int, values: dict[str, Any] | str) -> Job:
    try:
        if isinstance(values, str):
            raise InputError("the row", values, "Correct it.")
        given = {name: value for name, value in values.items() if value not in (None, "")}
        portrait, speech = (base / _text(name, given.pop(name, None)) for name in NEEDED)
        output = _text("output", given.pop("output")) if "output" in given else None
        start = preset(_text("preset", given.pop("preset", "natural")))
        face, turn = (_whole(name, given.pop(name, 0)) for name in ("face", "turn"))
        placed = {name: _placed(base, name, value) for name, value in given.items()}
        return Job(portrait, speech, output, TalkOptions.of(start, **placed), row, face=face, turn=turn)
    except InputError as error:
        return Job("", "", row=row, problem=str(error))


def _text(name: str, value: object) -> str:
    if value is None:
        raise InputError(name, "there is none", f"Give the path of the {name}.")
    if not isinstance(value, str):
        raise InputError(name, f"{value!r} is no path", f"Give the path of the {name} as a text.")
    return value


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(name, f"{value!r} is no whole number", "Give a whole number.")
    return value


def _placed(base: Path, name: str, value: Any) -> Any:
    """An option's value, where it is a path relative to the jobs' file."""
    if not isinstance(value, str):
        return value
    is_path = name in WORDS and value not in WORDS[name]
    if name == "background":
        try:
            is_path = parse_background(value).picture is not None
        except InputError:  # no colour
            is_path = True
    return str(base / value) if is_path else value
