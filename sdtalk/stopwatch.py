"""Stopwatch: seconds by named stage."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class _OnGpu:
    """A stage's part that a GPU may still be working on.

    Attributes:
        stage: Its name.
        begun: A `torch.cuda.Event` that the GPU passes before it.
        ended: One that it passes after it.
        host_seconds: What the host took.
    """

    stage: str
    begun: Any
    ended: Any
    host_seconds: float


class Stopwatch:
    """Adds up the seconds of named stages; stages in different threads may overlap.

    Work on a GPU is measured there, by events, so that measuring never waits for it: a stage took what the host took,
    or what the GPU took, whichever is more.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._under_way: deque[_OnGpu] = deque()
        self._turn = threading.Lock()

    @property
    def seconds(self) -> defaultdict[str, float]:
        """Seconds by stage so far; waits for what a GPU still does of them."""
        with self._turn:
            self._count(wait=True)
        return self._seconds

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure what happens inside the `with` block as part of a stage, its work on a GPU included."""
        begun, start = _passed(), time.perf_counter()
        try:
            yield
        finally:
            host_seconds, ended = time.perf_counter() - start, _passed()
            with self._turn:
                if begun is None or ended is None:
                    self._seconds[stage] += host_seconds
                else:
                    self._under_way.append(_OnGpu(stage, begun, ended, host_seconds))
                    self._count(wait=False)

    def _count(self, wait: bool) -> None:
        """Add up what the GPU has done, in order; all of it, or what needs no waiting."""
        while self._under_way and (wait or self._under_way[0].ended.query()):
            part = self._under_way.popleft()
            if wait:
                part.ended.synchronize()
            on_gpu = part.begun.elapsed_time(part.ended) / 1000
            self._seconds[part.stage] += max(part.host_seconds, on_gpu)


def _passed() -> Any:
    """A `torch.cuda.Event` that tells when the GPU has come so far; None while nobody uses one."""
    if not torch.cuda.is_initialized():
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
