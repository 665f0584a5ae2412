"""Lip training data: people talking and quiet sounds, as batches of crops of Whisper features with mouth codes."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.motion.audio_encoder import WHISPER_WIDTH
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, frame_count, speech_level
from sdtalk.speech.sliding import ROWS_PER_FRAME
from sdtalk.speech.whisper import LIVE, WINDOW, WhisperFeatures
from training.data.dataset import PreparedClip, PreparedDataset

CROP_FRAMES = 50
LONGEST_SHARE_SECONDS = 16  # a longer clip is drawn no more often, or one speaker would dominate
SHORTEST_FRAMES = 25

QUIET_SHARE = 0.08
"""Of the crops: sounds that are no speech, at which the mouth rests."""

QUIET_SECONDS = 4
NOISE_COLOURS = (0.0, 0.5, 1.0, 2.0)
"""Exponents of the noises' power spectra: white, between, pink, brown."""


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


def withheld_videos(manifests: Sequence[Path], rights: Collection[str]) -> set[str]:
    """File names of the videos that manifests list with other `rights` than those given.

    Raises:
        InputError: A manifest cannot be read.
    """
    names = set()
    for path in manifests:
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            names |= {Path(e["file"]).name for e in entries if e.get("rights", "clear") not in rights}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                str(path), "it is no manifest that can be read", "Give a manifest.json."
            ) from error
    return names


def load_clips(
    prepared: PreparedDataset, split: str, withheld: Collection[str] = ()
) -> tuple[list[TalkingClip], list[TalkingClip]]:
    """The clips of a split with the speaker's own sound that are long enough to learn from.

    Args:
        prepared: The data set.
        split: Which people.
        withheld: File names of videos that must not be learned from.

    Returns:
        The clips to use, and those of the withheld videos.
    """
    chosen = [e for e in prepared.index.of(split) if e.own_speech and e.frames >= SHORTEST_FRAMES]
    used, held = [], []
    for clip in map(prepared.clip, chosen):
        (held if clip.metadata.video in withheld else used).append(talking_clip(clip))
    return used, held


def talking_clip(clip: PreparedClip) -> TalkingClip:
    """What the lips need of a prepared clip."""
    return TalkingClip(clip.entry.key, clip.entry.person, clip.mouth, clip.audio)


@dataclass(frozen=True)
class Example:
    """What a network hears over a clip and what it should say.

    Attributes:
        rows: [2 frames + 15, 512] Whisper features, half precision.
        target: [frames, 6]: five standardised numbers of the mouth code, and whether the lips touch; zero where not
            valid.
        valid: [frames] 1 where the target counts.
    """

    rows: Tensor
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

    @property
    def rest(self) -> Tensor:
        """The closed mouth at rest, standardised."""
        return torch.cat([-self.mean[:1] / self.amplitude[:1], torch.zeros(len(self.mean) - 1)])


def mouth_target(clip: TalkingClip) -> tuple[Tensor, Tensor]:
    """Targets [frames, 6] of a clip and where they count [frames].

    Lips touch where the opening lies below 0.15 of the speaker's wide opening (95th percentile) during speech;
    in pauses, which sound does not predict, the sixth target is 0.5: no opinion.
    """
    frames = min(frame_count(clip.audio), len(clip.mouth))
    mouth = clip.mouth[:frames]
    seen, scale = torch.isfinite(mouth).all(1), SpeakerScale.of(clip.mouth)
    wide = mouth[seen, 0].quantile(0.95)
    touch = (mouth[:, :1] < 0.15 * wide).float()
    touch[speech_level(clip.audio)[:frames] < 0.5] = 0.5
    target = torch.cat([(mouth - scale.mean) / scale.amplitude, touch], dim=1)
    return torch.where(seen[:, None], target, 0.0), seen.float()


class Listener:
    """Whisper features as both uses have them: of whole recordings, and of live chunks."""

    def __init__(self) -> None:
        self.whole = WhisperFeatures.bundled()
        self._both = (self.whole, WhisperFeatures.bundled(chunks=LIVE))

    def hear(self, audio: Tensor, frames: int) -> list[Tensor]:
        """Features of so many frames, in half precision: [2 frames + 15, 512] each."""
        return [features.padded(audio, frames).half() for features in self._both]

    def examples(self, clip: TalkingClip) -> list[Example]:
        """A clip as both uses hear it."""
        target, valid = mouth_target(clip)
        return [Example(rows, target, valid) for rows in self.hear(clip.audio, len(target))]

    def quiet_examples(
        self, rest: Tensor, rng: np.random.Generator, seconds: int = QUIET_SECONDS
    ) -> list[Example]:
        """Digital silence and noises, at which the mouth rests, closed.

        Args:
            rest: [5] the closed mouth, standardised.
            rng: Of the noises.
            seconds: Of each sound.
        """
        frames = seconds * FRAME_RATE_HZ
        target = torch.cat([rest, torch.ones(1)]).expand(frames, -1)
        sounds = [torch.zeros(seconds * SAMPLE_RATE_HZ)]
        sounds += [coloured_noise(seconds, colour, rng) for colour in NOISE_COLOURS for _ in range(2)]
        heard = [rows for sound in sounds for rows in self.hear(sound, frames)]
        return [Example(rows, target, torch.ones(frames)) for rows in heard]


def coloured_noise(seconds: float, colour: float, rng: np.random.Generator) -> Tensor:
    """Noise whose power falls with frequency^colour; 0 is white, 1 pink, 2 brown."""
    count = round(seconds * SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum *= np.maximum(np.arange(len(spectrum)) / len(spectrum), 1e-3) ** (-colour / 2)
    noise = np.fft.irfft(spectrum, count)
    return torch.from_numpy(0.05 * noise / noise.std()).float()


class CropSampler:
    """Draws batches of two-second crops: clips by their length up to a limit, versions of a clip evenly, some quiet."""

    def __init__(
        self, groups: list[list[Example]], rng: np.random.Generator, quiet: list[Example] | None = None
    ) -> None:
        """Groups are the versions of one clip."""
        self._groups, self._rng = groups + ([quiet] if quiet else []), rng
        share = np.array([min(g[0].frames, LONGEST_SHARE_SECONDS * FRAME_RATE_HZ) for g in groups], float)
        share = share / share.sum()
        self._share = np.append((1 - QUIET_SHARE) * share, QUIET_SHARE) if quiet else share

    def draw(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows [size, 115, 512], targets [size, 50, 6], validity [size, 50]; short clips padded, invalid."""
        rows = torch.zeros(size, ROWS_PER_FRAME * (CROP_FRAMES - 1) + WINDOW, WHISPER_WIDTH)
        target, valid = torch.zeros(size, CROP_FRAMES, 6), torch.zeros(size, CROP_FRAMES)
        for i, g in enumerate(self._rng.choice(len(self._groups), size, p=self._share)):
            group = self._groups[g]
            example = group[int(self._rng.integers(len(group)))]
            count = min(CROP_FRAMES, example.frames)
            first = int(self._rng.integers(example.frames - count + 1))
            start, length = ROWS_PER_FRAME * first, ROWS_PER_FRAME * (count - 1) + WINDOW
            rows[i, :length] = example.rows[start : start + length]
            target[i, :count] = example.target[first : first + count]
            valid[i, :count] = example.valid[first : first + count]
        return rows, target, valid
