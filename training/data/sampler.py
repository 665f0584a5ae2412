"""Which frames training sees, and in what order: a function of the seed and the step, however many processes share it.

A step's batch has one sample from each of B lanes, B being the samples of a step over all processes. A lane keeps
`pool` visits open and takes a sample from each in turn; a visit is a piece of a clip for target frames and a piece of
the same clip for source frames, and is left for the next one after `draws` samples. So pieces are read whole and used
often, and a batch still mixes many clips. Visits come from one endless sequence for all lanes: epochs in which every
clip is visited at least once, and as often as its weight says.

Nothing here depends on what was drawn before: to resume at any step costs nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Int

from training.data.entries import ClipEntry, Piece

# What a random number is for, so that no two uses share one.
_EPOCH, _VISIT, _DRAW, _INSTEAD, _FIRST = range(5)


@dataclass(frozen=True)
class Visit:
    """Two pieces of a clip, often but not always different ones."""

    clip: ClipEntry
    target: Piece
    source: Piece


@dataclass(frozen=True)
class Draw:
    """A sample: numbers of two frames of a clip, and where in its free play the window lies."""

    source: int
    target: int
    window: tuple[float, float]


class SamplingPlan:
    """What each lane draws."""

    def __init__(
        self, clips: Sequence[ClipEntry], lanes: int, seed: int, pool: int | None = None, draws: int = 32
    ) -> None:
        """Plan.

        Args:
            clips: What to draw from; a clip weighs as the root of its length, and double with its own voice.
            lanes: Samples of a step over all processes.
            seed: Of all randomness.
            pool: Visits a lane keeps open; None: 4, or more where there are few lanes.
            draws: Samples from each visit.
        """
        self.clips, self.lanes, self.seed = sorted(clips, key=lambda clip: clip.key), lanes, seed
        self.pool, self.draws = pool or max(4, 32 // lanes), draws
        weights = np.array([math.sqrt(clip.frames) * (1 + clip.own_speech) for clip in self.clips])
        self.epoch_length = math.ceil(weights.sum() / weights.min() * (1 + 1e-9))
        """Visits of an epoch: so many that even the clip of the smallest weight has one."""
        self._ends = np.cumsum(weights * (self.epoch_length / weights.sum()))
        self._epoch = lru_cache(maxsize=3)(self._shuffled)

    def visit_number(self, draw: int) -> int:
        """The visit that a lane's sample comes from."""
        slot, use = draw % self.pool, draw // self.pool
        return (use + self._phase(slot)) // self.draws * self.pool + slot

    def last_draw(self, visit: int) -> int:
        """The last sample of a visit."""
        slot, turn = visit % self.pool, visit // self.pool
        return ((turn + 1) * self.draws - self._phase(slot) - 1) * self.pool + slot

    def _phase(self, slot: int) -> int:
        """First visits are shorter, each by another part, so that not all are left at once."""
        return slot * self.draws // self.pool

    def visit(self, lane: int, number: int, attempt: int = 0) -> Visit:
        """A visit of a lane.

        Args:
            lane: Below `lanes`.
            number: Which of its visits.
            attempt: 0, or counting up: another visit instead, where that one's pieces are damaged.
        """
        epoch, at = divmod(lane + self.lanes * number, self.epoch_length)
        if attempt:
            at = int(self._random(_INSTEAD, lane, number, attempt).integers(self.epoch_length))
        clip_number, piece = self._epoch(epoch)[at].tolist()
        clip = self.clips[clip_number]
        source = int(self._random(_VISIT, lane, number, attempt).integers(len(clip.pieces)))
        return Visit(clip, clip.pieces[piece], clip.pieces[source])

    def draw(self, lane: int, number: int, visit: Visit) -> Draw:
        """A sample of a lane from the visit it is at."""
        random = self._random(_DRAW, lane, number)
        source, target = (
            piece.first + int(random.integers(piece.count)) for piece in (visit.source, visit.target)
        )
        return Draw(source, target, (float(random.random()), float(random.random())))

    def _shuffled(self, epoch: int) -> Int[np.ndarray, "visit 2"]:
        """Clip and piece of an epoch's visits.

        Clips have stretches as long as their weights on a line; points one apart, from a random start, pick them.
        A clip's visits go round its pieces, on from where those of the epochs before have come to.
        """
        random = self._random(_EPOCH, epoch)
        points = random.random() + np.arange(self.epoch_length)
        clip = np.searchsorted(self._ends, points, side="right").clip(max=len(self.clips) - 1)
        turn = np.arange(self.epoch_length) - np.searchsorted(clip, clip)
        pieces = np.array([len(entry.pieces) for entry in self.clips])
        visited = np.diff(self._ends, prepend=0) * epoch
        first = self._random(_FIRST).integers(1 << 30, size=len(pieces)) + visited.astype(np.int64)
        piece = (first[clip] + turn) % pieces[clip]
        return random.permutation(np.stack([clip, piece], axis=1).astype(np.int32))

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *what))
