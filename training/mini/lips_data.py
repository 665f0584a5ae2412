"""Lip training data: real clips and synthetic speech, augmented, as batches of crops."""

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from scipy.signal import oaconvolve, resample_poly
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.speech.audio import (
    FRAME_RATE_HZ,
    MEL_BINS,
    MELS_PER_FRAME,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    WINDOW_MELS,
    frame_count,
    log_mel,
    padded_mels,
    speech_level,
)
from training.data.dataset import PreparedClip, PreparedDataset

CROP_FRAMES = 50
LONGEST_SHARE_SECONDS = 16  # a longer clip is drawn no more often, or one speaker would dominate
SHORTEST_FRAMES = 25


@dataclass(frozen=True)
class TalkingClip:
    """A person talking.

    Attributes:
        name: Its key.
        person: Who; folds of the cross-validation do not share people.
        mouth: [frames, 5] mouth codes at 25 fps, NaN where the face was lost.
        audio: [samples] mono 16 kHz, in sync.
    """

    name: str
    person: str
    mouth: Tensor
    audio: Tensor

    def shifted(self, frames: int) -> "TalkingClip":
        """The clip with its sound moved earlier by so many video frames (it was late)."""
        samples = frames * SAMPLES_PER_FRAME
        audio = self.audio[samples:] if samples >= 0 else torch.nn.functional.pad(self.audio, (-samples, 0))
        return replace(self, audio=audio)


def load_clips(prepared: PreparedDataset, split: str) -> list[TalkingClip]:
    """The clips of a split that have the speaker's own sound and are long enough to learn from."""
    chosen = [e for e in prepared.index.of(split) if e.own_speech and e.frames >= SHORTEST_FRAMES]
    return [talking_clip(prepared.clip(entry)) for entry in chosen]


def talking_clip(clip: PreparedClip) -> TalkingClip:
    """What the lips need of a prepared clip."""
    return TalkingClip(clip.entry.key, clip.entry.person, clip.mouth, clip.audio)


@dataclass(frozen=True)
class Example:
    """What a network hears over a clip and what it should say.

    Attributes:
        mels: [4 frames + 33, 80], half precision.
        target: [frames, numbers]; zero where not valid.
        valid: [frames] 1 where the target counts.
    """

    mels: Tensor
    target: Tensor
    valid: Tensor

    @property
    def frames(self) -> int:
        """Video frames."""
        return len(self.target)


@dataclass(frozen=True)
class SpeakerScale:
    """A speaker's own rest and amplitude, by which people become comparable. [5] each."""

    mean: Tensor
    amplitude: Tensor

    @classmethod
    def of(cls, mouth: Tensor) -> "SpeakerScale":
        """Measure; the shape coefficients share one amplitude, and nobody counts as quite motionless."""
        mouth = mouth[torch.isfinite(mouth).all(1)]
        opening = mouth[:, 0].std().clamp(min=0.15)
        shape = mouth[:, 1:].var(0).mean().sqrt().clamp(min=0.4)
        return cls(mouth.mean(0), torch.cat([opening[None], shape.expand(mouth.shape[1] - 1)]))


def mouth_example(clip: TalkingClip, samples: np.ndarray, speed: float) -> Example:
    """Targets of a clip whose sound was played at a speed: five standardised numbers and whether lips touch.

    Lips touch where the opening lies below 0.15 of the speaker's wide opening (95th percentile) during speech;
    in pauses, which sound does not predict, the sixth target is 0.5: no opinion.
    """
    audio = torch.from_numpy(samples)
    frames = min(frame_count(audio), round(len(clip.mouth) / speed))
    seen = torch.isfinite(clip.mouth).all(1)
    scale = SpeakerScale.of(clip.mouth)
    target = (clip.mouth - scale.mean) / scale.amplitude
    wide = clip.mouth[seen, 0].quantile(0.95)
    closed = (clip.mouth[:, :1] < 0.15 * wide).float()
    both = torch.cat([target, closed, seen[:, None].float()], dim=1).nan_to_num()
    at = ((torch.arange(frames) + 0.5) * speed - 0.5).clamp(0, len(both) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(both) - 1)
    both = both[low].lerp(both[high], (at - low)[:, None])
    silent = speech_level(audio)[:frames] < 0.5
    both[silent, 5] = 0.5
    return Example(padded_mels(log_mel(audio), frames).half(), both[:, :6], (both[:, 6] > 0.99).float())


def synthetic_examples(path: Path, rng: np.random.Generator) -> list[Example]:
    """Disturbed synthetic speech (`training/mini/synthetic_speech.py`); target: class, opening, rounding, closure.

    Raises:
        InputError: The file is missing, damaged, or another one.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            samples, frames = data["samples"], data["frames"]
            targets = np.concatenate([data["classes"][:, None].astype(np.float32), data["curves"]], axis=1)
    except (OSError, ValueError, TypeError, AttributeError, EOFError, LookupError, BadZipFile) as error:
        remedy = "Give what training/mini/synthetic_speech.py wrote."
        raise InputError(str(path), f"no synthetic speech can be read from it ({error})", remedy) from error
    ends = np.cumsum(frames)
    examples = []
    for end, count in zip(ends, frames, strict=True):
        piece = (
            samples[(end - count) * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME].astype(np.float32) / 32768
        )
        audio = torch.from_numpy(augment_audio(piece, rng))
        mels = padded_mels(log_mel(audio), int(count)).half()
        target = torch.from_numpy(targets[end - count : end]).float()
        examples.append(Example(mels, target, torch.ones(int(count))))
    return examples


def augmented_examples(clip: TalkingClip, count: int, rng: np.random.Generator) -> list[Example]:
    """The clip as it is and `count` disturbed versions of it, most at another speed (pitch goes along)."""
    plain = clip.audio.numpy()
    examples = [mouth_example(clip, plain, 1.0)]
    for _ in range(count):
        step = int(rng.integers(17, 24))
        sound = plain if step == 20 else resample_poly(plain, 20, step).astype(np.float32)
        examples.append(mouth_example(clip, augment_audio(sound, rng), step / 20))
    return examples


def augment_audio(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another microphone, room and background: a reverberation tail on 30 %, noise on 60 %."""
    power = float(np.mean(samples**2)) + 1e-9
    if rng.random() < 0.3:
        seconds = rng.uniform(0.1, 0.5)
        time = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
        tail = rng.standard_normal(len(time)) * np.exp(-6.9 * time / seconds) * (time > 0.003)
        tail *= rng.uniform(0.2, 0.8) / (np.linalg.norm(tail) + 1e-9)
        samples = samples + oaconvolve(samples, tail)[: len(samples)]
    if rng.random() < 0.6:
        spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
        colour = rng.uniform(0, 1)  # white to pink, as power 1 / f
        spectrum *= np.maximum(np.arange(len(spectrum)) / len(spectrum), 1e-3) ** (-colour / 2)
        noise = np.fft.irfft(spectrum, len(samples))
        noise *= np.sqrt(power / (np.mean(noise**2) + 1e-9)) * 10 ** (-rng.uniform(2, 37) / 20)
        samples = samples + noise
    return samples.astype(np.float32)


class CropSampler:
    """Draws batches of two-second crops, clips by their length up to a limit, versions of a clip evenly."""

    def __init__(self, groups: list[list[Example]], rng: np.random.Generator) -> None:
        """Groups are the versions of one clip."""
        self._groups, self._rng = groups, rng
        share = np.array([min(g[0].frames, LONGEST_SHARE_SECONDS * FRAME_RATE_HZ) for g in groups], float)
        self._share = share / share.sum()

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Mels [size, 233, 80], targets [size, 50, numbers], validity [size, 50]; short clips padded, invalid."""
        mels = torch.zeros(size, MELS_PER_FRAME * (CROP_FRAMES - 1) + WINDOW_MELS, MEL_BINS)
        numbers = self._groups[0][0].target.shape[1]
        target, valid = torch.zeros(size, CROP_FRAMES, numbers), torch.zeros(size, CROP_FRAMES)
        for i, g in enumerate(self._rng.choice(len(self._groups), size, p=self._share)):
            group = self._groups[g]
            example = group[int(self._rng.integers(len(group)))]
            count = min(CROP_FRAMES, example.frames)
            first = int(self._rng.integers(example.frames - count + 1))
            start, length = MELS_PER_FRAME * first, MELS_PER_FRAME * (count - 1) + WINDOW_MELS
            mels[i, :length] = example.mels[start : start + length]
            target[i, :count] = example.target[first : first + count]
            valid[i, :count] = example.valid[first : first + count]
        return augment_mels(mels, self._rng), target, valid


def augment_mels(mels: Tensor, rng: np.random.Generator) -> Tensor:
    """Per crop: mel axis stretched by up to 10 % (another vocal tract), equaliser, gaps in frequency and time."""
    size, length, bins = mels.shape
    stretch = torch.from_numpy(rng.uniform(0.9, 1.1, (size, 1))).float()
    at = (torch.arange(bins) * stretch).clamp(max=bins - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=bins - 1)
    rows = torch.arange(size)[:, None]
    columns = mels.transpose(1, 2)
    mels = columns[rows, low].lerp(columns[rows, high], (at - low)[..., None]).transpose(1, 2)
    knots = torch.from_numpy(rng.normal(0, 0.25, (size, 1, 6))).float()
    mels = mels + torch.nn.functional.interpolate(knots, bins, mode="linear")
    for i in range(size):
        for _ in range(2):
            width, first = rng.integers(0, 12), rng.integers(0, bins - 12)
            mels[i, :, first : first + width] = 0
        width, first = rng.integers(0, 8), rng.integers(0, length - 8)
        mels[i, first : first + width] = 0
    return mels
