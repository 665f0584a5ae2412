"""Remembered results and inputs: what a browser keeps of a visit and hands back, believed only as far as it is checked.

Anybody can send anything in its place. Files are taken only from the folder of uploads and results, whose names nobody
can guess, and options only if their control could have sent them.
"""

import math
import mimetypes
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from sdtalk.demo.inputs import Given, as_hex
from sdtalk.errors import InputError

MOST_RESULTS = 20
"""The oldest of more results are forgotten."""

FORGOTTEN_AFTER_S = 24 * 3600
"""Age at which a browser forgets a result; the server deletes its files long before."""

LONGEST_TEXT = 4096
"""Characters of a value that may come back; no path is longer."""

VIDEO = ("video/",)
FILES = {"portrait": ("image/",), "speech": ("audio/", *VIDEO), "driver": VIDEO, "picture": ("image/",)}
"""Inputs that are files, and the kinds they may be of."""

REMEMBERED = tuple(name for name in Given.names() if name not in ("consent", "by_program"))
"""Inputs that a browser keeps. Consent is asked again each time."""

_KINDS = mimetypes.MimeTypes()
for _suffix, _kind in {
    ".heic": "image/heic",
    ".avif": "image/avif",
    ".webp": "image/webp",
    ".m4a": "audio/mp4",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
}.items():
    _KINDS.add_type(_kind, _suffix)


def kept_file(path: object, kinds: tuple[str, ...]) -> str | None:
    """A path that came from a browser, if it is a file that the page serves, of one of some kinds; else None.

    Args:
        path: Anything.
        kinds: Beginnings of media types, such as "video/".
    """
    if not isinstance(path, str) or len(path) > LONGEST_TEXT or "\0" in path:
        return None
    folder, file = Path(os.path.abspath(get_upload_folder())), Path(path)
    # Gradio keeps FOLDER/HASH/NAME; compared as text, so that ".." and links lead nowhere
    if file != folder / file.parent.name / file.name or {file.parent.name, file.name} & {"..", "."}:
        return None
    kind = _KINDS.guess_type(file.name, strict=False)[0] or ""
    if file.name.startswith(".") or not kind.startswith(kinds) or kind == "image/svg+xml":
        return None
    linked = file.is_symlink() or file.parent.is_symlink()
    return path if file.is_file() and not linked else None


@dataclass(frozen=True)
class Result:
    """A video that was made during this visit.

    Attributes:
        number: Counts the results of a visit, from 1.
        video: Path of the video, which may be gone.
        made_at: When it was finished, seconds since 1970.
        seconds: How long it is.
        given: What it was made of: fields of `Given` and their values, as `read_inputs` leaves them.
    """

    number: int
    video: str
    made_at: float
    seconds: float
    given: dict[str, Any]

    @classmethod
    def read(cls, kept: object) -> "Result | None":
        """What a browser kept of a result; None if it can be none."""
        if not isinstance(kept, dict):
            return None
        number, video, made_at, seconds = (kept.get(n) for n in ("number", "video", "made_at", "seconds"))
        if not _is_number(number) or not 1 <= number < 1e6 or not isinstance(video, str):  # type: ignore
            return None
        if not _is_number(made_at) or not _is_number(seconds):
            return None
        if not 0 <= made_at < 1e11 or not 0 <= seconds < 1e6 or len(video) > LONGEST_TEXT:  # type: ignore
            return None
        return cls(int(number), video, float(made_at), float(seconds), read_inputs(kept.get("given")))  # type: ignore

    def file(self) -> str | None:
        """The video, as long as the server has it."""
        return kept_file(self.video, VIDEO)


def read_results(kept: object, now: float) -> list[Result]:
    """Results that a browser kept, newest first.

    Args:
        kept: Anything.
        now: Seconds since 1970.
    """
    read = [Result.read(one) for one in kept[: 2 * MOST_RESULTS]] if isinstance(kept, list) else []
    by_number = {one.number: one for one in read if one and now - one.made_at < FORGOTTEN_AFTER_S}
    return [by_number[number] for number in sorted(by_number, reverse=True)][:MOST_RESULTS]


def written(results: list[Result]) -> list[dict[str, Any]]:
    """Results as a browser keeps them."""
    return [asdict(result) for result in results]


def read_inputs(kept: object) -> dict[str, Any]:
    """Inputs that a browser kept: plain values by the names of `REMEMBERED`; nothing of the rest."""
    if not isinstance(kept, dict):
        return {}
    return {name: kept[name] for name in REMEMBERED if name in kept and _is_plain(kept[name])}


def as_control_sends(control: gr.components.Component, value: object) -> Any:
    """A value if a control that is no file could have sent it, or else what the control shows at first."""
    first = control.value  # type: ignore[attr-defined]
    if isinstance(control, gr.Radio | gr.Dropdown):
        return value if any(value == choice for _, choice in control.choices) else first
    if isinstance(control, gr.ColorPicker):
        return value if isinstance(value, str) and _is_colour(value) else first
    if isinstance(control, gr.Slider):
        return value if _is_number(value) and control.minimum <= value <= control.maximum else first  # type: ignore
    if isinstance(control, gr.Number):
        return int(value) if _is_number(value) and 0 <= value < 2**31 else first  # type: ignore
    return first


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_plain(value: object) -> bool:
    return _is_number(value) or (isinstance(value, str) and len(value) <= LONGEST_TEXT)


def _is_colour(value: str) -> bool:
    try:
        return bool(as_hex(value))
    except InputError:
        return False
