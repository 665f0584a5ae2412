"""Index of a prepared data set (index.json): its clips, and where in the shards their bytes lie."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sdtalk.errors import InputError
from training.data.atomic import write_atomically
from training.data.entries import REMEDY, ClipEntry, Span, entry_from_json, entry_to_json

VERSION = 1
INDEX_NAME = "index.json"
TRACKERS = ("face_mesh", "flame")
SOUNDS = ("mel", "hubert")
ALIGNMENTS = (None, "ahead", "centred")


@dataclass(frozen=True)
class Index:
    """A prepared data set.

    Attributes:
        tracker: "face_mesh" or "flame": what the heads were tracked with.
        sound: "mel" or "hubert": the features that are kept beside the sound.
        sound_width: Numbers per row of these features: 80, or HuBERT's width.
        token_alignment: Which tokens a frame hears, see `sdtalk.speech.hubert.windows`; None for mel.
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
            raise InputError(source, "it is damaged: no index can be read from it", REMEDY) from error
        if version != VERSION:
            problem = f"it is of version {version!r}, and this program reads version {VERSION}"
            raise InputError(source, problem, "Use the SDTalk that wrote it, or prepare the videos again.")
        try:
            clips = tuple(entry_from_json(clip) for clip in data["clips"])
            head = [data[name] for name in ("tracker", "sound", "sound_width", "token_alignment")]
            index = cls(*head, clips=tuple(sorted(clips, key=lambda clip: clip.key)))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(source, f"it is damaged ({error!r})", REMEDY) from error
        problem = _check(index)
        if problem:
            raise InputError(source, problem, REMEDY)
        return index

    def write(self, folder: Path) -> None:
        """Write index.json; a reader sees the old one or the new one, never half of it."""
        write_atomically(folder / INDEX_NAME, self.to_json().encode())


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
