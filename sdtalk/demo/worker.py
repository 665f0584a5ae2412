"""Worker: the few threads on which everything heavy of a page is done, in the order in which it comes."""

from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


class Worker:
    """Calls functions on threads of its own, which do not keep the program from ending."""

    def __init__(self, threads: int = 1) -> None:
        """Start the threads.

        Args:
            threads: How many calls can be under way at once.
        """
        self._waiting: SimpleQueue[tuple[Future, Callable[[], Any]]] = SimpleQueue()
        for _ in range(threads):
            Thread(target=self._work, name="talk", daemon=True).start()

    def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function there, in the caller's context, and wait for what it returns or raises."""
        future: Future[Result] = Future()
        context = copy_context()  # in which Gradio's progress finds the visitor
        self._waiting.put((future, lambda: context.run(function, *arguments)))
        return future.result()

    def _work(self) -> None:
        while True:
            future, call = self._waiting.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del future, call  # nothing of a visitor stays until the next one comes
