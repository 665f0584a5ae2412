"""Tests of mini's audio encoder: windows and whole clips agree, codes stay in their range."""

import pytest
import torch
from torch import nn

from sdtalk.motion.audio_encoder import AudioEncoder
from sdtalk.speech.audio import (
    SAMPLE_RATE_HZ,
    frame_count,
    log_mel,
    padded_mels,
    speech_level,
    speech_windows,
)
from sdtalk.speech.encoder import hold_in_silence


def seeded(seed: int = 0, **sizes: int) -> AudioEncoder:
    torch.manual_seed(seed)
    encoder = AudioEncoder(**sizes)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return encoder.eval()


def sound(seconds: float) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * SAMPLE_RATE_HZ), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seconds", [0.04, 0.1, 1.0, 3.33])
@torch.no_grad()
def test_windows_and_whole_clip_agree(seconds: float) -> None:
    encoder, samples = seeded(), sound(seconds)
    by_window = torch.cat([encoder(windows) for windows in speech_windows(samples, batch=16)])
    whole = encoder.forward_clip(padded_mels(log_mel(samples), frame_count(samples)))
    assert by_window.shape == (frame_count(samples), 5)
    torch.testing.assert_close(whole, by_window, atol=1e-5, rtol=1e-5)


def test_a_frame_hears_its_window_and_nothing_else() -> None:
    encoder = seeded()
    windows = torch.randn(3, 37, 80, requires_grad=True)
    encoder(windows)[1].sum().backward()
    heard = windows.grad.abs().sum(2)
    assert (heard[1] > 0).all() and not heard[0].any() and not heard[2].any()


def test_size_and_names() -> None:
    assert sum(p.numel() for p in AudioEncoder().parameters()) < 290_000
    small = AudioEncoder(mel_bins=20, width=8, code_width=3)
    assert small(torch.randn(2, 37, 20)).shape == (2, 3) and small.code_width == 3
    assert {"code_mean", "code_gain"} <= set(small.state_dict())


def test_state_round_trip() -> None:
    first, second = seeded(0), seeded(1)
    first.code_mean.fill_(0.4)
    windows = torch.randn(4, 37, 80)
    assert not torch.equal(first(windows), second(windows))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(windows), second(windows))


@torch.no_grad()
def test_mean_and_gain_are_applied_and_the_opening_is_never_negative() -> None:
    encoder, windows = seeded(), torch.randn(50, 37, 80)
    nn.init.constant_(encoder.closure.bias, -20.0)
    plain = encoder.head(encoder.hear(windows.transpose(1, 2)))[..., 0]
    encoder.code_mean.copy_(torch.tensor([0.1, 1, 2, 3, 4]))
    encoder.code_gain.copy_(torch.tensor([2.0, 1, 1, 0.5, 0]))
    code = encoder(windows)
    torch.testing.assert_close(code[:, 1:], plain[:, 1:] * encoder.code_gain[1:] + encoder.code_mean[1:])
    torch.testing.assert_close(code[:, 0], (0.1 + 2 * plain[:, 0]).clamp(min=0))
    assert (code[:, 0] == 0).any()


@torch.no_grad()
def test_closure_pulls_the_opening_to_zero_and_nothing_else() -> None:
    encoder, windows = seeded(), torch.randn(50, 37, 80)
    encoder.code_mean[0] = 1.0
    openings, shapes = [], []
    for odds in (-20.0, 0.0, 2.0, 20.0):
        nn.init.zeros_(encoder.closure.weight)
        nn.init.constant_(encoder.closure.bias, odds)
        code = encoder(windows)
        openings.append(code[:, 0])
        shapes.append(code[:, 1:])
    torch.testing.assert_close(openings[0], openings[1])  # below even odds nothing happens
    assert (openings[2] <= openings[1]).all() and openings[3].max() < 1e-3
    assert all(torch.equal(shapes[0], shape) for shape in shapes)


def test_the_mouth_is_closed_and_still_in_silence() -> None:
    speech = sound(1.0) * ((torch.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ) % 0.2 < 0.12)
    samples = torch.cat([speech, torch.zeros(SAMPLE_RATE_HZ // 2), speech])
    level = speech_level(samples)
    code = torch.rand(frame_count(samples), 5) + 0.5
    held = hold_in_silence(code, level)
    assert (held[28:34] == 0).all()
    assert torch.equal(held[:23], code[:23])
    assert level.diff().abs().max() < 0.65  # two frames at least to close
    assert not hold_in_silence(code, speech_level(torch.zeros(len(samples)))).any()
