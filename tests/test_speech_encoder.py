"""Tests of the speech encoder: features of any length of sound, and the strength of the mouth."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy import TOY_BASE, toy_base, toy_model

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ, Speech, frame_count, speech_level, speech_windows
from sdtalk.speech.encoder import HubertWindows, LogMelFeatures, SpeechEncoder, features_for
from sdtalk.speech.whisper import WhisperFeatures


@pytest.fixture(scope="module", autouse=True)
def home(toy_home: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDTALK_HOME", str(toy_home))
        yield


@pytest.fixture(scope="module")
def base() -> SpeechEncoder:
    return SpeechEncoder.for_model(toy_base(), "cpu")


@pytest.fixture(scope="module")
def mini() -> SpeechEncoder:
    return SpeechEncoder.for_model(toy_model(), "cpu")


@pytest.fixture(scope="module")
def whispering() -> SpeechEncoder:
    """A toy of mini as it is now."""
    return SpeechEncoder.for_model(toy_model(audio_encoder="whisper", audio_width=6), "cpu")


def speech(seconds: float = 3.0, pause: tuple[float, float] = (1.0, 2.0)) -> Speech:
    """Noise that swells four times a second, with a pause."""
    times = torch.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = torch.randn(len(times), generator=torch.Generator().manual_seed(0))
    spoken = (times < pause[0]) | (times >= pause[1])
    return Speech(0.1 * noise * (1.2 + (25 * times).sin()) * spoken, Path("speech.wav"))


def test_base_hears_hubert_at_its_alignment(base: SpeechEncoder) -> None:
    sound = speech()
    assert isinstance(base.features, HubertWindows)
    for alignment in ("ahead", "centred"):
        model = toy_base(token_alignment=alignment)
        code = SpeechEncoder(model, HubertWindows(base.features.hubert, alignment), "cpu").encode(sound)
        windows = torch.cat(list(base.features.hubert.windows(sound.samples, alignment)))
        assert code.shape == (75, 2, TOY_BASE.audio_code_width)
        with torch.no_grad():
            for field, encoder in enumerate((model.audio_encoder.coarse, model.audio_encoder.fine)):
                torch.testing.assert_close(code[:, field], encoder(windows))


def test_mini_hears_mels_and_holds_still_in_pauses(mini: SpeechEncoder) -> None:
    sound = speech()
    code, level = mini.encode(sound), speech_level(sound.samples)
    assert isinstance(mini.features, LogMelFeatures) and code.shape == (75, 5)
    assert (level == 0).any() and not code[level == 0].any() and code[level == 1].any()
    with torch.no_grad():
        heard = torch.cat([mini.model.encode_audio(part) for part in speech_windows(sound.samples)])
    torch.testing.assert_close(code[level == 1], heard[level == 1])


@pytest.mark.parametrize("seconds", [0.04, 0.05, 1.0, 12.3])
def test_a_code_for_every_frame(
    base: SpeechEncoder, mini: SpeechEncoder, whispering: SpeechEncoder, seconds: float
) -> None:
    sound = speech(seconds)
    for speech_encoder in (base, mini, whispering):
        code = speech_encoder.encode(sound)
        assert len(code) == frame_count(sound.samples) and code.isfinite().all()


def paused(base: SpeechEncoder, sound: Speech) -> tuple[Tensor, Tensor]:
    """The code as learned, and its mean in the pauses."""
    code, level = base.encode(sound), speech_level(sound.samples)
    assert (level == 0).any() and (level > 0).any()
    return code, code[level == 0].mean(0)


def test_the_mouth_of_base_is_stretched_from_its_pauses(base: SpeechEncoder) -> None:
    sound = speech()
    code, rest = paused(base, sound)
    assert torch.equal(base.encode(sound, 1.0), code)
    torch.testing.assert_close(base.encode(sound, 0.0), rest.expand_as(code))
    torch.testing.assert_close(base.encode(sound, 2.0), rest + 2 * (code - rest))
    torch.testing.assert_close(base.encode(sound, 0.5), rest + 0.5 * (code - rest))
    assert (code - rest).abs().max() > 0.01


def test_the_mouth_of_mini_is_scaled_from_closed(mini: SpeechEncoder) -> None:
    sound = speech()
    code = mini.encode(sound)
    assert not mini.encode(sound, 0.0).any()
    torch.testing.assert_close(mini.encode(sound, 2.0), 2 * code)


def test_without_pauses_the_mouth_of_base_is_stretched_from_its_mean(base: SpeechEncoder) -> None:
    sound = speech(1.0, pause=(9.0, 9.0))
    code = base.encode(sound)
    assert (speech_level(sound.samples) == 1).all()
    torch.testing.assert_close(base.encode(sound, 0.0), code.mean(0).expand_as(code))
    torch.testing.assert_close(base.encode(sound, 2.0), 2 * code - code.mean(0))


@pytest.mark.parametrize("alignment", ["ahead", "centred"])
def test_silence_is_heard_whole(base: SpeechEncoder, alignment: str) -> None:
    """Not as the ends of a recording sound, beyond which there are no tokens."""
    model = toy_base(token_alignment=alignment)
    speech_encoder = SpeechEncoder(model, HubertWindows(base.features.hubert, alignment), "cpu")
    code = speech_encoder.encode(Speech(torch.zeros(12 * SAMPLE_RATE_HZ), Path("silence.wav")))
    silence = speech_encoder.silence()
    assert silence.shape == (1, 2, TOY_BASE.audio_code_width)
    ends = torch.stack([code[0], code[-1]])
    assert (ends - silence).abs().max() > 10 * (code[150] - silence[0]).abs().max()


def test_mini_hears_whisper_and_holds_still_in_pauses(whispering: SpeechEncoder) -> None:
    sound = speech()
    code, level = whispering.encode(sound), speech_level(sound.samples)
    assert not code[level == 0].any() and code[level == 1].any()
    heard = whispering.codes(sound.samples)
    torch.testing.assert_close(code[level == 1], heard[level == 1])
    assert heard[level == 0].any() and torch.equal(whispering.silence(), torch.zeros(1, 5))
    assert not whispering.encode(Speech(torch.zeros(SAMPLE_RATE_HZ), Path("silence.wav"))).any()


def test_silence_of_mini_is_the_closed_mouth(mini: SpeechEncoder) -> None:
    assert torch.equal(mini.silence(), torch.zeros(1, 5))


def test_only_base_needs_hubert(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert isinstance(features_for(toy_model().config, "cpu"), LogMelFeatures)
    assert isinstance(features_for(SDTalkConfig(), "cpu"), WhisperFeatures)
    with pytest.raises(InputError, match="HuBERT.*sdtalk assets add hubert"):
        features_for(TOY_BASE, "cpu")


def test_another_width_is_refused() -> None:
    assert isinstance(features_for(TOY_BASE, "cpu"), HubertWindows)
    with pytest.raises(InputError, match="'toy base': it hears tokens of 1024 numbers, and .* here have 32"):
        features_for(replace(TOY_BASE, audio_width=1024), "cpu")
