"""Playback: the order in which frames of a clip are shown to a longer sound, and reading them so."""

from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from sdtalk.driving.head_motion import forth_and_back
from sdtalk.video import read_frames

LOOPS = ("pingpong", "hold", "cut")
"""A clip that ends before the sound goes backward and forward, stands still, or ends the sound, too."""

BACKWARD_BYTES = 256 * 2**20
"""Frames held at once where a video is read backward; a part of it is decoded for each such part."""


def frame_order(loop: str, clip: int, wanted: int) -> Int[Tensor, " frames"]:
    """Which frame of a clip is shown when.

    Args:
        loop: One of `LOOPS`.
        clip: Frames of the clip.
        wanted: Frames that cover the sound.
    """
    if loop == "pingpong":
        return forth_and_back(clip, wanted)
    if loop == "hold":
        return torch.arange(wanted).clamp(max=clip - 1)
    return torch.arange(min(clip, wanted))


def frames_in_order(
    path: str | Path, fps: int | float, order: Int[Tensor, " frames"]
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Read a video's frames in an order of `frame_order`, in constant memory; each may be written to.

    Args:
        path: The video.
        fps: As for `read_frames`.
        order: Numbers of frames; neighbours differ by at most 1.

    Raises:
        InputError: As `read_frames`.
    """
    numbers = order.tolist()
    for start, stop, step in _runs(numbers):
        if step < 0:
            yield from _backward(path, fps, numbers[stop - 1], stop - start)
        elif step > 0:
            yield from islice(read_frames(path, fps, first=numbers[start]), stop - start)
        else:
            frame = next(read_frames(path, fps, first=numbers[start]))
            yield from (frame.copy() for _ in range(stop - start))


def _runs(numbers: list[int]) -> Iterator[tuple[int, int, int]]:
    """Start, stop and step of stretches that go one way."""
    start, way = 0, None
    for index, (before, after) in enumerate(pairwise(numbers)):
        step = after - before
        if way is not None and step != way:
            yield start, index + 1, way
            start, way = index + 1, None
            continue
        way = step
    if numbers:
        yield start, len(numbers), 1 if way is None else way


def _backward(
    path: str | Path, fps: int | float, first: int, count: int
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Frames from the last of a stretch to its first."""
    left, part = count, 1  # the first frame tells how many fit
    while left:
        part = min(part, left)
        frames = list(islice(read_frames(path, fps, first=first + left - part), part))
        yield from reversed(frames)
        left -= part
        part = max(8, BACKWARD_BYTES // frames[0].nbytes)
