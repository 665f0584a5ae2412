"""Data loader: micro-batches of source and target frames, read and decoded ahead by threads, in constant memory."""

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
from training.data.dataset import EncodedFrame, PreparedClip, PreparedDataset, flame_model
from training.data.entries import Span
from training.data.sampler import FrameSampler, OpenClip, Sample
from training.data.store import UnreachableError

ATTEMPTS = 64
READERS = 2


Read = TypeVar("Read")


@dataclass(frozen=True)
class LoadedClip:
    """An open clip whose pieces are in memory, still encoded.

    Attributes:
        opened: What was read.
        attempt: How many clips before it could not be read.
        clip: Its tracks and sound.
        target: Target frames by their numbers.
        source: Source frames by their numbers.
    """

    opened: OpenClip
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
        target_sound [b, 37, 80] (mel), [b, 17, 512] (Whisper) or [b, 16, W] (HuBERT): what the target frame hears;
        target_known [b, 1, 512, 512]: 1 where the video shows the target frame, 0 where its border was continued;
        target_own_speech [b]: 1 where that is the voice of the person shown, else 0;
        window_offset [b, 2] in [0, 1): see `training.data.sampler.Sample`;
        completion_rows [1920], with FLAME only.

    Attributes:
        wait_seconds: How long the consumer has waited for batches.
    """

    def __init__(
        self,
        prepared: PreparedDataset,
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
        sound: str | None = None,
        with_sound: bool = True,
        own_speech_only: bool = False,
        pin_memory: bool = False,
        open_clips: int | None = None,
        samples_per_clip: int = 32,
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
            seed: Of the samples.
            split: Which people's clips.
            threads: That decode.
            prefetch: Micro-batches made ahead.
            sound: Which features of it, see `PreparedClip.sound`.
            with_sound: Whether batches hold what the target frame hears.
            own_speech_only: Leave out clips whose sound is not the voice of the person shown.
            pin_memory: Put batches where a GPU fetches them without a copy.
            open_clips: See `FrameSampler`.
            samples_per_clip: See `FrameSampler`.

        Raises:
            InputError: There are no clips in the split.
        """
        clips = [clip for clip in prepared.index.of(split) if clip.own_speech or not own_speech_only]
        if not clips:
            problem = f"it has no clips in the split {split!r}" + " with their own voice" * own_speech_only
            raise InputError(prepared.store.source, problem, "Prepare videos for it, or give another split.")
        self.prepared, self.pin_memory = prepared, pin_memory
        self.sound, self.with_sound = sound, with_sound
        self.threads, self.prefetch = threads, prefetch
        self.start_step, self.steps = start_step, steps
        slots = per_device * processes * accumulation
        self.sampler = FrameSampler(clips, slots, seed, open_clips, samples_per_clip)
        self.slots = [
            range(first, first + per_device)
            for first in range(rank * per_device, slots, processes * per_device)
        ]
        """This process's slots in each micro-batch of a step."""
        self.wait_seconds = 0.0
        self._damaged: set[Span] = set()
        self._warned: set[str] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return max(0, self.steps - self.start_step) * len(self.slots)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Batches in order; an error of a thread comes here, and leaving early stops the threads."""
        if self.prepared.index.tracker == "flame":
            flame_model()  # before the threads, each of which would load a model of its own
        readers, workers = ThreadPoolExecutor(READERS, "read"), ThreadPoolExecutor(self.threads, "decode")
        loaded: dict[tuple[int, int], Future[LoadedClip]] = {}

        def load(slot: int, step: int) -> Future[LoadedClip]:
            number = self.sampler.clip_number(step)
            if (slot, number) not in loaded:
                loaded[slot, number] = readers.submit(self._load, slot, number)
            return loaded[slot, number]

        def begin(step: int, slots: range) -> Future[dict[str, Tensor]]:
            samples = [(slot, step, load(slot, step)) for slot in slots]
            for slot in slots:
                if self.sampler.last_step(number := self.sampler.clip_number(step)) == step:
                    del loaded[slot, number]  # whoever still decodes from it holds it
                if step + self.sampler.open_clips < self.steps:
                    load(slot, step + self.sampler.open_clips)
            return workers.submit(self._batch, samples)

        pending: deque[Future[dict[str, Tensor]]] = deque()
        try:
            for step in range(self.start_step, self.steps):
                for slots in self.slots:
                    pending.append(begin(step, slots))
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

    def _load(self, slot: int, number: int, first_attempt: int = 0) -> LoadedClip:
        """Read the pieces of one of a slot's clips; where they are damaged, of another clip, always the same."""
        for attempt in range(first_attempt, first_attempt + ATTEMPTS):
            opened = self.sampler.open_clip(slot, number, attempt)
            spans = (opened.clip.record, opened.target, opened.source)
            with self._lock:
                if self._damaged.intersection(spans):
                    continue
            try:
                clip = self._undamaged(
                    opened.clip.record, lambda entry=opened.clip: self.prepared.clip(entry)
                )
                target, source = (
                    self._undamaged(piece, lambda piece=piece: self.prepared.piece(piece))
                    for piece in spans[1:]
                )
                return LoadedClip(opened, attempt, clip, target, source)
            except UnreachableError:
                raise
            except InputError as error:
                self._warn(f"clip {opened.clip.key} is left out in part: {error}")
        problem = f"{ATTEMPTS} pieces in a row are damaged"
        raise InputError(
            self.prepared.store.source, problem, "See the warnings, and copy the data set again."
        )

    def _undamaged(self, span: Span, read: Callable[[], Read]) -> Read:
        """Read, and keep in mind where that fails."""
        try:
            return read()
        except UnreachableError:
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

    def _batch(self, samples: list[tuple[int, int, Future[LoadedClip]]]) -> dict[str, Tensor]:
        decoded = [self._sample(slot, step, loaded.result()) for slot, step, loaded in samples]
        batch = {name: torch.stack([sample[name] for sample in decoded]) for name in decoded[0]}
        if self.prepared.index.tracker == "flame":
            batch["completion_rows"] = flame_model().completion_rows
        return {name: value.pin_memory() for name, value in batch.items()} if self.pin_memory else batch

    def _sample(self, slot: int, step: int, loaded: LoadedClip) -> dict[str, Tensor]:
        """One pair of frames; from another clip where one of them is no picture."""
        for _ in range(ATTEMPTS):
            sample = self.sampler.sample(slot, step, loaded.opened)
            try:
                return self._decoded(loaded, sample)
            except InputError:  # FLAME is not on this machine
                raise
            except (OSError, ValueError, SyntaxError) as error:
                opened = loaded.opened
                frames = f"frames {sample.source} and {sample.target}"
                where = f"{opened.target.shard}, clip {opened.clip.key}, {frames}"
                self._warn(f"{self.prepared.store.source}/{where}: left out, one is no picture ({error})")
                loaded = self._load(slot, self.sampler.clip_number(step), loaded.attempt + 1)
        raise InputError(
            self.prepared.store.source, f"{ATTEMPTS} frames in a row are no pictures", "Prepare it again."
        )

    def _decoded(self, loaded: LoadedClip, sample: Sample) -> dict[str, Tensor]:
        clip, frames = loaded.clip, torch.tensor([sample.source, sample.target])
        heads = clip.heads(frames)
        tensors = {"window_offset": torch.tensor(sample.window_offset)}
        encoded = (loaded.source[sample.source], loaded.target[sample.target])
        for i, name in enumerate(("source", "target")):
            tensors[f"{name}_image"], tensors[f"{name}_mask"] = encoded[i].decoded()
            tensors |= {
                f"{name}_pose": heads.camera.world_to_camera[i],
                f"{name}_mesh": heads.mesh[i],
                f"{name}_points": heads.completion_points[i],
                f"{name}_eyes": heads.eyes[i],
                f"{name}_mouth": clip.mouth[frames[i]],
            }
        tensors["target_vertices"] = clip.vertices(frames[1:])[0]
        left, top, right, bottom = clip.known_box
        tensors["target_known"] = torch.zeros_like(tensors["target_mask"])
        tensors["target_known"][..., top:bottom, left:right] = 1.0
        tensors["target_own_speech"] = torch.tensor(float(clip.entry.own_speech))
        if self.with_sound:
            tensors["target_sound"] = clip.sound(frames[1:], self.sound)[0]
        return tensors


def track_from_batch(batch: dict[str, Tensor], name: str) -> HeadTrack:
    """The tracked heads of a batch's frames; `name` is "source" or "target"."""
    pose = batch[f"{name}_pose"]
    return HeadTrack(
        Camera.from_pose(pose[:, :3, :3], pose[:, :3, 3]),
        batch[f"{name}_mesh"],
        batch[f"{name}_points"],
        batch[f"{name}_eyes"],
        batch.get("completion_rows"),
    )
