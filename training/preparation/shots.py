"""Shot detection: cuts and fades of a video, from thumbnails of its frames."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

THUMBNAIL_SIZE = (48, 32)
"""Width and height that frames are compared at; at this size grain and small motion vanish."""

BINS = 16

LEAST_DIFFERENCE, LEAST_HISTOGRAM_DIFFERENCE = 0.04, 0.06
"""A cut changes pixels by so much of their range on average, and so much of the colour histogram."""

CONTRAST, HISTOGRAM_CONTRAST = 1.2, 2.5
"""And so many times as much as in the frames before and after, on average: fast motion lasts, and keeps the colours."""

NEIGHBOURS = 6
"""Frames to either side that are compared with; so far the detector looks ahead."""

FLASH = 0.4
"""Where a frame soon looks like one from before the change (within this share of it), it was a flash, not a cut."""

FADE_FRAMES = (12, 24)
"""Lengths of the spans (0.5 s, 1 s) in which fades and dissolves are looked for."""

FADE_DIFFERENCE, FADE_STRAIGHTNESS = 0.08, 0.2
"""A fade's ends differ by so much, and its middle differs by at most this share of it from their average."""


class ShotDetector:
    """Finds cuts and fades in one pass.

    A hard cut is a frame that differs from the one before in pixels and in colours, by much more than the frames
    around it do. A fade or dissolve is a second in which the picture goes straight from one to another: its middle is
    the average of its ends, which no motion makes it.

    Attributes:
        fades: Spans of frames [start, stop) that belong to neither shot, in order; complete at the end of `detect`.
    """

    def __init__(self) -> None:
        self.fades: list[tuple[int, int]] = []

    def detect(
        self, frames: Iterator[UInt8[np.ndarray, "height width 3"]]
    ) -> Iterator[tuple[UInt8[np.ndarray, "height width 3"], bool]]:
        """Pass frames on, a few late, each with whether a shot begins with it (the first one's does)."""
        self.fades = []
        held: deque[np.ndarray] = deque()
        thumbnails: deque[np.ndarray] = deque(maxlen=2 * NEIGHBOURS + 2)
        past: deque[np.ndarray] = deque(maxlen=FADE_FRAMES[-1] + 1)
        count = passed = 0
        for frame in frames:
            held.append(frame)
            thumbnail = thumbnail_of(frame)
            thumbnails.append(thumbnail)
            past.append(thumbnail)
            count += 1
            self._look_for_fades(past, count)
            if count > NEIGHBOURS:
                yield held.popleft(), _is_cut(list(thumbnails), len(thumbnails) - 1 - NEIGHBOURS)
                passed += 1
        for left in range(len(held), 0, -1):
            yield held.popleft(), _is_cut(list(thumbnails), len(thumbnails) - left)

    def _look_for_fades(self, past: deque[np.ndarray], count: int) -> None:
        for length in FADE_FRAMES:
            if len(past) <= length:
                return
            first, middle, last = past[-1 - length], past[-1 - length // 2], past[-1]
            change = pixel_difference(first, last)
            if change < FADE_DIFFERENCE:
                continue
            bend = np.abs(middle - (first + last) / 2).mean()
            if bend < FADE_STRAIGHTNESS * change:
                self._add_fade(count - 1 - length, count)

    def _add_fade(self, start: int, stop: int) -> None:
        while self.fades and self.fades[-1][1] >= start:
            before = self.fades.pop()
            start, stop = min(start, before[0]), max(stop, before[1])
        self.fades.append((start, stop))


def thumbnail_of(frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "32 48 3"]:
    """A frame at the size they are compared at, in [0, 1]."""
    step = max(1, min(frame.shape[1] // (4 * THUMBNAIL_SIZE[0]), frame.shape[0] // (4 * THUMBNAIL_SIZE[1])))
    image = Image.fromarray(np.ascontiguousarray(frame[::step, ::step]))
    return np.asarray(image.resize(THUMBNAIL_SIZE, Image.Resampling.BOX), np.float32) / 255


def pixel_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of pixels."""
    return float(np.abs(one - other).mean())


def histogram_difference(one: np.ndarray, other: np.ndarray) -> float:
    """Share of pixels whose colours the other picture has not, whatever their places."""
    shares = []
    for channel in range(3):
        counts = [np.histogram(x[..., channel], BINS, (0, 1))[0] for x in (one, other)]
        shares.append(np.abs(counts[0] - counts[1]).sum() / 2 / one[..., 0].size)
    return float(np.mean(shares))


def _is_cut(thumbnails: list[np.ndarray], at: int) -> bool:
    """Whether a shot begins with a frame, given some before and after it; True where none is before."""
    if at == 0:
        return True
    before, now = thumbnails[at - 1], thumbnails[at]
    change = pixel_difference(before, now)
    if change < LEAST_DIFFERENCE or histogram_difference(before, now) < LEAST_HISTOGRAM_DIFFERENCE:
        return False
    if not _stands_out(thumbnails, at, pixel_difference, CONTRAST):
        return False
    if not _stands_out(thumbnails, at, histogram_difference, HISTOGRAM_CONTRAST):
        return False
    back = [pixel_difference(before, thumbnail) for thumbnail in thumbnails[at + 1 : at + 3]]
    back += [pixel_difference(now, thumbnail) for thumbnail in thumbnails[max(0, at - 3) : at - 1]]
    return min(back, default=change) >= FLASH * change


def _stands_out(
    thumbnails: list[np.ndarray], at: int, change: Callable[[np.ndarray, np.ndarray], float], times: float
) -> bool:
    """Whether the change to a frame is so many times the mean change before it, and after it."""
    steps = [change(one, other) for one, other in zip(thumbnails, thumbnails[1:], strict=False)]
    before, after = steps[max(0, at - 1 - NEIGHBOURS) : at - 1], steps[at : at + NEIGHBOURS]
    return all(steps[at - 1] >= times * np.mean(side) for side in (before, after) if side)
