"""Speech encoder: a recording goes in, one audio code for every video frame comes out."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ, Speech, speech_level, speech_windows
from sdtalk.speech.hubert import HubertFeatures

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


class SpeechEncoder:
    """Prepares sound as the model was trained to hear it: log-mel windows (mini), or HuBERT tokens (base)."""

    def __init__(self, model: WindowModel, hubert: HubertFeatures | None, device: torch.device | str) -> None:
        self.model, self.hubert, self.device = model, hubert, torch.device(device)

    @classmethod
    def for_model(cls, model: WindowModel, device: torch.device | str) -> "SpeechEncoder":
        """Find what a model listens with.

        Raises:
            InputError: It needs HuBERT, which is not on this machine, or is another one.
        """
        return cls(model, hubert_for(model.config, device), device)

    def to(self, device: torch.device | str) -> "SpeechEncoder":
        """Compute elsewhere from now on; the model is moved by its owner."""
        self.device = torch.device(device)
        if self.hubert is not None:
            self.hubert.model.to(self.device)
        return self

    @torch.inference_mode()
    def encode(self, sound: Speech, mouth: float = 1.0) -> Float[Tensor, "frame *field audio"]:
        """Codes of a recording, on the CPU; memory for features does not grow with its length.

        Args:
            sound: The recording.
            mouth: How far the mouth moves; 1 as learned. mini's codes measure from the closed mouth; the codes of
                other models have no such zero, so theirs are stretched from what they are in the pauses.
        """
        code, level = self._codes(sound.samples), speech_level(sound.samples)
        if self.hubert is None:
            return hold_in_silence(code, level) * mouth
        if mouth == 1:
            return code
        rest = code[level == 0] if (level == 0).any() else code
        return torch.lerp(rest.mean(0, keepdim=True), code, mouth)

    @torch.inference_mode()
    def silence(self) -> Float[Tensor, "1 *field audio"]:
        """The code of a mouth that says nothing."""
        if self.hubert is None:
            return torch.zeros(1, self.model.config.audio_code_width)
        code = self._codes(torch.zeros(SILENT_SECONDS * SAMPLE_RATE_HZ))
        return code[len(code) // 2][None]  # frames at the ends hear beyond the sound

    def _codes(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "frame *field audio"]:
        if self.hubert is None:
            windows = speech_windows(samples)
        else:
            windows = self.hubert.windows(samples, self.model.config.token_alignment)
        return torch.cat([self.model.encode_audio(part.to(self.device)).cpu() for part in windows])


def hubert_for(
    config: SDTalkConfig, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> HubertFeatures | None:
    """The speech network a model hears through, computing in a dtype; None where it needs none.

    Raises:
        InputError: It needs HuBERT, which is not on this machine, or has tokens of another width.
    """
    if config.audio_encoder != "hubert":
        return None
    hubert = HubertFeatures.installed(device, dtype)
    width = hubert.model.config.hidden_size
    if width != config.audio_width:
        problem = (
            f"it hears tokens of {config.audio_width} numbers, and those of the HuBERT here have {width}"
        )
        remedy = "Add the HuBERT it was trained with: `sdtalk assets add hubert FOLDER`."
        raise InputError(f"model {config.name!r}", problem, remedy)
    return hubert


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
