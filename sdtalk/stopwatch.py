"""Stopwatch: seconds by named stage."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up the wall-clock seconds of named stages; stages in different threads may overlap."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._turn = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure what happens inside the `with` block as part of a stage, its work on a GPU included."""
        _wait_for_gpu()
        start = time.perf_counter()
        try:
            yield
        finally:
            _wait_for_gpu()
            with self._turn:
                self.seconds[stage] += time.perf_counter() - start


def _wait_for_gpu() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
