"""Clip packing: a finished clip as tar members of its shards, the same bytes whoever writes them, and when."""

import dataclasses
import json
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from sdtalk.errors import InputError
from training.data.entries import ClipEntry, ClipMetadata, Piece, Span
from training.data.store import padded

END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)

_AGAIN = "Delete this folder and run training/prepare.py again."


def append_clip(folder: Path, frames: BinaryIO, clips: BinaryIO, shard: str, piece_frames: int) -> ClipEntry:
    """Write one finished clip to the end of both tars.

    Args:
        folder: The clip.
        frames: The tar of its frames.
        clips: The tar of its record.
        shard: What both are called.
        piece_frames: Up to so many frames are read at once in training.

    Raises:
        InputError: The clip is not complete.
    """
    metadata = read_clip_metadata(folder)
    expected = {f"{n:06d}.{kind}" for n in range(metadata.frames) for kind in ("jpg", "png")}
    found = {file.name for file in folder.iterdir() if file.suffix in (".jpg", ".png")}
    if found != expected or not (folder / "clip.npz").is_file():
        odd = min(found ^ expected, default="clip.npz")
        raise InputError(
            str(folder), f"it is no finished clip of {metadata.frames} frames (see {odd})", _AGAIN
        )
    record = (
        tar_member(f"{metadata.key}.json", (folder / "clip.json").read_bytes()),
        tar_member(f"{metadata.key}.npz", (folder / "clip.npz").read_bytes()),
    )
    pieces = []
    for numbers in split_evenly(metadata.frames, piece_frames):
        data = b"".join(_frame(folder, metadata, number) for number in numbers)
        span = _span(frames, f"frames/{shard}", data)
        pieces.append(Piece(**dataclasses.asdict(span), first=numbers.start, count=len(numbers)))
    names = ("key", "person", "dataset", "split", "frames", "own_speech")
    return ClipEntry(
        **{name: getattr(metadata, name) for name in names},
        record=_span(clips, f"clips/{shard}", b"".join(record)),
        pieces=tuple(pieces),
    )


def read_clip_metadata(folder: Path) -> ClipMetadata:
    """The metadata of a finished clip.

    Raises:
        InputError: It has none, or those of another clip.
    """
    path = folder / "clip.json"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(folder), "it is no finished clip: it has no clip.json", _AGAIN) from error
    metadata = ClipMetadata.from_json(data, str(path))
    if metadata.key != folder.name:
        raise InputError(
            str(path), f"its key is {metadata.key!r}, and its folder is called otherwise", _AGAIN
        )
    return metadata


def split_evenly(frames: int, longest: int) -> list[range]:
    """As few pieces as possible, of nearly the same length, so that all frames are drawn as often."""
    count = -(-frames // longest)
    ends = [frames * i // count for i in range(count + 1)]
    return [range(first, end) for first, end in zip(ends, ends[1:], strict=False)]


def tar_member(name: str, data: bytes) -> bytes:
    """Header and content; the same bytes whoever writes them, and when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(padded(len(data)) - len(data))


def _frame(folder: Path, metadata: ClipMetadata, number: int) -> bytes:
    key = f"{metadata.key}-{number:06d}"
    about = json.dumps({"clip": metadata.key, "frame": number, "person": metadata.person})
    return (
        tar_member(f"{key}.jpg", (folder / f"{number:06d}.jpg").read_bytes())
        + tar_member(f"{key}.mask.png", (folder / f"{number:06d}.png").read_bytes())
        + tar_member(f"{key}.json", about.encode())
    )


def _span(file: BinaryIO, shard: str, data: bytes) -> Span:
    span = Span(shard, file.tell(), len(data), zlib.crc32(data))
    file.write(data)
    return span
