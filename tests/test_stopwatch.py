"""Tests of the stopwatch: on the host, and with a stand-in for a GPU's events that it never waits for while it runs."""

import time
from typing import ClassVar

import pytest
import torch

from sdtalk.stopwatch import Stopwatch


class StandInEvent:
    """An event of a GPU that is asked for its work and does it on request: 0.25 s lie between any two."""

    made: ClassVar[list["StandInEvent"]] = []
    done: ClassVar[int] = 0
    waits: ClassVar[int] = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        self.number = len(self.made)
        self.made.append(self)

    def query(self) -> bool:
        return self.number < StandInEvent.done

    def synchronize(self) -> None:
        StandInEvent.waits += 1
        StandInEvent.done = max(StandInEvent.done, self.number + 1)

    def elapsed_time(self, later: "StandInEvent") -> float:
        assert later.query(), "the GPU is not there yet"
        return 250.0 * (later.number - self.number)


def test_stages_add_up_on_the_host() -> None:
    watch = Stopwatch()
    for _ in range(2):
        with watch("one"):
            time.sleep(0.01)
    with pytest.raises(ValueError), watch("two"):
        raise ValueError
    assert 0.02 <= watch.seconds["one"] < 1 and set(watch.seconds) == {"one", "two"}


def test_a_gpu_is_waited_for_when_the_seconds_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", StandInEvent)
    monkeypatch.setattr(StandInEvent, "made", [])
    monkeypatch.setattr(StandInEvent, "done", 0)
    monkeypatch.setattr(StandInEvent, "waits", 0)
    watch = Stopwatch()
    with watch("outer"):
        with watch("inner"):
            pass
        with watch("host"):
            time.sleep(0.3)
    assert StandInEvent.waits == 0
    seconds = watch.seconds
    assert StandInEvent.waits == 3
    assert seconds["inner"] == 0.25 and seconds["outer"] == 1.25
    assert 0.3 <= seconds["host"] < 0.5  # longer than what the GPU took
    StandInEvent.done = 100
    with watch("inner"):
        StandInEvent.done = 100
    assert StandInEvent.waits == 3 and watch.seconds["inner"] == 0.5
