"""Waveforms: sound given as numbers, brought to one form."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from sdtalk.errors import InputError

LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 1000, 768_000
MOST_CHANNELS = 32
REMEDY = "Give a path, (sampling rate, array), or a mono tensor with sampling_rate=."


@dataclass(frozen=True)
class Waveform:
    """Sound as it was recorded.

    Attributes:
        samples: [samples] or [samples, channels], full scale = 1.
        rate_hz: Samples a second.
    """

    samples: Float32[np.ndarray, "samples *channels"]
    rate_hz: int

    @property
    def channels(self) -> int:
        """How many there are."""
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate_hz


def as_waveform(source: Any, sampling_rate: int | None = None, name: str = "speech") -> Waveform:
    """Take sound as arrays have it.

    Args:
        source: (rate in Hz, array) as Gradio and SciPy give it, or an array or tensor with `sampling_rate`. The array
            is [samples] or [samples, channels] ([1, samples] as torchaudio gives mono, too), of floating point
            numbers (full scale = 1) or of int16, int32 or uint8 (full scale = that of the type).
        sampling_rate: Of a bare array, in Hz.
        name: What to call it in an error.

    Raises:
        InputError: It is of another type or shape, empty, has no rate, or holds samples that are not numbers.
    """
    rate: object = sampling_rate
    if isinstance(source, tuple) and len(source) == 2:
        rate, source = source
    elif sampling_rate is None and isinstance(source, np.ndarray | Tensor):
        raise InputError(name, "the sampling rate of the array is not given", "Give it as sampling_rate=.")
    samples = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    if not isinstance(samples, np.ndarray):
        raise InputError(name, f"an object of type {type(samples).__name__} is no sound", REMEDY)
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer):
        raise InputError(name, f"its sampling rate {rate!r} is no whole number of Hz", REMEDY)
    if not LOWEST_RATE_HZ <= rate <= HIGHEST_RATE_HZ:
        problem = f"its sampling rate of {rate} Hz is not possible"
        raise InputError(name, problem, f"Give {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz.")
    return Waveform(_full_scale_one(_shaped(samples, name), name), int(rate))


def _shaped(samples: np.ndarray, name: str) -> np.ndarray:
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS):
        problem = f"its shape {samples.shape} is neither [samples] nor [samples, channels]"
        raise InputError(name, problem, "Transpose it, or take one channel.")
    if len(samples) == 0:
        raise InputError(name, "the sound lasts 0 seconds", "Give a recording.")
    return samples


def _full_scale_one(samples: np.ndarray, name: str) -> np.ndarray:
    """As float32 in [-1, 1]."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype in (np.int16, np.int32):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    if samples.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(name, f"{samples.dtype} is no type of sound", "Give float32 or int16 samples.")
    if not np.isfinite(samples).all():
        raise InputError(name, "some samples are not numbers (NaN or infinite)", "Record or export it again.")
    if (loudest := float(np.abs(samples).max())) > 16:
        problem = f"its floating point samples reach {loudest:.6g} where full scale is 1"
        raise InputError(name, problem, "Divide them by their full scale, 32768 for 16-bit sound.")
    return samples.astype(np.float32)
