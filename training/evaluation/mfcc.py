"""MFCC: mel-frequency cepstral coefficients, as the package python_speech_features computes them by default.

SyncNet was trained on these: windows of 25 ms every 10 ms, pre-emphasis .97, no window function, FFT of 512 points, 26
triangles from 0 to 8 kHz on the mel scale of 2595 log10(1 + f / 700), orthonormal DCT-II, 13 coefficients, lifter 22;
the first coefficient is the logarithm of the window's energy. Frames at the end are filled up with zeros.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.fft import dct

from sdtalk.speech.audio import SAMPLE_RATE_HZ

WINDOW, HOP, FFT = 400, 160, 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97

FULL_SCALE = 32768
"""The network knows sound as 16-bit integers."""


def mfcc(samples: Float[np.ndarray, " samples"]) -> Float[np.ndarray, "window 13"]:
    """Coefficients of a recording at 16 kHz.

    Args:
        samples: In units of 16-bit integers, not of full scale.
    """
    emphasised = np.append(samples[:1], samples[1:] - PREEMPHASIS * samples[:-1])
    count = 1 + max(0, math.ceil((len(samples) - WINDOW) / HOP))
    padded = np.append(emphasised, np.zeros((count - 1) * HOP + WINDOW - len(emphasised)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    energy = _without_zeros(power.sum(1))
    bands = np.log(_without_zeros(power @ mel_triangles().T))
    cepstrum = dct(bands, type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return cepstrum


def mel_triangles() -> Float[np.ndarray, "26 257"]:
    """Triangles of height 1 between whole FFT bins, evenly spaced in mel."""
    top = 2595 * math.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, FILTERS + 2) / 2595) - 1)
    edges = np.floor((FFT + 1) * edges_hz / SAMPLE_RATE_HZ)
    bins = np.arange(FFT // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.where(bins < middle, rising, falling) * ((bins >= low) & (bins < high))


def _without_zeros(values: np.ndarray) -> np.ndarray:
    return np.where(values == 0, np.finfo(float).eps, values)
