"""Dataset layouts: lists the videos of a folder, a manifest, HDTF or MEAD."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError
from training.data.entries import SPLITS
from training.preparation.source_video import SourceVideo, list_videos, make_video_id
from training.video_files import VIDEO_SUFFIXES

SOUND_SUFFIXES = (".m4a", ".wav", ".mp3", ".aac", ".flac", ".ogg")


def _folder(folder: Path) -> list[SourceVideo]:
    """A video in a sub-folder shows the person that the sub-folder is called after; else everyone is another."""
    sources = []
    for path in list_videos(folder):
        person = path.parts[0] if len(path.parts) > 1 else path.stem
        sources.append(SourceVideo(folder / path, make_video_id(path), person, folder.resolve().name))
    return sources


def _manifest(path: Path) -> list[SourceVideo]:
    """A list of entries: file, split, identity, dataset, own_speech_audio, audio_late_ms; all but file may be absent.

    Files that are no videos (portraits, recordings) are left out.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(str(path), "it is no JSON that can be read", "Give a manifest.json.") from error
    if not isinstance(entries, list):
        raise InputError(str(path), "it holds no list of entries", 'Write [{"file": "a.mp4"}, ...].')
    sources = [_entry(entry, path, number) for number, entry in enumerate(entries)]
    return [source for source in sources if source.path.suffix.lower() in VIDEO_SUFFIXES]


def _entry(entry: Any, manifest: Path, number: int) -> SourceVideo:
    where = f"{manifest}, entry {number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise InputError(where, "it names no file", 'Write {"file": "a.mp4", ...}.')
    split, late = entry.get("split"), entry.get("audio_late_ms")
    if split is not None and split not in SPLITS:
        raise InputError(where, f"{split!r} is none of the splits {', '.join(SPLITS)}", "Choose one of them.")
    if late is not None and type(late) not in (int, float):
        raise InputError(
            where, f"audio_late_ms is {late!r}, no number", "Give milliseconds, or leave it out."
        )
    relative = Path(entry["file"])
    own = entry.get("own_speech_audio")
    return SourceVideo(
        manifest.parent / relative,
        make_video_id(relative if not relative.is_absolute() else Path(relative.name)),
        str(entry.get("identity") or relative.stem),
        str(entry.get("dataset") or manifest.resolve().parent.name),
        split=split,
        own_speech=None if own is None else own is True,  # "unverified" serves for looks, not for speech
        audio_late_ms=None if late is None else float(late),
    )


_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")

HDTF_SAME_PERSON = {"WhipJimClyburn": "JamesClyburn"}
"""Names in HDTF's lists under which one person appears twice (their lists give both the same address)."""


def _hdtf(folder: Path) -> list[SourceVideo]:
    """HDTF: its `*_annotion_time.txt` (sic) lists somewhere below the folder, and the videos the lists name.

    A list's line is a name and the intervals of the talking face: `Radio11.mp4 00:30-01:00 01:30-02:30`. Videos are
    whole (`Radio11.mp4`, `RD_Radio11.mp4`) or, as HDTF's instructions have it, cut already (`Radio11_0.mp4`,
    `RD_Radio11_000.mp4`). Videos that no list names are left out; their `*_crop_wh.txt` is for one resolution of each
    video and not needed: the head is found and framed anew.
    """
    lists = sorted(folder.rglob("*_annotion_time.txt"))
    if not lists:
        problem = "it holds no *_annotion_time.txt"
        remedy = "Put HDTF's folder HDTF_dataset (https://github.com/MRzzm/HDTF) beside the videos."
        raise InputError(str(folder), problem, remedy)
    times = {}
    for path in lists:
        subset = path.name.partition("_")[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            if words := line.split():
                name = words[0].removesuffix(".mp4")
                times[name] = (subset, tuple(_interval(span, f"{path}, {name}") for span in words[1:]))
    sources = []
    for relative in list_videos(folder):
        stem = relative.stem
        for subset in ("RD", "WDA", "WRA"):
            stem = stem.removeprefix(f"{subset}_")
        cut = re.fullmatch(r"(.+)_(\d{1,3})", stem)
        name = stem if stem in times else cut[1] if cut else ""
        if name not in times:
            continue
        subset, intervals = times[name]
        source = SourceVideo(folder / relative, make_video_id(relative), _hdtf_person(subset, name), "HDTF")
        sources.append(replace(source, intervals=intervals if stem == name else None))
    return sources


def _hdtf_person(subset: str, name: str) -> str:
    """The number at a name's end counts a person's videos (AmyKlobuchar0), but for Radio1, Radio2, ...: others."""
    person = name if subset == "RD" else name.rstrip("0123456789")
    return f"{subset}_{HDTF_SAME_PERSON.get(person, person)}"


def _interval(span: str, where: str) -> tuple[float, float]:
    clocks = [_CLOCK.fullmatch(clock) for clock in span.split("-")]
    if len(clocks) != 2 or None in clocks:
        raise InputError(where, f"{span!r} is no interval", "Write it as 00:30-01:00.")
    start, end = (int(c[1] or 0) * 3600 + int(c[2]) * 60 + float(c[3]) for c in clocks if c)
    return start, end


def _mead(folder: Path) -> list[SourceVideo]:
    """MEAD: M003/video/front/angry/level_1/001.mp4, its sound in M003/audio/angry/level_1/001.m4a, where present."""
    sources = []
    for relative in list_videos(folder):
        parts = relative.parts
        if "video" not in parts[1:-1]:
            continue
        at = parts.index("video", 1)
        person, view, rest = parts[at - 1], parts[at + 1], parts[at + 2 :]
        sound = _with_suffix(folder.joinpath(*parts[:at], "audio", *rest))
        source = SourceVideo(
            folder / relative, make_video_id(relative), person, f"MEAD/{view}", own_speech=True
        )
        sources.append(replace(source, sound_path=sound))
    return sources


def _with_suffix(path: Path) -> Path | None:
    """The sound file of that name, whatever its kind."""
    return next((p for s in SOUND_SUFFIXES if (p := path.with_suffix(s)).is_file()), None)


LAYOUTS: dict[str, Callable[[Path], list[SourceVideo]]] = {
    "folder": _folder,
    "manifest": _manifest,
    "hdtf": _hdtf,
    "mead": _mead,
}
