"""Speech audio: reading recordings, log-mel features, one window per video frame, speech level."""

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool1d, pad

from sdtalk.errors import InputError
from sdtalk.smoothstep import smoothstep
from sdtalk.speech.waveform import Waveform, as_waveform

SAMPLE_RATE_HZ = 16_000
FRAME_RATE_HZ = 25
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FRAME_RATE_HZ
LONGEST_HOURS = 4
MEL_BINS = 80
MEL_HOP = SAMPLE_RATE_HZ // 100  # 10 ms
MEL_WINDOW = SAMPLE_RATE_HZ // 40  # 25 ms
MEL_FFT = 512  # with 400 points (40 Hz apart) the lowest filters, 37 Hz apart, would fall between two of them
MEL_FLOOR = 1e-7
MELS_PER_FRAME = SAMPLES_PER_FRAME // MEL_HOP
WINDOW_MELS = 37  # what the mouth of a video frame hears: 180 ms to either side of its middle
SPEECH_DB = -23.0  # every recording is brought to this level: RMS of its active part, full scale = 0 dB
SILENCE_DB = -65.0  # what is quieter counts as silence, however quiet the rest is
ACTIVE_RANGE_DB = 30.0  # the active part lies at most this far below the loud moments
PAUSE_SECONDS = 0.3
CLOSING_SECONDS = 0.10
OPENING_SECONDS = 0.12  # lips part before the sound
_CHUNK_MELS = 6000  # a minute at a time: an hour of sound needs no more memory than its features

_MONO = f"aresample={SAMPLE_RATE_HZ}:ochl=mono:rematrix_maxval=1"  # channels are averaged, not summed
_REMEDY = "Give a wav, mp3, flac, m4a or ogg file, or a video with sound."


@dataclass(frozen=True)
class Speech:
    """A recording.

    Attributes:
        samples: Mono, 16 kHz, full scale = 1: what the models hear.
        original: The file it came from, or the array that was given: what a video's sound is made of.
    """

    samples: Float[Tensor, " samples"]
    original: Path | Waveform


SpeechSource: TypeAlias = str | Path | tuple[int, np.ndarray] | np.ndarray | Tensor
"""A recording as users have it, see `read_speech`."""


def read_speech(
    source: SpeechSource, sampling_rate: int | None = None, enough_s: float | None = None
) -> Speech:
    """Read speech at any rate and number of channels, from any file that ffmpeg reads or from an array.

    Two hours need about 0.5 GB. A recording of pure silence is valid.

    Args:
        source: A sound file, or a video with sound; or an array as `waveform.as_waveform` takes it.
        sampling_rate: Of a bare array, in Hz.
        enough_s: Read little more of a file than so many seconds; for those who only ask whether it is longer.

    Raises:
        InputError: No file, no sound in it, shorter than a video frame, longer than four hours, shorter than
            it declares (cut off), with samples that are not numbers, or of a type that is no sound.
    """
    if isinstance(source, str | Path):
        return _read_file(Path(source), enough_s)
    waveform = as_waveform(source, sampling_rate)
    samples = _resampled(waveform)
    _check_length(len(samples), "speech")
    return Speech(torch.from_numpy(samples), waveform)


def _check_length(samples: int, subject: str) -> None:
    """Refuse what is too short for a frame, or too long."""
    seconds = samples / SAMPLE_RATE_HZ
    if seconds > LONGEST_HOURS * 3600:
        raise InputError(subject, f"the sound is longer than {LONGEST_HOURS} hours", "Cut it into parts.")
    if samples < SAMPLES_PER_FRAME:
        problem = f"the sound lasts only {seconds * 1000:.2f} ms, less than a video frame"
        raise InputError(subject, problem, f"Give at least {1000 // FRAME_RATE_HZ} ms of sound.")


def _resampled(waveform: Waveform) -> np.ndarray:
    """Mono at 16 kHz, by the same filter of ffmpeg as the sound of files."""
    given = ["-f", "f32le", "-ar", str(waveform.rate_hz), "-ac", str(waveform.channels), "-i", "pipe:0"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *"-hide_banner -loglevel error".split(), *given]
    data = np.ascontiguousarray(waveform.samples, dtype="<f4").tobytes()
    done = subprocess.run(
        [*command, "-af", _MONO, "-f", "f32le", "pipe:1"], input=data, capture_output=True, check=True
    )
    return np.frombuffer(bytearray(done.stdout), dtype="<f4")


def _read_file(path: Path, enough_s: float | None = None) -> Speech:
    if not path.is_file():
        problem = "it is not a file" if path.exists() else "there is no such file"
        raise InputError(str(path), problem, "Check the path of the recording.")
    if path.stat().st_size == 0:
        raise InputError(str(path), "the file is empty", _REMEDY)
    longest_s = LONGEST_HOURS * 3600.0 if enough_s is None else enough_s
    samples, log = _decode(path, longest_s=longest_s)
    seconds = len(samples) / SAMPLE_RATE_HZ
    declared = _declared_seconds(path, log)
    if len(samples) == 0:
        raise InputError(str(path), _why_nothing(log), _REMEDY)
    _check_length(len(samples), str(path))
    if declared is not None and seconds < min(declared, longest_s) - 0.5:
        problem = f"the file is cut off: {seconds:.1f} s of sound where it declares {declared:.1f} s"
        raise InputError(str(path), problem, "Copy or export it again.")
    for start in range(0, len(samples), 1 << 22):
        if not np.isfinite(samples[start : start + (1 << 22)]).all():
            raise InputError(str(path), "some samples are not numbers (NaN or infinite)", "Export it again.")
    return Speech(torch.from_numpy(samples), path)


def read_soundtrack(path: str | Path) -> Float[Tensor, " samples"]:
    """The sound of a video as far as it can be read, in step with its pictures; nothing where it has none.

    Sample k belongs to second k / 16,000 of the file: silence stands where the sound starts later, or has gaps.
    """
    samples, _ = _decode(Path(path), "aresample=async=1:first_pts=0,")
    return torch.from_numpy(np.nan_to_num(samples, posinf=0, neginf=0))


def _decode(
    path: Path, filters: str = "", longest_s: float = LONGEST_HOURS * 3600.0
) -> tuple[np.ndarray, str]:
    """All samples of the first sound stream (a little over the longest allowed at most) and ffmpeg's log."""
    # "file:" and the white list: a name or a play list must never make ffmpeg open anything but local files
    options = "-hide_banner -nostdin -nostats -protocol_whitelist file,pipe -i".split()
    output = f"-map 0:a:0 -t {longest_s + 1} -af {filters}{_MONO} -f f32le pipe:1".split()
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *options, f"file:{path.absolute()}", *output]
    data = bytearray()  # grows in place; a list of pieces would need twice the memory to join
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(1 << 20):
                data += piece
        log.seek(0)
        text = log.read().decode("utf-8", errors="replace")
    return np.frombuffer(data, dtype="<f4"), text


def _why_nothing(log: str) -> str:
    if "matches no streams" in log:
        return "the file has no sound track"
    if "Audio:" not in log:
        return "it holds no sound that ffmpeg can read (damaged, cut off, or not a sound file)"
    return "the sound lasts 0 seconds"


def _declared_seconds(path: Path, log: str) -> float | None:
    """How long the file says its sound is, where that is a promise (not an estimate from the file's size)."""
    if "/wav" in log:
        return _declared_by_wav(path)
    damaged = any(sign in log for sign in ("partial file", "Error", "Invalid", "duration do not match"))
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", log)
    return sum(float(n) * 60**i for i, n in enumerate(found.groups()[::-1])) if found and damaged else None


def _declared_by_wav(path: Path) -> float | None:
    """From the header: bytes of data by bytes a second; None if written to a pipe, without a length."""
    byte_rate = 0
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                return size / byte_rate if byte_rate and 0 < size < 0x7FFFFFFF else None
            if head[:4] == b"fmt ":
                byte_rate = int.from_bytes(file.read(16)[8:12], "little")
                size -= 16
            file.seek(size + size % 2, 1)
    return None


def frame_count(samples: Float[Tensor, " samples"]) -> int:
    """Video frames that cover the sound: at most one frame longer than it, never shorter."""
    return max(1, math.ceil(len(samples) / SAMPLES_PER_FRAME))


def mel_filters(fft_points: int = MEL_FFT) -> Float[Tensor, "80 bin"]:
    """Triangles of height 1, evenly spaced on Slaney's mel scale from 0 to 8 kHz, over the FFT bins."""
    low, middle, high = mel_edges_hz()
    bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, fft_points // 2 + 1, dtype=torch.float64)
    rising, falling = (bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)
    return torch.minimum(rising, falling).clamp(min=0).float()


def mel_edges_hz() -> tuple[Tensor, Tensor, Tensor]:
    """Where the triangles of `mel_filters` begin, peak and end; [80, 1] each, in double precision."""
    step_hz, knee_hz = 200 / 3, 1000.0  # linear below the knee, 27 steps per factor 6.4 above (Slaney 1998)
    knee = knee_hz / step_hz
    per_e = 27 / math.log(6.4)
    top = knee + per_e * math.log(SAMPLE_RATE_HZ / 2 / knee_hz)
    mels = torch.linspace(0, top, MEL_BINS + 2, dtype=torch.float64)
    edges_hz = torch.where(mels < knee, mels * step_hz, knee_hz * torch.exp((mels - knee) / per_e))
    return edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]


def _mel_chunks(samples: Tensor) -> Iterator[Tensor]:
    """Pieces of sound, [mel frames, 400]; frame k is centred on sample 160 k, zeros beyond the ends."""
    total, half = len(samples) // MEL_HOP + 1, MEL_WINDOW // 2
    for first in range(0, total, _CHUNK_MELS):
        last = min(first + _CHUNK_MELS, total) - 1
        start, stop = first * MEL_HOP - half, last * MEL_HOP + half
        piece = samples[max(start, 0) : stop]
        piece = pad(piece, (max(-start, 0), stop - start - max(-start, 0) - len(piece)))
        yield piece.unfold(0, MEL_WINDOW, MEL_HOP)


def loudness_db(pieces: Float[Tensor, "frame window"]) -> Float[Tensor, " frame"]:
    """RMS of pieces of sound in dB of full scale, without their mean (a constant offset is no sound)."""
    return 10 * torch.log10(pieces.var(dim=1, correction=0) + 1e-12)


def _loudness_db(samples: Tensor) -> Tensor:
    """Of every mel frame."""
    return torch.cat([loudness_db(piece) for piece in _mel_chunks(samples)])


def _active_part(loudness_db: Tensor) -> tuple[Tensor, float]:
    """Which mel frames sound (near the loud moments, and not silence) and the level of their mean power in dB."""
    active = loudness_db > max(loudness_db.quantile(0.99).item() - ACTIVE_RANGE_DB, SILENCE_DB)
    power = (10 ** (loudness_db[active].double() / 10)).mean().item() if active.any() else 1.0
    return active, 10 * math.log10(power)


def level_gain(samples: Float[Tensor, " samples"]) -> float:
    """What brings the active part of a recording to `SPEECH_DB`; 1 for pure silence."""
    active, level_db = _active_part(_loudness_db(samples))
    return 10 ** ((SPEECH_DB - level_db) / 20) if active.any() else 1.0


def log_mel(samples: Float[Tensor, " samples"]) -> Float[Tensor, "mels 80"]:
    """Log-mel features of a whole recording, the same for any loudness, microphone or room tone.

    25 ms Hann windows every 10 ms, frame k centred on k / 100 s; levelled, then every bin is normalised with
    its statistics over the active part, (x - mean) / (0.5 std + 1.25), which is worth 0.03 to 0.06 in
    correlation on unseen speakers (measured). Pure silence gives zeros.
    """
    loudness = _loudness_db(samples)
    active, level_db = _active_part(loudness)
    if not active.any():
        return torch.zeros(len(loudness), MEL_BINS)
    gain = 10 ** ((SPEECH_DB - level_db) / 20)
    filters, window = mel_filters().T, torch.hann_window(MEL_WINDOW) * gain
    mels = torch.empty(len(loudness), MEL_BINS)
    done = 0
    for piece in _mel_chunks(samples):
        power = torch.fft.rfft(piece * window, n=MEL_FFT).abs().square()
        mels[done : done + len(piece)] = (power @ filters).clamp(min=MEL_FLOOR).log()
        done += len(piece)
    heard = mels[active]
    return mels.sub_(heard.mean(0)).div_(0.5 * heard.std(0, correction=0) + 1.25)


def padded_mels(mels: Float[Tensor, "mels 80"], frames: int) -> Float[Tensor, "padded 80"]:
    """The features that `frames` video frames hear, 4 frames + 33; zeros (the average) beyond the ends.

    Video frame t is centred on (t + 0.5) / 25 s, which is mel frame 4 t + 2; it hears 18 to either side.
    """
    before = WINDOW_MELS // 2 - MELS_PER_FRAME // 2
    total = MELS_PER_FRAME * (frames - 1) + WINDOW_MELS
    mels = mels[: total - before]
    return pad(mels, (0, 0, before, total - before - len(mels)))


def speech_windows(
    samples: Float[Tensor, " samples"], batch: int = 250
) -> Iterator[Float[Tensor, "frames 37 80"]]:
    """What each video frame hears, a batch of frames at a time (the last one shorter); views, not copies."""
    frames = frame_count(samples)
    windows = padded_mels(log_mel(samples), frames).unfold(0, WINDOW_MELS, MELS_PER_FRAME).transpose(1, 2)
    yield from windows.split(batch)


def speech_level(samples: Float[Tensor, " samples"]) -> Float[Tensor, " frames"]:
    """Per video frame 1 while somebody speaks, 0 in pauses of 0.3 s and more, smooth edges inside the pause."""
    loudness = _loudness_db(samples)
    active, level_db = _active_part(loudness)
    above_noise = min(loudness.quantile(0.1).item() + 8, level_db - 20)
    active &= loudness > max(level_db - ACTIVE_RANGE_DB, above_noise)
    lasting = -max_pool1d(-active[None].float(), 5, 1, 2)  # a click of less than 50 ms is no speech
    times = torch.arange(len(active)) * (MEL_HOP / SAMPLE_RATE_HZ)
    spoken = times[max_pool1d(lasting, 5, 1, 2)[0] > 0]
    spoken = torch.cat([torch.tensor([-math.inf]), spoken, torch.tensor([math.inf])])
    middles = (torch.arange(frame_count(samples)) + 0.5) / FRAME_RATE_HZ
    following = torch.searchsorted(spoken, middles)
    since, until = middles - spoken[following - 1], spoken[following] - middles
    ramp = torch.maximum(1 - since / CLOSING_SECONDS, 1 - until / OPENING_SECONDS)
    ramp[since + until < PAUSE_SECONDS] = 1
    return smoothstep(ramp)
