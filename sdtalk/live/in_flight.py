"""Frames in flight: every core works on frames of its own, and they come out in order.

Many small operations in a row keep two cores busier so than both at each of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_flight(make: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """make(item) for all items, in order, several at a time, each on one thread.

    Args:
        make: Called in threads of its own; what it raises is raised here.
        items: Taken as they are needed: at most one more than there are workers is under way or waiting.
        workers: How many items at a time.
    """
    if workers == 1:
        yield from map(make, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "frames", initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(make, item))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
            # PyTorch takes a thread's choice for the default of all threads that come later
            torch.set_num_threads(torch.get_num_threads())
