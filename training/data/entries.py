"""Index records: clips of a prepared data set, their metadata, and the byte ranges of the shards that hold them."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError

SPLITS = ("train", "dev", "test")
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What a clip may be called: no dots, which WebDataset takes for the end of a key."""

REMEDY = "Copy the data set again, or run training/prepare.py again: it writes the index anew."


@dataclass(frozen=True)
class Span:
    """Bytes of a shard that are whole members of its tar, headers included.

    Attributes:
        shard: The shard's path inside the data set.
        offset: Where the bytes begin.
        size: How many.
        crc32: Their checksum.
    """

    shard: str
    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Piece(Span):
    """Consecutive frames of a clip that are read at once.

    Attributes:
        first: Number of the first frame within the clip.
        count: How many frames.
    """

    first: int
    count: int


@dataclass(frozen=True)
class ClipEntry:
    """A clip as the index has it.

    Attributes:
        key: Its name, unique in the data set.
        person: Who is shown.
        dataset: Where it comes from.
        split: "train", "dev" or "test"; a person is in one only.
        frames: Its length, at 25 a second.
        own_speech: Whether the sound is the voice of the person shown.
        record: Where its tracks, sound and metadata lie.
        pieces: Where its frames lie, in order.
    """

    key: str
    person: str
    dataset: str
    split: str
    frames: int
    own_speech: bool
    record: Span
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class ClipMetadata:
    """What is known about a clip; the `.json` beside its arrays.

    Attributes:
        key: See `ClipEntry`; so for person, dataset, split, frames and own_speech.
        person: See there.
        dataset: See there.
        split: See there.
        frames: See there.
        own_speech: See there.
        video: Name of the video it was cut from.
        start_s: Where in that video it begins.
        crop: left, top, side: the square that was kept, in px of the upright video with square pixels.
        source_fps: Frames a second of the video.
        source_size: Its width and height in px.
        audio_late_ms: How late the sound was; it has been moved by that.
        audio_late_from: "manifest", "measured" or "none".
        quality: Measurements by name, each a number or a list of numbers (None: not measured). The same names in all
            clips of a data set, or `datasets` will not show those that its first clip lacks.
        notes: Anything else worth knowing.
    """

    key: str
    person: str
    dataset: str
    split: str
    frames: int
    own_speech: bool
    video: str = ""
    start_s: float = 0.0
    crop: dict[str, float] = field(default_factory=dict)
    source_fps: float = 0.0
    source_size: list[int] = field(default_factory=list)
    audio_late_ms: float = 0.0
    audio_late_from: str = "none"
    quality: dict[str, float | list[float] | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: bytes, source: str) -> "ClipMetadata":
        """Read a clip's metadata; `source` says where they come from.

        Raises:
            InputError: They are not complete, not valid, or no JSON.
        """
        try:
            metadata = cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise InputError(source, f"these are no metadata of a clip ({error})", REMEDY) from error
        problem = check_clip(metadata)
        if problem:
            raise InputError(source, problem, REMEDY)
        return metadata


def entry_to_json(clip: ClipEntry) -> dict[str, Any]:
    """A clip for the index; its frames and its record lie in shards of one name."""
    return {
        "key": clip.key,
        "person": clip.person,
        "dataset": clip.dataset,
        "split": clip.split,
        "frames": clip.frames,
        "own_speech": clip.own_speech,
        "shard": Path(clip.record.shard).name,
        "record": [clip.record.offset, clip.record.size, clip.record.crc32],
        "pieces": [[p.offset, p.size, p.crc32, p.first, p.count] for p in clip.pieces],
    }


def entry_from_json(data: dict[str, Any]) -> ClipEntry:
    """The opposite of `entry_to_json`.

    Raises:
        KeyError, TypeError, ValueError: It is none; the message says why.
    """
    shard = str(data["shard"])
    if "/" in shard or "\\" in shard or shard.startswith("."):
        raise ValueError(f"{shard!r} is no name of a shard")
    pieces = tuple(Piece(f"frames/{shard}", *_whole(piece, 5)) for piece in data["pieces"])
    entry = ClipEntry(
        **{name: data[name] for name in ("key", "person", "dataset", "split", "frames", "own_speech")},
        record=Span(f"clips/{shard}", *_whole(data["record"], 3)),
        pieces=pieces,
    )
    problem = check_clip(entry)
    if problem:
        raise ValueError(problem)
    at = 0
    for piece in pieces:
        if piece.first != at or piece.count < 1:
            raise ValueError(f"the pieces of {entry.key} are not all of its frames in order")
        at += piece.count
    if at != entry.frames:
        raise ValueError(f"{entry.key} has {entry.frames} frames, and its pieces have {at}")
    return entry


def check_clip(clip: ClipEntry | ClipMetadata) -> str:
    """What is wrong with a clip's names and numbers; "" for nothing."""
    if not isinstance(clip.key, str) or not KEY.fullmatch(clip.key):
        return f"{clip.key!r} is no key of a clip: letters, digits, - and _, at most 80"
    if not isinstance(clip.person, str) or not clip.person or not isinstance(clip.dataset, str):
        return f"{clip.key}: person and dataset have to be texts"
    if clip.split not in SPLITS:
        return f"{clip.key}: {clip.split!r} is none of the splits {', '.join(SPLITS)}"
    if type(clip.frames) is not int or clip.frames < 1 or type(clip.own_speech) is not bool:
        return f"{clip.key}: frames has to be a number over 0, own_speech true or false"
    return ""


def _whole(values: Any, count: int) -> list[int]:
    if len(values) != count or any(type(v) is not int or v < 0 for v in values):
        raise ValueError(f"{values!r} are not {count} whole numbers")
    return values
