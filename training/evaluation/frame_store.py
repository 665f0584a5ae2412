"""Frame store: a clip's frames uncompressed in a temporary file, so that they are never in memory together."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sdtalk.errors import InputError

SHEET_COLUMNS, SHEET_PX = 8, 256


class FrameStore:
    """A temporary file of frames of one size; deleted when its block ends."""

    def __init__(self) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="sdtalk-frames-")  # noqa: SIM115 - closed in __exit__
        self._shape: tuple[int, ...] | None = None
        self.count = 0

    def __enter__(self) -> "FrameStore":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def append(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Add a frame.

        Raises:
            InputError: The disk is full.
        """
        self._shape = self._shape or frame.shape
        if frame.shape != self._shape:
            raise ValueError(f"frames of {self._shape} and of {frame.shape}")
        try:
            self._file.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            remedy = "Make room, point TMPDIR to another disk, or use --limit-seconds."
            raise InputError(self._file.name, f"it cannot be written ({error.strerror})", remedy) from error
        self.count += 1

    def frames(self) -> UInt8[np.ndarray, "frame height width 3"]:
        """All frames, read from the file as they are looked at; valid within the block."""
        if self._shape is None:
            return np.zeros((0, 1, 1, 3), np.uint8)
        self._file.flush()
        return np.memmap(self._file.name, np.uint8, "r", shape=(self.count, *self._shape))


class TimedIterator:
    """Passes items on and measures how long their maker took for them, but for the first few."""

    def __init__(self, items: Iterator[np.ndarray], skipped: int) -> None:
        self.items, self.skipped, self.count, self.seconds = items, skipped, 0, 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            start = time.perf_counter()
            try:
                item = next(self.items)
            except StopIteration:
                return
            self.count += 1
            if self.count > self.skipped:
                self.seconds += time.perf_counter() - start
            yield item

    @property
    def rate_hz(self) -> float | None:
        """Items a second; None where there were too few."""
        measured = self.count - self.skipped
        return measured / self.seconds if measured > 0 and self.seconds > 0 else None


def write_contact_sheet(
    path: Path,
    rows: list[UInt8[np.ndarray, "frame height width 3"]],
    columns: int = SHEET_COLUMNS,
    side_px: int = SHEET_PX,
) -> None:
    """A contact sheet: frames spread evenly over the clip, one row above the other."""
    chosen = np.unique(np.linspace(0, len(rows[0]) - 1, columns).astype(int))
    lines = []
    for frames in rows:
        small = [Image.fromarray(np.asarray(frames[i])).resize((side_px, side_px)) for i in chosen]
        lines.append(np.concatenate([np.asarray(picture) for picture in small], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines)).save(path, quality=90)
