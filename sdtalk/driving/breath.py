"""Breath: how high the shoulders are in every frame; they rise and sink slowly, no two breaths alike."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.smoothstep import smoothstep
from sdtalk.speech.audio import FRAME_RATE_HZ

BREATH_SECONDS = (3.2, 4.9)
"""From breath to breath: about 0.25 Hz, as adults at rest (12 to 20 a minute)."""
DEPTH = (0.0035, 0.006)
"""Rise of the shoulders, head-space units: 1 to 2 px of a frame, in which a unit is about 300 px."""
INHALING_SHARE = 0.4
"""Of a breath; the rest is sinking, and a short pause."""
PAUSE_SHARE = 0.12


def breath_motion(frames: int, seed: int) -> Float[Tensor, " frames"]:
    """Rise of the shoulders since the photo in every frame, head-space units; never below the photo's.

    What lies behind the shoulders in a photo nobody has seen, so they cover more of it and uncover nothing.

    Args:
        frames: How many.
        seed: Chooses lengths and depths of the breaths.
    """
    random = np.random.default_rng((seed, 6))
    seconds = torch.arange(frames) / FRAME_RATE_HZ
    rise, start = torch.zeros(frames), random.uniform(0, 1.5)
    while start * FRAME_RATE_HZ < frames:
        length, depth = random.uniform(*BREATH_SECONDS), random.uniform(*DEPTH)
        rise += depth * _in_and_out((seconds - start) / length)
        start += length
    return rise


def _in_and_out(passed: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """How full the lungs are when so much of a breath has passed, 0 to 1; 0 outside."""
    sinking = 1 - INHALING_SHARE - PAUSE_SHARE
    return smoothstep(torch.minimum(passed / INHALING_SHARE, (1 - PAUSE_SHARE - passed) / sinking))
