"""Waiting line: who comes first is served first, and everybody knows how many, and how long, are before them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from sdtalk.errors import InputError


class LineFull(InputError):
    """Too many wait already."""


@dataclass(eq=False)
class Place:
    """A place in the line.

    Attributes:
        seconds: How long serving this one is expected to take.
        line: Where it is.
    """

    seconds: float
    line: "WaitingLine" = field(repr=False)

    @property
    def ahead(self) -> int:
        """How many have to be finished before it is this one's turn; 0: it is."""
        return self.line.ahead(self)

    @property
    def wait(self) -> float:
        """Seconds until then, as expected."""
        return self.line.wait(self)


class WaitingLine:
    """A line in front of something that serves a few at once; for any number of threads."""

    def __init__(self, at_once: int, room: int) -> None:
        """Begin with an empty line.

        Args:
            at_once: How many are served at the same time.
            room: How many may wait besides.
        """
        self.at_once, self.room = at_once, room
        self._places: list[Place] = []
        self._lock = Lock()

    def __len__(self) -> int:
        """How many wait or are served."""
        return len(self._places)

    def join(self, seconds: float) -> Place:
        """Take the last place, for somebody who is expected to take so many seconds; `leave` gives it back.

        Raises:
            LineFull: There is no room.
        """
        with self._lock:
            if len(self._places) >= self.at_once + self.room:
                raise LineFull("this page", f"{self.room} others wait already", "Come back a little later.")
            self._places.append(Place(seconds, self))
            return self._places[-1]

    def leave(self, place: Place) -> None:
        """Give up a place, before or after having been served; nothing happens the second time."""
        with self._lock:
            if place in self._places:
                self._places.remove(place)

    @contextmanager
    def joined(self, seconds: float) -> Iterator[Place]:
        """A place for as long as the context lasts."""
        place = self.join(seconds)
        try:
            yield place
        finally:
            self.leave(place)

    def ahead(self, place: Place | None = None) -> int:
        """How many have to be finished before a place's turn, or before that of whoever comes next (None)."""
        return max(0, len(self._before(place)) - self.at_once + 1)

    def wait(self, place: Place | None = None) -> float:
        """Seconds until then, as expected."""
        before = self._before(place)
        busy = len(before) >= self.at_once
        return sum(each.seconds for each in before) / self.at_once if busy else 0.0

    def _before(self, place: Place | None) -> list[Place]:
        with self._lock:
            return self._places[: None if place is None else self._places.index(place)]
