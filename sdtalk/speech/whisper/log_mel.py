"""Whisper's input: log-mel spectrogram of levelled sound, with a constant top."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sdtalk.speech.audio import MEL_HOP, MEL_WINDOW, mel_edges_hz, mel_filters

TOP = 1.5
"""Log10 of the power that counts as the loudest. Whisper takes each sound's own maximum, 0.7 to 1.6 in levelled
speech; a constant makes a chunk independent of what else is heard, and silence be silence."""

RANGE = 8.0
"""What lies so much below the top, in log10 of the power, is cut off."""

POWER_FLOOR = 1e-10


def area_filters() -> Float[Tensor, "80 201"]:
    """Slaney's mel filters, each of area 1 over its Hz, for 400-point spectra."""
    low, _, high = mel_edges_hz()
    return mel_filters(MEL_WINDOW) * (2 / (high - low)).float()


def whisper_log_mel(
    samples: Float[Tensor, "*batch samples"], top: float = TOP
) -> Float[Tensor, "*batch 80 step"]:
    """Spectrogram as Whisper hears it, 100 steps a second; step k is centred on sample 160 k, zeros beyond the ends.

    Whisper itself reflects the sound at its ends, which shows in the first two steps only.

    Args:
        samples: 16 kHz, levelled (`sdtalk.speech.audio.level_gain`).
        top: See `TOP`.
    """
    half = MEL_WINDOW // 2
    pieces = pad(samples, (half, half)).unfold(-1, MEL_WINDOW, MEL_HOP)[
        ..., : samples.shape[-1] // MEL_HOP, :
    ]
    window = torch.hann_window(MEL_WINDOW, device=samples.device)
    power = torch.fft.rfft(pieces * window).abs().square()
    levels = (power @ area_filters().T.to(samples.device)).clamp(min=POWER_FLOOR).log10()
    return ((levels.clamp(min=top - RANGE) + 4) / 4).transpose(-1, -2)
