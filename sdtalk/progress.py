"""Progress: what long work reports while it goes on, and a bar that shows it in a terminal or notebook."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage, how many of its frames are done, and how many there are (0: not known). What it raises ends
the work."""


Item = TypeVar("Item")


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


def counted(frames: Iterator[Item], stage: str, total: int, progress: Progress) -> Iterator[Item]:
    """Pass frames on and tell how many have gone by."""
    for done, frame in enumerate(frames):
        yield frame
        progress(stage, done + 1, total)


class ProgressBar:
    """A bar on standard error that starts again for every stage; a `Progress`, and a context manager."""

    def __init__(self) -> None:
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage != self._stage or self._bar is None:
            from tqdm.auto import tqdm  # a moment to import, and not needed by those who show nothing

            self.close()
            look = None if total else "{desc} {elapsed}"  # nothing to count
            self._stage, self._bar = stage, tqdm(desc=stage, total=total, unit="frame", bar_format=look)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
