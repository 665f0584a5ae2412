"""The index of a prepared data set: which clips there are, and where in the shards their bytes lie."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError

VERSION = 1
INDEX_NAME = "index.json"
SPLITS = ("train", "dev", "test")
TRACKERS = ("face_mesh", "flame")
SOUNDS = ("mel", "hubert")
ALIGNMENTS = (None, "ahead", "centred")
KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""What a clip may be called: no dots, which WebDataset takes for the end of a key."""

_REMEDY = "Copy the data set again, or run training/prepare.py again: it writes the index anew."


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
        record: Where its tracks, sound and facts lie.
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
class ClipFacts:
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
    def from_json(cls, data: bytes, source: str) -> "ClipFacts":
        """Read a clip's facts; `source` says where they come from.

        Raises:
            InputError: They are not complete, not valid, or no JSON.
        """
        try:
            facts = cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise InputError(source, f"these are no facts of a clip ({error})", _REMEDY) from error
        problem = check_clip(facts)
        if problem:
            raise InputError(source, problem, _REMEDY)
        return facts


@dataclass(frozen=True)
class Index:
    """A prepared data set.

    Attributes:
        tracker: "face_mesh" or "flame": what the heads were tracked with.
        sound: "mel" or "hubert": the features that are kept beside the sound.
        sound_width: Numbers per row of these features: 80, or HuBERT's width.
        token_alignment: Which tokens a frame hears, see `sdtalk.hubert.windows`; None for mel.
        clips: The clips, by key.
    """

    tracker: str
    sound: str
    sound_width: int
    token_alignment: str | None
    clips: tuple[ClipEntry, ...]

    def of(self, split: str) -> list[ClipEntry]:
        """The clips of a split."""
        return [clip for clip in self.clips if clip.split == split]

    def spans(self) -> Iterator[tuple[ClipEntry, Span]]:
        """Everything that the shards have to hold, with the clip it belongs to."""
        for clip in self.clips:
            yield clip, clip.record
            for piece in clip.pieces:
                yield clip, piece

    def check_shards(self, size_of: Callable[[str], int | None], source: str) -> None:
        """See that all shards are there and long enough.

        Args:
            size_of: Bytes of a shard by its path inside the data set; None where there is none.
            source: The data set's address, for the message.

        Raises:
            InputError: A shard is missing, or cut short.
        """
        needed: dict[str, int] = {}
        for _, span in self.spans():
            needed[span.shard] = max(needed.get(span.shard, 0), span.offset + span.size)
        for shard, end in sorted(needed.items()):
            size = size_of(shard)
            where, remedy = f"{source}/{shard}", "Copy this shard again; the others can stay."
            if size is None:
                raise InputError(where, "this shard is missing, and the index names clips in it", remedy)
            if size < end:
                problem = f"this shard is cut short: it has {size:,} bytes, and its clips need {end:,}"
                raise InputError(where, problem, remedy)

    def to_json(self) -> str:
        """The text of index.json."""
        return json.dumps(
            {
                "version": VERSION,
                "tracker": self.tracker,
                "sound": self.sound,
                "sound_width": self.sound_width,
                "token_alignment": self.token_alignment,
                "clips": [entry_to_json(clip) for clip in self.clips],
            },
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str | bytes, source: str) -> "Index":
        """Read an index; `source` says where it comes from.

        Raises:
            InputError: It is damaged, or of another version.
        """
        try:
            data = json.loads(text)
            version = data["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(source, "it is damaged: no index can be read from it", _REMEDY) from error
        if version != VERSION:
            problem = f"it is of version {version!r}, and this program reads version {VERSION}"
            raise InputError(source, problem, "Use the SDTalk that wrote it, or prepare the videos again.")
        try:
            clips = tuple(entry_from_json(clip) for clip in data["clips"])
            head = [data[name] for name in ("tracker", "sound", "sound_width", "token_alignment")]
            index = cls(*head, clips=tuple(sorted(clips, key=lambda clip: clip.key)))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(source, f"it is damaged ({error!r})", _REMEDY) from error
        problem = _check(index)
        if problem:
            raise InputError(source, problem, _REMEDY)
        return index

    def write(self, folder: Path) -> None:
        """Write index.json; a reader sees the old one or the new one, never half of it."""
        write_atomically(folder / INDEX_NAME, self.to_json().encode())


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


def check_clip(clip: ClipEntry | ClipFacts) -> str:
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


def _check(index: Index) -> str:
    for value, known in (
        (index.tracker, TRACKERS),
        (index.sound, SOUNDS),
        (index.token_alignment, ALIGNMENTS),
    ):
        if value not in known:
            return f"{value!r} is none of {', '.join(map(str, known))}"
    if type(index.sound_width) is not int or index.sound_width < 1:
        return f"sound_width is {index.sound_width!r}"
    if not index.clips:
        return "it names no clips"
    for one, other in zip(index.clips, index.clips[1:], strict=False):
        if one.key == other.key:
            return f"two clips are called {one.key!r}"
    return ""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name never stands for half of it, even if the machine stops.

    Raises:
        InputError: It cannot be written (full disk, no permission).
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """The message for a file that cannot be written."""
    remedy = "Make room or give another folder, and run it again: what is complete is kept."
    return InputError(str(path), f"it cannot be written ({error.strerror or error})", remedy)
