"""Brows: how high they are in every frame; they wander a little, and rise with some of the words that are stressed.

Measured in the 73 clips of the training sets that have sound and open eyes for long enough (height of the brows over
the corners of the eyes, blinks left out): there is hardly any relation between sound and brows. Height and loudness
correlate with r = .06 at the best lag, brows 0.16 s before the sound; around the 150 most stressed moments brows are
higher by .0006 units, .1 mm (standard error .00015). What people do is to raise their brows now and then, every 5 to
6 s; so stressed moments only say when.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.driving.emphasis import rise_and_fall, stressed_moments
from sdtalk.driving.head_motion import fade_in, waves
from sdtalk.speech.audio import FRAME_RATE_HZ, frame_count

IDLE_HZ, IDLE = (0.03, 0.5), 0.0013
"""Standard deviation of brows that nothing raises, head-space units (measured: the calmest quarter of the clips)."""

RAISE = (0.006, 0.013)
"""Height of a raise (measured: half of them over .019, 4 mm; we stay below, since a raised forehead has no wrinkles
here)."""
RAISE_SECONDS = (0.4, 1.0)
"""From start to end (measured: half of them above .01 for .4 s, a tenth for 1.3 s)."""
RISING_SHARE = 0.4
LEAD_SECONDS = 0.16
"""Brows are highest so long before the sound is loudest (measured)."""
RAISED = 0.18
"""Share of the stressed moments at which brows rise: there is one a second, and .18 raises (means of the clips)."""


def brow_motion(samples: Float[Tensor, " samples"], seed: int) -> Float[Tensor, "frames"]:
    """Rise of the brows since the photo in every frame, head-space units.

    Args:
        samples: Speech, 16 kHz.
        seed: Chooses the idle motion, and which stressed moments raise the brows.
    """
    random = np.random.default_rng((seed, 5))
    frames = frame_count(samples)
    height = IDLE * waves(frames, IDLE_HZ, random)
    raised = torch.zeros(frames)
    for moment in stressed_moments(samples):
        wanted, most, seconds = (
            random.random() < RAISED,
            random.uniform(*RAISE),
            random.uniform(*RAISE_SECONDS),
        )
        if wanted:
            highest = moment / FRAME_RATE_HZ - LEAD_SECONDS
            passed = (torch.arange(frames) / FRAME_RATE_HZ - highest) / seconds + RISING_SHARE
            raised = torch.maximum(raised, most * rise_and_fall(passed, RISING_SHARE))
    return (height + raised) * fade_in(frames)
