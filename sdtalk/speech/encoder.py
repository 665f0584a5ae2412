"""Speech encoder: a recording goes in, one audio code for every video frame comes out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ, Speech, speech_level, speech_windows
from sdtalk.speech.hubert import HubertFeatures
from sdtalk.speech.whisper import WhisperFeatures

SILENT_SECONDS = 4
"""So much silence is listened to, where silence itself has to be heard: a token hears positions 1.3 s away."""


@runtime_checkable
class WindowModel(Protocol):
    """What is asked of a model: its config, and audio codes of sound windows (`sdtalk.model.SDTalk`)."""

    config: SDTalkConfig

    def encode_audio(
        self, windows: Float[Tensor, "frame step channel"]
    ) -> Float[Tensor, "frame *field audio"]:
        """Sound windows -> audio codes."""
        ...


@runtime_checkable
class SoundFeatures(Protocol):
    """What a model hears through."""

    def windows(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "frame step channel"]]:
        """What each of the `frame_count(samples)` video frames hears, some at a time."""
        ...

    def to(self, device: torch.device | str) -> "SoundFeatures":
        """The same on another device."""
        ...


class LogMelFeatures:
    """Log-mel windows, for models made before SDTalk 0.2; always computed on the CPU."""

    def windows(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "frame 37 80"]]:
        """See `sdtalk.speech.audio.speech_windows`."""
        return speech_windows(samples)

    def to(self, device: torch.device | str) -> "LogMelFeatures":
        """Nothing to move."""
        return self


@dataclass(frozen=True)
class HubertWindows:
    """HuBERT's tokens, 16 of them a frame.

    Attributes:
        hubert: Makes the tokens.
        alignment: Which ones, see `sdtalk.speech.hubert.token_windows`.
    """

    hubert: HubertFeatures
    alignment: str = "ahead"

    def windows(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "frame 16 width"]]:
        """See `HubertFeatures.windows`."""
        return self.hubert.windows(samples, self.alignment)

    def to(self, device: torch.device | str) -> "HubertWindows":
        """Move the network, which nobody else uses."""
        self.hubert.model.to(device)
        return self


class SpeechEncoder:
    """Prepares sound as the model was trained to hear it, and lets the model make codes of it.

    Args:
        model: Makes codes of windows.
        features: Makes windows of sound.
        device: Where both are.
    """

    def __init__(self, model: WindowModel, features: SoundFeatures, device: torch.device | str) -> None:
        self.model, self.features, self.device = model, features, torch.device(device)

    @classmethod
    def for_model(cls, model: WindowModel, device: torch.device | str) -> "SpeechEncoder":
        """Find what a model listens with.

        Raises:
            InputError: It needs HuBERT, which is not on this machine, or is another one.
        """
        return cls(model, features_for(model.config, device), device)

    def to(self, device: torch.device | str) -> "SpeechEncoder":
        """Compute elsewhere from now on; the model is moved by its owner."""
        self.device = torch.device(device)
        self.features = self.features.to(self.device)
        return self

    @torch.inference_mode()
    def encode(self, sound: Speech, mouth: float = 1.0) -> Float[Tensor, "frame *field audio"]:
        """Codes of a recording, on the CPU; memory for features does not grow with its length.

        Args:
            sound: The recording.
            mouth: How far the mouth moves; 1 as learned. mini's codes measure from the closed mouth; the codes of
                other models have no such zero, so theirs are stretched from what they are in the pauses.
        """
        code, level = self.codes(sound.samples), speech_level(sound.samples)
        if self.model.config.hears_mouth_codes:
            return hold_in_silence(code, level) * mouth
        if mouth == 1:
            return code
        rest = code[level == 0] if (level == 0).any() else code
        return torch.lerp(rest.mean(0, keepdim=True), code, mouth)

    @torch.inference_mode()
    def silence(self) -> Float[Tensor, "1 *field audio"]:
        """The code of a mouth that says nothing."""
        if self.model.config.hears_mouth_codes:
            return torch.zeros(1, self.model.config.audio_code_width)
        code = self.codes(torch.zeros(SILENT_SECONDS * SAMPLE_RATE_HZ))
        return code[len(code) // 2][None]  # frames at the ends hear beyond the sound

    @torch.inference_mode()
    def codes(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frame *field audio"]:
        """Codes as the model says them, in pauses, too; on the CPU."""
        parts = self.features.windows(samples)
        return torch.cat([self.model.encode_audio(part.to(self.device)).cpu() for part in parts])


def features_for(
    config: SDTalkConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> SoundFeatures:
    """What a model hears through.

    Args:
        config: The model's.
        device: Where to compute.
        dtype: What HuBERT computes in; the others are small.

    Raises:
        InputError: It needs HuBERT, which is not on this machine, or has tokens of another width.
    """
    if config.sound == "mel":
        return LogMelFeatures()
    if config.sound == "whisper":
        return WhisperFeatures.bundled(device)
    hubert = HubertFeatures.installed(device, dtype)
    width = hubert.model.config.hidden_size
    if width != config.audio_width:
        problem = (
            f"it hears tokens of {config.audio_width} numbers, and those of the HuBERT here have {width}"
        )
        remedy = "Add the HuBERT it was trained with: `sdtalk assets add hubert FOLDER`."
        raise InputError(f"model {config.name!r}", problem, remedy)
    return HubertWindows(hubert, config.token_alignment)


def hold_in_silence(
    code: Float[Tensor, "frames code"], level: Float[Tensor, " frames"]
) -> Float[Tensor, "frames code"]:
    """Close the mouth and keep it still where nobody speaks.

    Real people hold their mouths anywhere in a pause, which no sound tells; a still one looks calm.

    Args:
        code: Mouth codes.
        level: 1 in speech, 0 in pauses, see `sdtalk.speech.audio.speech_level`.
    """
    return code * level[:, None]
