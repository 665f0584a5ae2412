"""Stand-in for the package `spaces` on ZeroGPU: functions run in a fork, as its wrappers.py (0.51) runs them.

The same: the duration is asked for with the function's arguments, in the parent; arguments, results and progress are
pickled, through queues; in the fork the function runs on a new thread; of what it raises, only `gr.Error` arrives
whole; a fork that dies, or takes longer than it said, ends in an error. Not the same: there is no GPU, so nothing is
moved onto it, and a fork serves one call.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import wraps
from types import ModuleType
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.queueing import Queue

FORKING = multiprocessing.get_context("fork")
GONE, RESULT, ERROR, PROGRESS = "gone", "result", "error", "progress"


class SpacesStandIn(ModuleType):
    """The module.

    Attributes:
        loans: Seconds asked for, one entry a call.
        forks: Process ids of the forks.
        cut_short: Seconds after which a fork is ended, whatever it asked for; None: as long as it asked for.
    """

    def __init__(self) -> None:
        super().__init__("spaces")
        self.__spec__ = type(sys.__spec__)("spaces", None)
        self.loans: list[float] = []
        self.forks: list[int | None] = []
        self.cut_short: float | None = None

    def GPU(self, *, duration: Callable[..., float]) -> Callable[[Callable], Callable]:  # noqa: N802
        """The decorator, with a duration that is computed."""

        def decorated(task: Callable) -> Callable:
            @wraps(task)
            def handler(*args: Any, **kwargs: Any) -> Any:
                self.loans.append(duration(*args, **kwargs))
                return self._in_a_fork(task, args, kwargs)

            return handler

        return decorated

    def _in_a_fork(self, task: Callable, args: tuple, kwargs: dict) -> Any:
        arguments, results = FORKING.SimpleQueue(), FORKING.SimpleQueue()
        process = FORKING.Process(target=_serve, args=(task, arguments, results), daemon=True)
        process.start()
        self.forks.append(process.pid)
        arguments.put((args, kwargs, LocalContext.event_id.get(None)))
        seconds = self.loans[-1] if self.cut_short is None else self.cut_short
        over = threading.Timer(seconds, process.kill)
        over.start()
        threading.Thread(target=lambda: (process.join(), results.put((GONE, None))), daemon=True).start()
        try:
            while True:
                kind, value = results.get()
                if kind == RESULT:
                    return value
                if kind == ERROR:
                    raise value
                if kind == GONE:
                    raise gr.Error("GPU task aborted", print_exception=False)
                LocalContext.blocks.get()._queue.set_progress(*value)
        finally:
            over.cancel()
            process.kill()
            process.join()


def _serve(task: Callable, arguments: Any, results: Any) -> None:
    """What the fork does."""
    args, kwargs, event_id = arguments.get()
    Queue.set_progress = lambda _, *told: results.put((PROGRESS, told))  # type: ignore
    LocalContext.event_id.set(event_id)
    context = copy_context()

    def run() -> None:
        try:
            results.put((RESULT, task(*args, **kwargs)))
        except gr.Error as error:
            results.put((ERROR, error))
        except Exception as error:
            results.put((ERROR, gr.Error(type(error).__name__, print_exception=False)))

    with ThreadPoolExecutor() as executor:
        executor.submit(context.run, run).result()
    os._exit(0)
