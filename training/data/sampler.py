"""Frame sampler: which pairs of frames a step sees, as a function of seed and step, however many processes share them.

A step's batch has S samples, S counted over all processes; each has a slot, 0 to S - 1. A slot keeps a few clips open
and takes a sample from each in turn. Of an open clip two pieces are in memory, one for target frames and one for source
frames; after `samples_per_clip` samples the next clip takes its place. So pieces are read whole and used often, and a
batch still mixes many clips. All slots are served from one endless sequence of clips: epochs in which every clip comes
at least once, and as often as its weight says.

Nothing here depends on what was sampled before: to resume at any step costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from training.data.entries import ClipEntry, Piece

# What a random number is for, so that no two uses share one.
_EPOCH, _OPEN_CLIP, _SAMPLE, _REPLACEMENT, _FIRST_PIECE = range(5)


@dataclass(frozen=True)
class OpenClip:
    """A clip that a slot takes samples from.

    Attributes:
        clip: The clip.
        target: The piece of it that target frames are taken from.
        source: The piece for source frames; often, but not always, another one.
    """

    clip: ClipEntry
    target: Piece
    source: Piece


@dataclass(frozen=True)
class Sample:
    """A source frame and a target frame of the same clip.

    Attributes:
        source: Number of the source frame within the clip.
        target: Number of the target frame.
        window_offset: Across and down, in [0, 1): where the training window lies between its outermost places around
            the target's face.
    """

    source: int
    target: int
    window_offset: tuple[float, float]


class FrameSampler:
    """Chooses clips and frames for each slot of the batch."""

    def __init__(
        self,
        clips: Sequence[ClipEntry],
        slots: int,
        seed: int,
        open_clips: int | None = None,
        samples_per_clip: int = 32,
    ) -> None:
        """Weigh the clips.

        Args:
            clips: What to sample from; a clip weighs as the root of its length, and double with its own voice.
            slots: Samples of a step over all processes.
            seed: Of all randomness.
            open_clips: Clips that a slot keeps open; None: 32 over the whole batch, at least 4.
            samples_per_clip: Samples taken from an open clip.
        """
        self.clips, self.slots, self.seed = sorted(clips, key=lambda clip: clip.key), slots, seed
        self.open_clips, self.samples_per_clip = open_clips or max(4, 32 // slots), samples_per_clip
        weights = np.array([math.sqrt(clip.frames) * (1 + clip.own_speech) for clip in self.clips])
        self.epoch_length = math.ceil(weights.sum() / weights.min() * (1 + 1e-9))
        """Clips opened in an epoch: so many that even the one of the smallest weight comes once."""
        self._ends = np.cumsum(weights * (self.epoch_length / weights.sum()))
        self._epoch = lru_cache(maxsize=3)(self._shuffled)

    def clip_number(self, step: int) -> int:
        """Which of a slot's clips, counted from the start of training, its sample of a step comes from."""
        place, turn = step % self.open_clips, step // self.open_clips
        return (turn + self._phase(place)) // self.samples_per_clip * self.open_clips + place

    def last_step(self, clip_number: int) -> int:
        """The step of the last sample from one of a slot's clips."""
        place, turn = clip_number % self.open_clips, clip_number // self.open_clips
        return ((turn + 1) * self.samples_per_clip - self._phase(place) - 1) * self.open_clips + place

    def _phase(self, place: int) -> int:
        """The first clips give fewer samples, each by another part, so that not all are closed at once."""
        return place * self.samples_per_clip // self.open_clips

    def open_clip(self, slot: int, clip_number: int, attempt: int = 0) -> OpenClip:
        """One of a slot's clips, and the pieces of it to read.

        Args:
            slot: Below `slots`.
            clip_number: See `FrameSampler.clip_number`.
            attempt: 0, or counting up: another clip instead, where that one's pieces are damaged.
        """
        epoch, at = divmod(slot + self.slots * clip_number, self.epoch_length)
        if attempt:
            at = int(self._random(_REPLACEMENT, slot, clip_number, attempt).integers(self.epoch_length))
        index, piece = self._epoch(epoch)[at].tolist()
        clip = self.clips[index]
        source = int(self._random(_OPEN_CLIP, slot, clip_number, attempt).integers(len(clip.pieces)))
        return OpenClip(clip, clip.pieces[piece], clip.pieces[source])

    def sample(self, slot: int, step: int, opened: OpenClip) -> Sample:
        """The sample that a slot takes in a step from the clip that is its turn."""
        random = self._random(_SAMPLE, slot, step)
        source, target = (
            piece.first + int(random.integers(piece.count)) for piece in (opened.source, opened.target)
        )
        return Sample(source, target, (float(random.random()), float(random.random())))

    def _shuffled(self, epoch: int) -> Int[np.ndarray, "opened 2"]:
        """Indices of the clip and of its target piece for all clips that are opened in an epoch.

        Clips have stretches as long as their weights on a line; points one apart, from a random start, pick them.
        Each time a clip comes, it is the turn of its next piece, on from where the epochs before have come to.
        """
        random = self._random(_EPOCH, epoch)
        points = random.random() + np.arange(self.epoch_length)
        clip = np.searchsorted(self._ends, points, side="right").clip(max=len(self.clips) - 1)
        turn = np.arange(self.epoch_length) - np.searchsorted(clip, clip)
        pieces = np.array([len(entry.pieces) for entry in self.clips])
        opened_before = np.diff(self._ends, prepend=0) * epoch
        first = self._random(_FIRST_PIECE).integers(1 << 30, size=len(pieces)) + opened_before.astype(
            np.int64
        )
        piece = (first[clip] + turn) % pieces[clip]
        return random.permutation(np.stack([clip, piece], axis=1).astype(np.int32))

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *what))
