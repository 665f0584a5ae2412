"""Emphasis: the moments of a recording that are stressed, at which brows rise and heads nod, and the shape of both."""

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.smoothstep import smoothstep
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, frame_count

STRESS_DB = 4.0
"""A stressed moment is so much louder than the second around it on average,"""
STRESS_SECONDS = 0.24
"""and the loudest within this on both sides."""
SYLLABLE_FRAMES, PHRASE_FRAMES = 7, 51
"""Loudness is averaged over the first, and compared with its average over the second."""
FLOOR = 1e-3
"""Amplitude, of full scale, below which nothing counts as louder or softer."""


def stressed_moments(samples: Float[Tensor, " samples"]) -> list[int]:
    """Frames at which speech is clearly louder than around them.

    Args:
        samples: Speech, 16 kHz.
    """
    step = SAMPLE_RATE_HZ // FRAME_RATE_HZ
    padded = torch.nn.functional.pad(samples, (0, frame_count(samples) * step - len(samples)))
    amplitude = padded.view(-1, step).square().mean(1).sqrt()
    loudness = _smooth(20 * (amplitude + FLOOR).log10(), SYLLABLE_FRAMES)
    stress = loudness - _smooth(loudness, PHRASE_FRAMES)
    width = 2 * round(STRESS_SECONDS * FRAME_RATE_HZ) + 1
    highest = torch.nn.functional.max_pool1d(stress[None], width, 1, width // 2)[0]
    return torch.nonzero((stress == highest) & (stress > STRESS_DB))[:, 0].tolist()


def _smooth(values: Float[Tensor, " frames"], width: int) -> Float[Tensor, " frames"]:
    """Average with a Hann window of an odd width; ends are continued."""
    window = torch.hann_window(width + 2, periodic=False)[1:-1]
    padded = torch.nn.functional.pad(values[None, None], (width // 2,) * 2, mode="replicate")
    return torch.nn.functional.conv1d(padded, (window / window.sum())[None, None])[0, 0]


def rise_and_fall(passed: Float[Tensor, " frames"], rising_share: float) -> Float[Tensor, " frames"]:
    """How far a gesture has gone when so much of it has passed: 0 to 1, smooth; 0 outside [0, 1].

    Args:
        passed: Share of its time.
        rising_share: Where in it the gesture is at its most, within (0, 1).
    """
    rising, falling = passed / rising_share, (1 - passed) / (1 - rising_share)
    return smoothstep(torch.minimum(rising, falling))
