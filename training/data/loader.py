"""Pairs of frames for training, read and decoded ahead by threads; memory does not grow with the data set."""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import torch
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.tracking.head_track import HeadTrack
from training.data.clip import EncodedFrame, PreparedClip, PreparedSet, flame
from training.data.entries import Span
from training.data.sampler import Draw, SamplingPlan, Visit
from training.data.store import Unreachable

ATTEMPTS = 64
READERS = 2


Read = TypeVar("Read")


@dataclass(frozen=True)
class OpenVisit:
    """A visit whose pieces are in memory, still encoded."""

    visit: Visit
    attempt: int
    clip: PreparedClip
    target: dict[int, EncodedFrame]
    source: dict[int, EncodedFrame]


class PairLoader:
    """Micro-batches of source and target frames of the same clip, from `start_step` to `steps`, on the CPU.

    The samples of a step depend on the seed and on how many there are (`per_device * processes * accumulation`), and on
    nothing else. A piece that is damaged is left out with a warning; all processes that would read it do so.

    A batch holds, for the names `source` and `target` (b samples):
        {name}_image [b, 3, 512, 512], {name}_mask [b, 1, 512, 512], {name}_pose [b, 4, 4], {name}_mesh [b, 478, 3],
        {name}_eyes [b, 6], {name}_points [b, 1920, 3], {name}_mouth [b, 5];
        target_vertices [b, V, 3]: 468 of the face mesh, or FLAME's 5,023;
        target_sound [b, 37, 80] (mel) or [b, 16, W] (HuBERT): what the target frame hears;
        target_own_speech [b]: 1 where that is the voice of the person shown, else 0;
        window [b, 2] in [0, 1): where in its free play a window lies;
        completion_rows [1920], with FLAME only.

    Attributes:
        wait_seconds: How long the consumer has waited for batches.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        per_device: int,
        steps: int,
        *,
        processes: int = 1,
        rank: int = 0,
        accumulation: int = 1,
        start_step: int = 0,
        seed: int = 0,
        split: str = "train",
        threads: int = 2,
        prefetch: int = 4,
        with_sound: bool = True,
        spoken_only: bool = False,
        pin_memory: bool = False,
        pool: int | None = None,
        draws_per_piece: int = 32,
    ) -> None:
        """Plan; nothing is read before the first batch is asked for.

        Args:
            prepared: Where the clips are.
            per_device: Samples of a micro-batch.
            steps: Optimiser steps of the whole training.
            processes: How many share the training.
            rank: Which of them this is.
            accumulation: Micro-batches of a step.
            start_step: Steps done before.
            seed: Of what is drawn.
            split: What is drawn from.
            threads: That decode.
            prefetch: Micro-batches made ahead.
            with_sound: Whether batches hold what the target frame hears.
            spoken_only: Leave out clips whose sound is not the voice of the person shown.
            pin_memory: Put batches where a GPU fetches them without a copy.
            pool: See `SamplingPlan`.
            draws_per_piece: See `SamplingPlan`.

        Raises:
            InputError: There are no clips in the split.
        """
        clips = [clip for clip in prepared.index.of(split) if clip.own_speech or not spoken_only]
        if not clips:
            problem = f"it has no clips in the split {split!r}" + " with their own voice" * spoken_only
            raise InputError(prepared.store.source, problem, "Prepare videos for it, or give another split.")
        self.prepared, self.with_sound, self.pin_memory = prepared, with_sound, pin_memory
        self.threads, self.prefetch = threads, prefetch
        self.start_step, self.steps = start_step, steps
        lanes = per_device * processes * accumulation
        self.plan = SamplingPlan(clips, lanes, seed, pool, draws_per_piece)
        self.lanes = [
            range(first, first + per_device)
            for first in range(rank * per_device, lanes, processes * per_device)
        ]
        """This process's lanes for each micro-batch of a step."""
        self.wait_seconds = 0.0
        self._damaged: set[Span] = set()
        self._warned: set[str] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step) * len(self.lanes)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches in order; an error of a thread comes here, and leaving early stops the threads."""
        if self.prepared.index.tracker == "flame":
            flame()  # before the threads, each of which would load a model of its own
        readers, workers = ThreadPoolExecutor(READERS, "read"), ThreadPoolExecutor(self.threads, "decode")
        visits: dict[tuple[int, int], Future[OpenVisit]] = {}

        def opened(lane: int, step: int) -> Future[OpenVisit]:
            number = self.plan.visit_number(step)
            if (lane, number) not in visits:
                visits[lane, number] = readers.submit(self._open, lane, number)
            return visits[lane, number]

        def begun(step: int, lanes: range) -> Future[dict[str, Tensor]]:
            samples = [(lane, step, opened(lane, step)) for lane in lanes]
            for lane in lanes:
                if self.plan.last_draw(number := self.plan.visit_number(step)) == step:
                    del visits[lane, number]  # whoever still decodes from it holds it
                if step + self.plan.pool < self.steps:
                    opened(lane, step + self.plan.pool)
            return workers.submit(self._batch, samples)

        pending: deque[Future[dict[str, Tensor]]] = deque()
        try:
            for step in range(self.start_step, self.steps):
                for lanes in self.lanes:
                    pending.append(begun(step, lanes))
                    if len(pending) > self.prefetch:
                        yield self._waited(pending.popleft())
            while pending:
                yield self._waited(pending.popleft())
        finally:
            for pool in (workers, readers):
                pool.shutdown(wait=False, cancel_futures=True)

    def _waited(self, batch: Future[dict[str, Tensor]]) -> dict[str, Tensor]:
        start = time.perf_counter()
        try:
            return batch.result()
        finally:
            self.wait_seconds += time.perf_counter() - start

    def _open(self, lane: int, number: int, first_attempt: int = 0) -> OpenVisit:
        """Read a visit's pieces; where they are damaged, those of another visit, always the same."""
        for attempt in range(first_attempt, first_attempt + ATTEMPTS):
            visit = self.plan.visit(lane, number, attempt)
            spans = (visit.clip.record, visit.target, visit.source)
            with self._lock:
                if self._damaged.intersection(spans):
                    continue
            try:
                clip = self._undamaged(visit.clip.record, lambda visit=visit: self.prepared.clip(visit.clip))
                target, source = (
                    self._undamaged(piece, lambda piece=piece: self.prepared.piece(piece))
                    for piece in spans[1:]
                )
                return OpenVisit(visit, attempt, clip, target, source)
            except Unreachable:
                raise
            except InputError as error:
                self._warn(f"clip {visit.clip.key} is left out in part: {error}")
        problem = f"{ATTEMPTS} pieces drawn in a row are damaged"
        raise InputError(
            self.prepared.store.source, problem, "See the warnings, and copy the data set again."
        )

    def _undamaged(self, span: Span, read: Callable[[], Read]) -> Read:
        """Read, and keep in mind where that fails."""
        try:
            return read()
        except Unreachable:
            raise
        except InputError:
            with self._lock:
                self._damaged.add(span)
            raise

    def _warn(self, message: str) -> None:
        with self._lock:
            if message in self._warned:
                return
            self._warned.add(message)
        warnings.warn(message, stacklevel=2)

    def _batch(self, samples: list[tuple[int, int, Future[OpenVisit]]]) -> dict[str, Tensor]:
        drawn = [self._sample(lane, step, opened.result()) for lane, step, opened in samples]
        batch = {name: torch.stack([sample[name] for sample in drawn]) for name in drawn[0]}
        if self.prepared.index.tracker == "flame":
            batch["completion_rows"] = flame().completion_rows
        return {name: value.pin_memory() for name, value in batch.items()} if self.pin_memory else batch

    def _sample(self, lane: int, step: int, opened: OpenVisit) -> dict[str, Tensor]:
        """One pair; from another visit where one of its frames is no picture."""
        for _ in range(ATTEMPTS):
            draw = self.plan.draw(lane, step, opened.visit)
            try:
                return self._decoded(opened, draw)
            except InputError:  # FLAME is not on this machine
                raise
            except (OSError, ValueError, SyntaxError) as error:
                key = opened.visit.clip.key
                where = f"{opened.visit.target.shard}, clip {key}, frames {draw.source} and {draw.target}"
                self._warn(f"{self.prepared.store.source}/{where}: left out, one is no picture ({error})")
                opened = self._open(lane, self.plan.visit_number(step), opened.attempt + 1)
        raise InputError(
            self.prepared.store.source, f"{ATTEMPTS} frames in a row are no pictures", "Prepare it again."
        )

    def _decoded(self, opened: OpenVisit, draw: Draw) -> dict[str, Tensor]:
        clip, frames = opened.clip, torch.tensor([draw.source, draw.target])
        heads = clip.heads(frames)
        sample = {"window": torch.tensor(draw.window)}
        encoded = (opened.source[draw.source], opened.target[draw.target])
        for i, name in enumerate(("source", "target")):
            sample[f"{name}_image"], sample[f"{name}_mask"] = encoded[i].decoded()
            sample |= {
                f"{name}_pose": heads.camera.world_to_camera[i],
                f"{name}_mesh": heads.mesh[i],
                f"{name}_points": heads.completion_points[i],
                f"{name}_eyes": heads.eyes[i],
                f"{name}_mouth": clip.mouth[frames[i]],
            }
        sample["target_vertices"] = clip.vertices(frames[1:])[0]
        sample["target_own_speech"] = torch.tensor(float(clip.entry.own_speech))
        if self.with_sound:
            sample["target_sound"] = clip.sound(frames[1:])[0]
        return sample


def track_of(batch: dict[str, Tensor], name: str) -> HeadTrack:
    """The heads of a batch's source or target frames."""
    pose = batch[f"{name}_pose"]
    return HeadTrack(
        Camera.from_pose(pose[:, :3, :3], pose[:, :3, 3]),
        batch[f"{name}_mesh"],
        batch[f"{name}_points"],
        batch[f"{name}_eyes"],
        batch.get("completion_rows"),
    )
