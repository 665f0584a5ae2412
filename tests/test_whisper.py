"""Tests of the Whisper features: parity with Whisper, stored bytes, chunks, and the windows that video frames hear."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy import EXAMPLE
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as TheirEncoder

from sdtalk.checkpoint import load_model
from sdtalk.errors import InputError
from sdtalk.motion.audio_encoder import WhisperHead
from sdtalk.speech.audio import SAMPLE_RATE_HZ, SPEECH_DB, frame_count, level_gain, read_speech
from sdtalk.speech.encoder import SpeechEncoder
from sdtalk.speech.running_level import START_DB, RunningLevel
from sdtalk.speech.whisper import LIVE, WHOLE_FILE, WINDOW, Chunks, WhisperFeatures, WhisperStream
from sdtalk.speech.whisper.features import BEFORE
from sdtalk.speech.whisper.log_mel import area_filters, whisper_log_mel
from sdtalk.speech.whisper.network import WhisperEncoder, sinusoids
from sdtalk.speech.whisper.weights import SCALE, dequantised, quantised, read_whisper
from sdtalk.weights.assets import bundled
from training.mini.convert_whisper import main as convert

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "whisper_base_l3.npz")
SHARED_TOP = 8.0  # far above any sound: nothing is cut off


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    return read_speech(EXAMPLE.with_name("sense_and_sensibility.wav")).samples


def joined(features: WhisperFeatures, samples: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(features.features(samples)))


def test_input_is_whispers(speech: torch.Tensor) -> None:
    samples = speech[: 3 * SAMPLE_RATE_HZ]
    top = 4 * whisper_log_mel(samples, SHARED_TOP).max().item() - 4  # Whisper's own: the sound's maximum
    mels = whisper_log_mel(samples, top)
    assert mels.shape == (80, 300)
    np.testing.assert_allclose(mels[:, 100:200].numpy(), FIXTURE["mels"].astype(np.float32), atol=1e-3)
    filters = area_filters()
    assert filters.shape == (80, 201)
    assert (filters.sum(1) * 40 - 1).abs().max() < 0.3  # area 1, sampled every 40 Hz


@torch.no_grad()
def test_features_are_whispers_to_within_the_rounding_of_bytes(speech: torch.Tensor) -> None:
    samples = speech[: 3 * SAMPLE_RATE_HZ]
    top = 4 * whisper_log_mel(samples, SHARED_TOP).max().item() - 4
    found = read_whisper()(whisper_log_mel(samples, top)[None])[0, 50:100].numpy()
    wanted = FIXTURE["features"].astype(np.float32)
    assert found.shape == wanted.shape == (50, 512)
    assert (found - wanted).std() < 0.03 * wanted.std()


@torch.no_grad()
def test_arithmetic_is_that_of_transformers() -> None:
    ours, steps = read_whisper(), 120
    config = WhisperConfig(
        d_model=512, encoder_layers=3, encoder_attention_heads=8, encoder_ffn_dim=2048, num_mel_bins=80,
        max_source_positions=steps // 2,
    )  # fmt: skip
    theirs = TheirEncoder(config).eval()
    theirs.load_state_dict(
        ours.state_dict() | {"embed_positions.weight": sinusoids(steps // 2, 512)}, strict=False
    )
    theirs.layer_norm = torch.nn.Identity()
    mels = torch.randn(1, 80, steps, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(mels), theirs(mels).last_hidden_state, atol=1e-4, rtol=1e-5)


def test_bytes_keep_every_channel_to_half_a_step() -> None:
    torch.manual_seed(0)
    state = {"a.weight": torch.randn(6, 5, 3) * torch.logspace(-4, 2, 6)[:, None, None], "b": torch.randn(7)}
    state["a.weight"][2] = 0
    stored = quantised(state)
    assert stored["a.weight"].dtype == torch.int8 and stored["b"].dtype == torch.float16
    error = (dequantised(stored)["a.weight"] - state["a.weight"]).abs()
    assert (error <= stored["a.weight" + SCALE][:, None, None] * 0.501).all()


def test_the_packages_file_says_where_it_is_from() -> None:
    path = bundled("whisper_base_l3.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert "MIT" in about["licence"] and len(about["source_sha256"]) == 64
    assert path.stat().st_size < 10.6e6
    assert "OpenAI" in bundled("LICENSE.whisper").read_text()


def test_conversion_makes_a_file_that_is_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source, target = tmp_path / "given.safetensors", tmp_path / "made.safetensors"
    state = {name: tensor.half().contiguous() for name, tensor in read_whisper().state_dict().items()}
    save_file(state | {"layer_norm.weight": torch.ones(512)}, source)  # what is not needed is left out
    assert convert([str(source), "-o", str(target)]) == 0
    again = read_whisper(target).state_dict()
    assert all((again[k] - v.float()).abs().max() < 0.02 * v.abs().max() + 1e-3 for k, v in state.items())
    del state["conv2.bias"]
    save_file(state, source)
    assert convert([str(source), "-o", str(tmp_path / "other")]) == 2
    assert "lacks conv2.bias" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_unfit_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(bundled("whisper_base_l3.safetensors").read_bytes()[:5000])
    save_file(WhisperEncoder(384, 6, 2).state_dict(), tmp_path / "tiny")
    state = load_file(bundled("whisper_base_l3.safetensors"))
    del state["conv1.weight"]
    save_file(state, tmp_path / "incomplete")
    for name in ("absent", "damaged", "tiny", "incomplete"):
        with pytest.raises(InputError) as caught:
            read_whisper(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("chunks", [WHOLE_FILE, LIVE, Chunks(0, 3, 1)])
@pytest.mark.parametrize("total", [1, 8, 501, 1234])
def test_chunks_keep_every_feature_once(chunks: Chunks, total: int) -> None:
    kept = [i for span, part in chunks.of(total) for i in list(span)[part]]
    assert kept == list(range(total))
    for span, part in chunks.of(total):
        assert part.start <= chunks.past and len(span) - part.stop <= chunks.ahead


@pytest.mark.parametrize("seconds", [0.04, 0.05, 1.0, 12.3])
def test_every_video_frame_hears_a_window_around_its_middle(seconds: float) -> None:
    samples = 0.1 * torch.randn(round(seconds * SAMPLE_RATE_HZ), generator=torch.Generator().manual_seed(0))
    features, frames = WhisperFeatures.bundled(), frame_count(samples)
    windows = torch.cat(list(features.windows(samples)))
    assert windows.shape == (frames, WINDOW, 512) and windows.isfinite().all()
    rows = features.padded(samples, frames)
    assert rows.shape == (2 * frames + 15, 512)
    torch.testing.assert_close(windows, rows.unfold(0, WINDOW, 2).transpose(1, 2))


class Loudness(WhisperEncoder):
    """In place of the network: how loud it is at each feature's own place."""

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        return mels[..., ::2].mean(1)[..., None]


@pytest.mark.parametrize("chunks", [WHOLE_FILE, LIVE])
def test_a_click_is_in_the_middle_of_its_frames_window(chunks: Chunks) -> None:
    frame, samples = 30, torch.zeros(60 * 640)
    samples[frame * 640 + 320] = 0.5  # frame t is centred on (t + 0.5) / 25 s
    sound = torch.cat(list(WhisperFeatures(Loudness(), chunks).windows(samples)))[..., 0]
    assert sound[frame].argmax() == WINDOW // 2
    assert sound[frame - 4].argmax() == WINDOW - 1 and sound[frame + 4].argmax() == 0
    assert sound[: frame - 4].std() < 1e-6


def test_windows_are_views() -> None:
    blocks = list(WhisperFeatures.bundled().windows(torch.zeros(2 * SAMPLE_RATE_HZ)))
    assert all(block.untyped_storage().nbytes() < block.numel() for block in blocks)  # 4 bytes a number


def test_the_level_of_a_recording_does_not_matter(speech: torch.Tensor) -> None:
    features = WhisperFeatures.bundled()
    loud, quiet = (joined(features, gain * speech[:SAMPLE_RATE_HZ]) for gain in (1.0, 0.05))
    torch.testing.assert_close(loud, quiet, atol=1e-2, rtol=0)
    assert level_gain(torch.zeros(1000)) == 1


def test_long_recordings_show_no_trace_of_their_chunks(speech: torch.Tensor) -> None:
    """What is thrown away at the edges hides them: a cut differs from one piece no more than far from any cut."""
    network = read_whisper()
    one_piece = joined(WhisperFeatures(network, Chunks(0, 10_000, 0)), speech)
    cut = joined(WhisperFeatures(network, Chunks(50, 150, 50)), speech)
    difference = (cut - one_piece).square().mean(1).sqrt() / one_piece.std()
    step = torch.cat([(cut - one_piece).diff(dim=0).square().mean(1).sqrt() / one_piece.std()])
    at_cuts = torch.tensor([149, 299])
    assert difference.max() < 1.5
    assert step[at_cuts].max() < 3 * step.quantile(0.95)


@torch.no_grad()
def test_live_codes_follow_those_of_whole_files(speech: torch.Tensor) -> None:
    model = load_model("mini")
    whole = SpeechEncoder.for_model(model, "cpu").codes(speech)
    live = SpeechEncoder(model, WhisperFeatures.bundled(chunks=LIVE), "cpu").codes(speech)
    assert whole.shape == live.shape
    assert torch.corrcoef(torch.stack([whole[:, 0], live[:, 0]]))[0, 1] > 0.9


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.04, 1.0, 3.33])
def test_head_says_the_same_by_window_and_by_clip(seconds: float) -> None:
    torch.manual_seed(0)
    head = WhisperHead().eval()
    for name, buffer in head.named_buffers():
        if name.endswith(("running_var", "deviation")):
            buffer.uniform_(0.5, 1.5)
    samples = 0.1 * torch.randn(round(seconds * SAMPLE_RATE_HZ), generator=torch.Generator().manual_seed(1))
    features, frames = WhisperFeatures.bundled(), frame_count(samples)
    by_window = torch.cat([head(windows) for windows in features.windows(samples)])
    assert by_window.shape == (frames, 5)
    torch.testing.assert_close(
        head.forward_clip(features.padded(samples, frames)), by_window, atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_head_is_the_mean_of_its_members() -> None:
    torch.manual_seed(0)
    head = WhisperHead(width=24, channels=10).eval()
    heard = head.hear(torch.randn(2, 10, 33))
    numbers, log_odds = head.by_member(heard)
    assert numbers.shape == (2, 3, 5, 9) and log_odds.shape == (2, 3, 9)
    assert (numbers[:, 0] - numbers[:, 1]).abs().max() > 0.01
    torch.testing.assert_close(head.raw(heard)[0], numbers.mean(1))
    one = torch.zeros(2, 24, 9)
    one[:, :8] = heard[:, :8]  # what the first member hears
    torch.testing.assert_close(head.by_member(one)[0][:, 0], numbers[:, 0])


def test_rare_features_are_limited() -> None:
    head = WhisperHead(width=24, channels=10).eval()
    far, limit = 1000 * torch.ones(1, 17, 10), 5 * torch.ones(1, 17, 10)
    torch.testing.assert_close(head(far), head(limit))


@torch.no_grad()
def test_a_stream_gives_the_features_of_live_chunks(speech: torch.Tensor) -> None:
    """In pieces of 40 ms, and at most 400 ms behind the sound; the level is that of the whole recording."""
    samples = speech[: 5 * SAMPLE_RATE_HZ + 100]
    live = WhisperFeatures.bundled(chunks=LIVE)
    stream, found, behind = WhisperStream(live.network, level_gain(samples)), [], []
    for start in range(0, len(samples), 640):
        found.append(stream.hear(samples[start : start + 640]))
        rows = sum(map(len, found)) - BEFORE
        behind.append(min(start + 640, len(samples)) / 320 - rows)
    found.append(stream.finish())
    wanted = live.padded(samples, frame_count(samples))
    torch.testing.assert_close(torch.cat(found), wanted, atol=2e-5, rtol=0)
    assert max(behind) <= 20  # features, 50 a second


@torch.no_grad()
def test_a_streams_memory_does_not_grow(speech: torch.Tensor) -> None:
    stream = WhisperStream(WhisperFeatures.bundled().network)
    held = []
    for second in range(6):
        stream.hear(speech[second * SAMPLE_RATE_HZ : (second + 1) * SAMPLE_RATE_HZ])
        held.append(len(stream._held))
    assert max(held[3:]) <= (LIVE.past + LIVE.block + LIVE.ahead + 50) * 320


def test_the_running_level_tends_to_that_of_the_recording(speech: torch.Tensor) -> None:
    level = RunningLevel()
    assert abs(20 * np.log10(level.gain) - (SPEECH_DB - START_DB)) < 0.6
    for factor in (1.0, 0.1):
        level, samples = RunningLevel(), factor * speech
        found = []
        for start in range(0, len(samples), 640):
            level.hear(samples[start : start + 640])
            found.append(20 * np.log10(level.gain / level_gain(samples)))
        assert abs(found[-1]) < 1.5  # dB
        assert np.abs(np.diff(found[25:])).max() < 1  # and it does not jump
