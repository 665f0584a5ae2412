"""Inspection: what a video or picture of anybody's says of its origin, by metadata, label, signed claim and mark."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sdtalk.errors import InputError
from sdtalk.provenance.claim import Claim, library, read_claim
from sdtalk.provenance.detection import FoundMark, MarkSearch
from sdtalk.video import read_frames
from sdtalk.video.label import AI_GENERATED, label_share

STEP, MOST_FRAMES = 5, 300
"""Every fifth of 25 frames a second is looked at, for a minute: neighbours hide the mark in the same way."""
LABELLED_SHARE = 0.6
"""Correlation with our label from which a corner is said to show it; unlabelled ones stay below 0.4 (measured)."""


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Attributes:
        path: The file.
        comment: What stands in its metadata, of us or not; "": nothing.
        label: Whether our visible label is in its corner.
        claim: Its signed claim; None: none, or no library to read it.
        claims_read: Whether there is a library to read claims.
        mark: Our invisible mark; None: not found.
        frames: So many were looked at.
    """

    path: Path
    comment: str
    label: bool
    claim: Claim | None
    claims_read: bool
    mark: FoundMark | None
    frames: int


def inspect_file(path: str | Path) -> Inspection:
    """Look at a file; memory does not depend on its length, and no network is asked.

    Args:
        path: A video, a picture, or a folder of PNG frames.

    Raises:
        InputError: No frame of it can be read.
    """
    path = Path(path)
    search, labels, count = MarkSearch(), 0.0, 0
    frames = _frames(path)
    with closing(frames):  # type: ignore[type-var]
        for frame in islice(frames, MOST_FRAMES):
            search.add(frame)
            labels += label_share(frame, AI_GENERATED)
            count += 1
    if count == 0:
        remedy = "Give a video, a picture, or a folder of frames that was made here."
        raise InputError(str(path), "it holds no frames", remedy)
    claims_read = library() is not None
    claim = read_claim(path) if path.is_file() else None
    label = labels / count >= LABELLED_SHARE
    return Inspection(path, _comment(path), label, claim, claims_read, search.found(), count)


def _frames(path: Path) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    if not path.is_dir():
        yield from islice(read_frames(path), 0, None, STEP)
        return
    for picture in sorted(path.glob("*.png"))[::STEP]:
        yield from read_frames(picture)


def _comment(path: Path) -> str:
    """The comment in a file's metadata, in whichever way its kind has one."""
    if path.is_dir():
        path = min(path.glob("*.png"))
    try:
        with Image.open(path) as picture:  # ffmpeg tells no comments of these
            comment = picture.info.get("Comment") or picture.info.get("comment") or ""
            return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    except OSError:
        pass  # a video
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *"-v error -protocol_whitelist file,pipe -i".split()]
    command += [f"file:{path.absolute()}", "-f", "ffmetadata", "pipe:1"]
    told = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL).stdout
    for line in told.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition("=")
        if name.lower() == "comment":
            return value.replace("\\", "")
    return ""
