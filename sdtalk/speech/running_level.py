"""Running level: how loud speech has been so far, for sound that is still coming."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.speech.audio import ACTIVE_RANGE_DB, MEL_HOP, MEL_WINDOW, SILENCE_DB, SPEECH_DB, loudness_db

START_DB = -25.0
"""Where a recording's active part usually lies; counts until something is heard."""

START_FRAMES = 50
"""The start value counts as so many frames of 10 ms, half a second of speech."""

STEP_DB = 0.5
BINS = 256
"""Loudness is counted in bins of this height, from 0 dB down."""


class RunningLevel:
    """Counts how loud every 10 ms were, so that `gain` tends to `level_gain` of the whole recording."""

    def __init__(self) -> None:
        self._counts = torch.zeros(BINS, dtype=torch.float64)
        self._powers = torch.zeros(BINS, dtype=torch.float64)
        self._rest = torch.zeros(0)

    def hear(self, samples: Float[Tensor, " samples"]) -> None:
        """Count the next samples, mono, 16 kHz."""
        held = torch.cat([self._rest, samples])
        whole = max((len(held) - MEL_WINDOW) // MEL_HOP + 1, 0)
        if whole:
            self._add(loudness_db(held.unfold(0, MEL_WINDOW, MEL_HOP)))
        self._rest = held[whole * MEL_HOP :]

    @property
    def gain(self) -> float:
        """What brings the active part of what was heard to the level that models were trained at."""
        loud = (
            self._counts.cumsum(0) >= 0.01 * self._counts.sum()
        )  # one in a hundred is louder than these bins
        reach = int(loud.nonzero()[0]) + round(ACTIVE_RANGE_DB / STEP_DB)
        reach = min(reach, round(-SILENCE_DB / STEP_DB))
        active, power = float(self._counts[:reach].sum()), float(self._powers[:reach].sum())
        heard_db = 10 * math.log10(power / active) if active else START_DB
        level_db = (active * heard_db + START_FRAMES * START_DB) / (active + START_FRAMES)
        return 10 ** ((SPEECH_DB - level_db) / 20)

    def _add(self, levels: Float[Tensor, " frame"]) -> None:
        bins = (-levels / STEP_DB).long().clamp(0, BINS - 1)
        self._counts += torch.bincount(bins, minlength=BINS).double()
        self._powers += torch.bincount(bins, weights=10 ** (levels.double() / 10), minlength=BINS)
