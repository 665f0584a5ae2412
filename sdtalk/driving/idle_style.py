"""Idle styles: how much, how fast and when a head moves that follows no video.

Chosen by looking: they are told apart without sound, and none of them seems to shake or to float.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.driving.emphasis import rise_and_fall
from sdtalk.speech.audio import FRAME_RATE_HZ


@dataclass(frozen=True)
class IdleStyle:
    """Amplitudes are standard deviations, bands are in Hz.

    Attributes:
        sway_hz: Band of the slow motion.
        sway_degrees: Its pitch, yaw and roll.
        sway_shift: Its shift along each axis, head-space units (0.2 m).
        nod_degrees: The faster pitch that goes with speech.
        beat_degrees: How deep the head nods at stressed words at most; 0: not at all.
        beats: Share of the stressed words, of which there is about one a second, at which it does.
    """

    sway_hz: tuple[float, float]
    sway_degrees: tuple[float, float, float]
    sway_shift: float
    nod_degrees: float
    beat_degrees: float = 0.0
    beats: float = 0.0


IDLE_STYLES = {
    "natural": IdleStyle((0.05, 0.45), (0.8, 1.5, 0.8), 0.01, 0.35),
    "calm": IdleStyle((0.03, 0.2), (0.4, 0.7, 0.35), 0.005, 0.2),
    "lively": IdleStyle((0.08, 0.7), (1.3, 2.6, 1.6), 0.016, 0.6, 2.0, 0.4),
    "nodding": IdleStyle((0.04, 0.3), (0.5, 0.9, 0.5), 0.008, 0.25, 5.0, 0.7),
}
"""By name; the first is the default."""

BEAT_SECONDS = (0.5, 0.8)
"""From the beginning of a nod to its end."""
FALLING_SHARE = 0.4
"""A nod goes down faster than up."""
SHALLOWEST = 0.5
"""Depth of the smallest nod over that of the largest."""


def beat_nods(style: IdleStyle, stressed: list[int], frames: int, seed: int) -> Float[Tensor, " frames"]:
    """How far the head nods down at stressed words, degrees.

    Args:
        style: How deep and how often.
        stressed: Frames of the stressed moments, see `emphasis.stressed_moments`; the head is lowest there.
        frames: How many frames.
        seed: Chooses depths, lengths, and which moments.
    """
    random = np.random.default_rng((seed, 7))
    nods = torch.zeros(frames)
    for moment in stressed:
        wanted, depth = random.random() < style.beats, random.uniform(SHALLOWEST, 1) * style.beat_degrees
        seconds = random.uniform(*BEAT_SECONDS)
        if wanted:
            passed = (torch.arange(frames) - moment) / (seconds * FRAME_RATE_HZ) + FALLING_SHARE
            nods = torch.maximum(nods, depth * rise_and_fall(passed, FALLING_SHARE))
    return nods
