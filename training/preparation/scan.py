"""Video scan, the first reading of a video: its shots, the face in every frame, and other faces beside it.

A frame's findings are one record of a file, written some frames at a time: they need no memory, and a scan that was
interrupted goes on where the file ends.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from sdtalk.errors import InputError
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.detector import overlaps
from sdtalk.tracking.follow import follow_face
from sdtalk.tracking.head_track import MESH_POINTS
from sdtalk.tracking.networks import SURE_FLAG, FaceLandmarks, FaceNetworks
from sdtalk.tracking.tracker import BATCH_BYTES
from sdtalk.video import read_frames
from training.data.atomic import write_atomically
from training.preparation.shots import ShotDetector

FRAME_RECORD = np.dtype(
    [
        ("points", "<f4", (MESH_POINTS, 3)),  # NaN where there is no face
        ("other_px", "<f4"),  # longer side of the largest other face; NaN where nobody looked
        ("shot", "u1"),  # a shot begins with this frame
        ("wanted", "u1"),
        ("group_end", "u1"),  # frames up to here were handed to the networks together
    ]
)

SEARCH_EVERY = 12
"""Every so many frames the whole picture is searched for other faces."""

SAME_FACE_IOU = 0.3
"""Boxes that overlap more (intersection over union) show the same face."""


@dataclass(frozen=True)
class VideoScan:
    """What the first reading of a video found.

    Attributes:
        frames: How many there are, at 25 a second.
        width: Of the video in px, upright, square pixels.
        height: The same.
        fades: Spans of frames that belong to no shot.
        problem: Why reading stopped early, or "".
    """

    frames: int
    width: int
    height: int
    fades: list[list[int]]
    problem: str


def scan_video(
    path: Path,
    folder: Path,
    networks: FaceNetworks,
    wanted: tuple[tuple[float, float], ...] | None = None,
    progress: Callable[[int], None] = lambda frames: None,
) -> VideoScan:
    """Look through a video, or go on looking.

    Args:
        path: The video.
        folder: Where `survey.bin` (a `FRAME_RECORD` a frame) and then `survey.json` are written.
        networks: Find the faces.
        wanted: Intervals in seconds outside of which nobody looks for faces; None: everywhere.
        progress: Told how many frames were read, each time some were.

    Raises:
        InputError: No frame can be read.
    """
    done = folder / "survey.json"
    if done.exists():
        return VideoScan(**json.loads(done.read_text(encoding="utf-8")))
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "survey.bin"
    known, last = _complete_groups(store)
    detector, reading, frames, size = ShotDetector(), _FrameReader(path), 0, (0, 0)
    with store.open("ab", buffering=0) as file:
        for group in _groups(detector.detect(reading.frames()), wanted):
            size = group.pictures[0].shape[1::-1]
            if frames + len(group.pictures) > known:
                records, last = _find_faces(group, networks, None if group.shot else last, frames)
                file.write(records.tobytes())
            frames += len(group.pictures)
            progress(len(group.pictures))
    scan = VideoScan(frames, *size, [list(fade) for fade in detector.fades], reading.problem)
    write_atomically(done, json.dumps(asdict(scan)).encode())
    return scan


def read_records(folder: Path) -> np.ndarray:
    """The findings of a complete scan, read from the file as they are used."""
    return np.memmap(folder / "survey.bin", FRAME_RECORD, "r")


class _FrameReader:
    """Frames up to where a file is damaged; what is wrong there is kept, so that what came before is, too."""

    def __init__(self, path: Path) -> None:
        self.path, self.problem = path, ""

    def frames(self) -> Iterator[np.ndarray]:
        count = 0
        try:
            for frame in read_frames(self.path, strict=True):
                yield frame
                count += 1
        except InputError as error:
            if count == 0:
                raise
            self.problem = str(error)


@dataclass(frozen=True)
class _Group:
    """Consecutive frames of one shot, all of them wanted or none."""

    pictures: list[np.ndarray]
    shot: bool
    wanted: bool


def _groups(
    frames: Iterator[tuple[np.ndarray, bool]], wanted: tuple[tuple[float, float], ...] | None
) -> Iterator[_Group]:
    """Groups that the networks take at once; the same ones in every run."""
    pictures: list[np.ndarray] = []
    shot = inside = False
    for number, (frame, begins) in enumerate(frames):
        seconds = (number + 0.5) / FRAME_RATE_HZ
        now = wanted is None or any(start <= seconds < end for start, end in wanted)
        begins |= now != inside
        if pictures and (begins or len(pictures) == min(max(BATCH_BYTES // frame.nbytes, 8), 32)):
            yield _Group(pictures, shot, inside)
            pictures, shot = [], False
        pictures.append(frame)
        shot |= begins
        inside = now
    if pictures:
        yield _Group(pictures, shot, inside)


def _find_faces(
    group: _Group, networks: FaceNetworks, last: FaceLandmarks | None, number: int
) -> tuple[np.ndarray, FaceLandmarks | None]:
    """Find the face in a group's frames, the first of which has a number; and where it was last seen."""
    records = np.zeros(len(group.pictures), FRAME_RECORD)
    records["points"] = records["other_px"] = np.nan
    records["shot"][0], records["wanted"], records["group_end"][-1] = group.shot, group.wanted, 1
    if not group.wanted:
        return records, None
    pictures = torch.from_numpy(np.stack(group.pictures))
    count = len(pictures)
    around = sorted({0, count - 1} | {i for i in range(count) if (number + i) % SEARCH_EVERY == 0})
    found = networks.find_faces(pictures[around])
    if last is None and not any(found):
        records["other_px"][around] = 0
        return records, None
    faces = follow_face(networks, pictures, last)
    for i, face in enumerate(faces):
        if face is not None:
            records["points"][i] = face.points.cpu().numpy()
    for i, there in zip(around, found, strict=True):
        records["other_px"][i] = _largest_other(there, faces[i])
    return records, next((face for face in reversed(faces) if face is not None), None)


def _largest_other(found: list[FaceLandmarks], face: FaceLandmarks | None) -> float:
    """Longer side of the largest face that is not the given one."""
    if face is None:
        return 0.0
    others = [
        f for f in found if f.score >= SURE_FLAG and float(overlaps(face.box, f.box[None])) < SAME_FACE_IOU
    ]
    return max((f.side for f in others), default=0.0)


def _complete_groups(store: Path) -> tuple[int, FaceLandmarks | None]:
    """Cut a file of records after its last whole group; its frames, and the face that group ended with."""
    count = store.stat().st_size // FRAME_RECORD.itemsize if store.exists() else 0
    if not count:
        store.write_bytes(b"")
        return 0, None
    records = np.memmap(store, FRAME_RECORD, "r", shape=(count,))
    ends = np.flatnonzero(records["group_end"]) + 1
    known = int(ends[-1]) if len(ends) else 0
    os.truncate(store, known * FRAME_RECORD.itemsize)
    start = int(ends[-2]) if len(ends) > 1 else 0
    for record in records[start:known][::-1]:
        if np.isfinite(record["points"]).all():
            return known, FaceLandmarks(torch.from_numpy(record["points"].copy()), 1.0)
    return known, None
