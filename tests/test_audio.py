"""Tests of audio reading and features: decoding, resampling, log-mel windows, speech level."""

import subprocess
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from sdtalk.errors import InputError
from sdtalk.speech import audio
from sdtalk.speech.audio import (
    MEL_BINS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    WINDOW_MELS,
    frame_count,
    log_mel,
    mel_filters,
    padded_mels,
    read_speech,
    speech_level,
    speech_windows,
)

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RATE = SAMPLE_RATE_HZ


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Samples [n] or [n, channels]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return path


def encode(source: Path, target: Path, *options: str) -> Path:
    subprocess.run([FFMPEG, "-v", "error", "-i", source, *options, target], check=True)
    return target


def chirp(seconds: float, rate: int) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return 0.3 * np.sin(2 * np.pi * (200 + 150 * time) * time)


def syllables(seconds: float, seed: int = 0) -> torch.Tensor:
    """Noise in bursts of 120 ms with 80 ms between: as loud and lively as speech."""
    noise = torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    return 0.1 * noise * ((torch.arange(len(noise)) / RATE) % 0.2 < 0.12)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channels(tmp_path: Path, rate: int, channels: int) -> None:
    one = chirp(1.0, rate)
    path = write_wav(tmp_path / "a.wav", np.stack([one] * channels, axis=1), rate)
    speech = read_speech(path)
    assert speech.original == path and speech.samples.dtype == torch.float32
    assert abs(len(speech.samples) - RATE) <= 2
    got, want = speech.samples[:15_990].numpy(), chirp(1.0, RATE)[:15_990]
    assert np.corrcoef(got, want)[0, 1] > 0.995
    assert got.std() == pytest.approx(want.std(), rel=0.02)  # equal channels average to themselves


@pytest.mark.parametrize("suffix", ["mp3", "flac", "m4a", "ogg", "aac", "aiff", "mkv"])
def test_any_format(tmp_path: Path, suffix: str) -> None:
    path = encode(write_wav(tmp_path / "a.wav", chirp(1.0, 44100), 44100), tmp_path / f"a.{suffix}")
    samples = read_speech(path).samples
    assert abs(len(samples) / RATE - 1) < 0.08  # some formats pad
    assert samples.std().item() == pytest.approx(0.3 / 2**0.5, rel=0.07)


def test_sound_of_a_video_and_a_name_like_an_option(tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "a.wav", chirp(1.0, RATE))
    path = tmp_path / "-i 100%.mp4"
    black = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:d=1", "-i", sound]
    subprocess.run([*black, path.absolute()], check=True)
    assert abs(len(read_speech(path).samples) / RATE - 1) < 0.08


def test_silence_is_a_recording(tmp_path: Path) -> None:
    samples = read_speech(write_wav(tmp_path / "a.wav", np.zeros(RATE))).samples
    assert len(samples) == RATE
    assert not log_mel(samples).any() and not speech_level(samples).any()


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    good = write_wav(folder / "good.wav", chirp(4.0, RATE))
    files = {
        "missing": (folder / "missing.wav", "no such file"),
        "a folder": (folder, "not a file"),
        "empty": (folder / "empty.wav", "the file is empty"),
        "text": (folder / "text.mp3", "no sound that ffmpeg can read"),
        "no samples": (write_wav(folder / "zero.wav", np.zeros(0)), "0 seconds"),
        "one sample": (write_wav(folder / "one.wav", np.zeros(1)), "less than a video frame"),
        "one sample at 8 kHz": (write_wav(folder / "one8.wav", np.zeros(1), 8000), "the sound lasts 0 s"),
        "cut wav": (folder / "cut.wav", "declares 4.0 s"),
        "cut mp3": (folder / "cut.mp3", "declares 4.0 s"),
        "cut flac": (folder / "cut.flac", "declares 4.0 s"),
        "cut m4a": (folder / "cut.m4a", "no sound that ffmpeg can read"),
        "no sound track": (folder / "mute.mp4", "no sound track"),
        "not a number": (folder / "nan.wav", "not numbers"),
        "infinite": (folder / "inf.wav", "not numbers"),
    }
    files["empty"][0].touch()
    files["text"][0].write_text("It is a truth universally acknowledged. " * 100)
    for suffix in ("wav", "mp3", "flac", "m4a"):
        whole = encode(good, folder / f"whole.{suffix}").read_bytes()
        files[f"cut {suffix}"][0].write_bytes(whole[: len(whole) // 2])
    black = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:d=0.2"]
    subprocess.run([*black, files["no sound track"][0]], check=True)
    for name, value in (("not a number", np.nan), ("infinite", np.inf)):
        data = chirp(1.0, 44100).astype("<f4")
        data[999] = value
        raw = [FFMPEG, "-v", "error", "-f", "f32le", "-ar", "44100", "-i", "pipe:0", "-c:a", "pcm_f32le"]
        subprocess.run([*raw, files[name][0]], input=data.tobytes(), check=True)
    return files


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for name, (path, problem) in bad_files(tmp_path).items():
        with pytest.raises(InputError) as caught:
            read_speech(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and problem in message and "\n" not in message, (name, message)


def test_too_long_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "LONGEST_HOURS", 0)
    with pytest.raises(InputError, match="longer than 0 hours"):
        read_speech(write_wav(tmp_path / "a.wav", chirp(3.0, RATE)))


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 113_600, 160_001])
def test_frames_cover_the_sound_and_less_than_one_more(samples: int) -> None:
    beyond = frame_count(torch.zeros(samples)) * SAMPLES_PER_FRAME - samples
    assert 0 <= beyond < SAMPLES_PER_FRAME


def test_mel_filters_are_slaneys() -> None:
    want = mel_filter_bank(257, MEL_BINS, 0, 8000, RATE, norm=None, mel_scale="slaney")
    np.testing.assert_allclose(mel_filters().numpy(), want.T, atol=1e-5)
    assert (mel_filters().sum(1) > 0).all()


def slow_log_mel(samples: np.ndarray) -> np.ndarray:
    """The definition, frame by frame in double precision."""
    filters = mel_filter_bank(257, MEL_BINS, 0, 8000, RATE, norm=None, mel_scale="slaney")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(samples.astype(np.float64), 400)
    pieces = [padded[400 + 160 * k - 200 : 400 + 160 * k + 200] for k in range(len(samples) // 160 + 1)]
    rms_db = np.array([20 * np.log10(piece.std() + 1e-20) for piece in pieces])
    active = (rms_db > np.quantile(rms_db, 0.99) - 30) & (rms_db > -65)
    level = 10 * np.log10(np.mean(10 ** (rms_db[active] / 10)))
    pieces = [piece * 10 ** ((-23 - level) / 20) for piece in pieces]
    power = np.abs(np.fft.rfft([piece * window for piece in pieces], n=512)) ** 2
    mels = np.log(np.maximum(power @ filters, 1e-7))
    return (mels - mels[active].mean(0)) / (0.5 * mels[active].std(0) + 1.25)


def test_log_mel_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = torch.cat([syllables(1.5), torch.zeros(4321), 0.02 * torch.randn(5000)])
    whole = log_mel(samples)
    np.testing.assert_allclose(whole.numpy(), slow_log_mel(samples.numpy()), atol=2e-3)
    monkeypatch.setattr(audio, "_CHUNK_MELS", 7)
    torch.testing.assert_close(log_mel(samples), whole)


def test_log_mel_ignores_loudness_and_offset() -> None:
    samples = syllables(2.0)
    torch.testing.assert_close(log_mel(samples * 0.03), log_mel(samples), atol=1e-3, rtol=0)
    torch.testing.assert_close(speech_level(samples * 0.03 + 0.2)[1:-3], speech_level(samples)[1:-3])


@pytest.mark.parametrize("samples", [1, 160, 640, 3000])
def test_very_short_sounds(samples: int) -> None:
    sound = 0.1 * torch.randn(samples)
    (windows,) = speech_windows(sound)
    assert windows.shape == (frame_count(sound), WINDOW_MELS, MEL_BINS) and windows.isfinite().all()
    assert speech_level(sound).shape == (frame_count(sound),)


def test_windows_come_in_batches_and_count() -> None:
    sound = syllables(3.0)
    batches = list(speech_windows(sound, batch=32))
    assert [len(b) for b in batches] == [32, 32, 11]
    (whole,) = speech_windows(sound)
    assert torch.equal(torch.cat(batches), whole)


@pytest.mark.parametrize("frame", [10, 37, 60])
def test_an_impulse_shows_in_the_middle_of_its_frame(frame: int) -> None:
    sound = 1e-4 * torch.randn(3 * RATE)
    sound[round((frame + 0.5) / 25 * RATE)] = 1.0
    (windows,) = speech_windows(sound)
    loud = windows.mean(2)
    assert loud.max(1).values.argmax() in range(frame - 5, frame + 6)
    middle = WINDOW_MELS // 2
    assert loud[frame].argmax() in (middle - 1, middle, middle + 1)
    assert loud[frame, middle] == pytest.approx(loud.max().item(), abs=0.3)
    heard = (loud > loud.max() - 1).any(1).nonzero()[:, 0].tolist()
    assert heard == list(range(frame - 4, frame + 5))  # 18 mel frames are four and a half video frames


def test_padding_is_the_average() -> None:
    padded = padded_mels(torch.ones(40, MEL_BINS), 10)
    assert padded.shape == (4 * 10 + 33, MEL_BINS)
    assert not padded[:16].any() and padded[16:56].all() and not padded[56:].any()


@pytest.mark.parametrize("background", [0.0, 1e-4, 3e-3])
def test_level_is_zero_in_pauses_and_one_in_speech(background: float) -> None:
    sound = torch.cat(
        [syllables(1.0), torch.zeros(RATE), syllables(1.0), torch.zeros(RATE // 5), syllables(1.0)]
    )
    sound = sound + background * torch.randn(len(sound))
    sound[round(1.5 * RATE)] += 0.5  # a click
    level = speech_level(sound)
    assert (level[1:23] == 1).all() and (level[50:103] == 1).all()  # the pause of 0.2 s is none
    assert (level[28:46] == 0).all()
    assert (level[23:29].diff() <= 0).all() and (level[45:51].diff() >= 0).all()
    assert level.diff().abs().max() < 0.65


def test_level_of_room_noise_alone_does_not_matter_but_is_finite() -> None:
    assert speech_level(1e-5 * torch.randn(RATE)).eq(0).all()  # below every microphone: silence
    assert speech_level(1e-2 * torch.randn(RATE)).isfinite().all()
