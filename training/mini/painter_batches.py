"""Window painter batches: pairs of frames and what is drawn of them, made ahead by a thread or by processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_inputs import WindowInputs, window_inputs
from training.mini.painter_data import FaceCrops, PairSampler

WINDOWS = {"mouth": MOUTH, "eyes": RIGHT_EYE}
SEED_STEP = 7919
"""From one process's seed to the next."""

Batch: TypeAlias = tuple[WindowInputs, Tensor]


def drawn(window: FaceWindow, sampler: PairSampler, count: int) -> Batch:
    """So many pairs: what the painter sees, and the real windows."""
    pairs = sampler.draw(count)
    return window_inputs(window, pairs.geometry), pairs.target


def batches(
    name: str, clips: Sequence[FaceCrops], seed: int, count: int, workers: int = 0
) -> Iterator[Batch]:
    """Batches without end, on the CPU; the next ones are drawn while one is learned from.

    Args:
        name: Of the window.
        clips: What is drawn from.
        seed: The same seed and number of workers give the same batches.
        count: Windows of a batch.
        workers: Processes that draw; a GPU waits for anything less. 0: one thread, which one core is busy enough with.
    """
    if not workers:
        yield from _by_a_thread(WINDOWS[name], PairSampler(clips, WINDOWS[name], seed), count)
        return
    loader = DataLoader(
        _Drawing(name, clips, seed, count), batch_size=None, num_workers=workers, collate_fn=_as_it_is,
        prefetch_factor=2, multiprocessing_context="fork",
    )  # fmt: skip
    yield from loader


def _by_a_thread(window: FaceWindow, sampler: PairSampler, count: int) -> Iterator[Batch]:
    with ThreadPoolExecutor(1, thread_name_prefix="pairs") as thread:
        waiting = thread.submit(drawn, window, sampler, count)
        while True:
            ready = waiting.result()
            waiting = thread.submit(drawn, window, sampler, count)
            yield ready


class _Drawing(IterableDataset):
    """What each process draws: with a seed of its own."""

    def __init__(self, name: str, clips: Sequence[FaceCrops], seed: int, count: int) -> None:
        super().__init__()
        self.name, self.clips, self.seed, self.count = name, clips, seed, count

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        seed = self.seed + SEED_STEP * (0 if worker is None else worker.id)
        window = WINDOWS[self.name]
        sampler = PairSampler(self.clips, window, seed)
        while True:
            yield drawn(window, sampler, self.count)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def inputs_to(inputs: WindowInputs, device: torch.device) -> WindowInputs:
    """Move a batch's inputs to a device."""
    moved = {f.name: getattr(inputs, f.name) for f in fields(inputs)}
    return replace(inputs, **{name: x if x is None else x.to(device) for name, x in moved.items()})
