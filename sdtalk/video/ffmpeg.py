"""Video files through ffmpeg: .mp4, .webm and .mov, with sound.

Frames go through a pipe of our own to the ffmpeg that imageio-ffmpeg brings, not through imageio's writer: that one
looks neither at what ffmpeg says nor at its exit code, so a full disk leaves a broken file and no error; and it cannot
keep ffmpeg from opening what a sound file may refer to (play lists, addresses).
"""

import contextlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from sdtalk.errors import InputError
from sdtalk.speech.waveform import Waveform
from sdtalk.video.nvenc import NVENC, nvenc_works
from sdtalk.video.pieces import EARLY, with_pieces
from sdtalk.video.writer import VideoWriter

QUIET = tuple("-hide_banner -loglevel error -y".split())
PIPE_BYTES = 2**20
"""Room in the pipe to ffmpeg, where the system lets it be chosen: most of a frame, instead of 64 KiB at a time."""


@dataclass(frozen=True)
class Encoding:
    """How ffmpeg writes a kind of file.

    Attributes:
        video: Options of the video's encoder.
        filters: What makes its pixels of RGB.
        alpha: Both for frames with alpha; None: the format has none.
        sound: Options of the sound's encoder, "": the format has none.
        rates: Sample rates that this encoder takes, as ffmpeg's filters write it; "": any.
        container: Options of the container, its name last.
        even: Whether sides must be even.
        on_gpu: Options of an encoder on the GPU, to be used where it works; "": there is none.
    """

    video: str
    filters: str
    alpha: tuple[str, str] | None
    sound: str
    container: str
    rates: str = ""
    even: bool = False
    on_gpu: str = ""


_YUV = "scale=out_color_matrix=bt709:out_range=tv,format="
_TAGS = ",setparams=color_primaries=bt709:color_trc=bt709"
_H264 = "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -c:v libx264 -preset veryfast -crf 17"
# "realtime" takes a fifth of the time of "good" and loses 0.7 dB at half as many bytes again (measured)
_VP9 = "-c:v libvpx-vp9 -crf 20 -b:v 0 -deadline realtime -cpu-used 6 -row-mt 1"
# a fixed scale: searching for the best one took four times as long
_PRORES = "-c:v prores_ks -profile:v 4444 -vendor apl0 -qscale:v 2"

ENCODINGS = {
    ".mp4": Encoding(
        video=_H264, filters=f"{_YUV}yuv420p", alpha=None, sound="-c:a aac -b:a 160k",
        container="-movflags +faststart -f mp4", even=True, on_gpu=NVENC,
    ),
    ".webm": Encoding(
        # the encoder's hidden reference frames ("alt-ref") do not go together with alpha
        video=_VP9, filters=f"{_YUV}yuv420p{_TAGS}", alpha=(f"{_VP9} -auto-alt-ref 0", f"{_YUV}yuva420p{_TAGS}"),
        sound="-c:a libopus -b:a 128k", rates=":sample_rates=48000", container="-f webm",
    ),
    ".mov": Encoding(
        video=_PRORES, filters=f"{_YUV}yuv444p10le{_TAGS}",
        alpha=(f"{_PRORES} -alpha_bits 16", f"{_YUV}yuva444p10le{_TAGS}"),
        sound="-c:a pcm_s16le", container="-movflags +faststart -f mov",
    ),
}  # fmt: skip


class FfmpegWriter(VideoWriter):
    """Streams frames to ffmpeg.

    The sound is the given file's own track, not the 16 kHz the models hear; its samples follow one another
    from the first frame's start, as `audio.read_speech` counts them, whatever the file's time stamps say.
    """

    _process: subprocess.Popen | None = None
    _log: IO[bytes] | None = None
    on_gpu = False  # whether to encode there, where that works
    pieces: Path | None = None  # folder for pieces of an .mp4, to be watched while it is made
    encodings: ClassVar[dict[str, Encoding]] = ENCODINGS

    @property
    def encoding(self) -> Encoding:
        """How this file is written."""
        return self.encodings[self.path.suffix.lower()]

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()
        # a session of its own: Ctrl-C reaches us, and we decide what becomes of ffmpeg
        self._process = subprocess.Popen(
            self._command(), stdin=subprocess.PIPE, stderr=self._log, cwd=self.pieces, start_new_session=True
        )
        _widen(self._process.stdin)

    def _command(self) -> list[str]:
        width, height = (side + side % 2 if self.encoding.even else side for side in self.size)
        video, filters = self.encoding.video, self.encoding.filters
        if self.alpha:
            assert self.encoding.alpha is not None, "check_output refuses this"
            video, filters = self.encoding.alpha
        elif self.on_gpu and self.encoding.on_gpu and nvenc_works(width, height):
            video = self.encoding.on_gpu
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *QUIET, "-f", "rawvideo", "-pix_fmt"]
        command += f"{'rgba' if self.alpha else 'rgb24'} -s {width}x{height} -framerate {self.fps}".split()
        command += ["-i", "pipe:0"]
        if self.sound is not None and self.encoding.sound:
            command += [*sound_input(self.sound, self._beside(".f32")), "-map", "0:v:0", "-map", "1:a:0"]
            command += [*self.encoding.sound.split(), "-af"]
            command.append(sound_filter(self.frames, self.fps) + self.encoding.rates)
        command += ["-vf", filters, *video.split(), *provenance(self.comment)]
        if self.pieces is not None:
            early = EARLY if video == self.encoding.video else ()  # a GPU's encoder has other options
            return [*command, *early, *with_pieces(str(self._temporary))]
        return [*command, *self.encoding.container.split(), f"file:{self._temporary}"]

    def _append(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        assert self._process is not None and self._process.stdin is not None
        height, width, _ = frame.shape
        if self.encoding.even and (width % 2 or height % 2):
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._process.stdin.write(frame.data)

    def _append_all(self, frames: UInt8[np.ndarray, "frame height width channel"]) -> None:
        if self.encoding.even and any(side % 2 for side in self.size):
            super()._append_all(frames)
            return
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(frames.data)  # at once, without a copy
        self.written += len(frames)

    def _finish(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        if self._process.wait() != 0:
            raise self._ffmpegs_failure()

    def _failure(self, error: OSError) -> InputError:
        assert self._process is not None
        return super()._failure(error) if self._process.poll() == 0 else self._ffmpegs_failure()

    def _ffmpegs_failure(self) -> InputError:
        """What ffmpeg said last, once it has ended."""
        assert self._process is not None and self._log is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._log.seek(0)
        return ffmpeg_failure(self.path, self._log.read(), code)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if self._log is not None:
            self._log.close()


def provenance(comment: str) -> list[str]:
    """Options with which ffmpeg writes a comment, and nothing of what the sound's file says of itself."""
    return ["-map_metadata", "-1", "-map_chapters", "-1", "-metadata", f"comment={comment}"]


def _widen(pipe: IO[bytes] | None) -> None:
    """Make room in a pipe, where the system has a way to."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    size = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux
    if pipe is not None and size is not None:
        with contextlib.suppress(OSError):  # users may have used up what they may have of it
            fcntl.fcntl(pipe.fileno(), size, PIPE_BYTES)


def sound_input(sound: str | Path | Waveform, raw: Path) -> list[str]:
    """Options with which ffmpeg reads sound; no file of it makes ffmpeg open anything but local files.

    Args:
        sound: A file that has sound, or samples.
        raw: Where samples are put for ffmpeg to read.
    """
    options = ["-protocol_whitelist", "file,pipe"]
    if not isinstance(sound, Waveform):
        return [*options, "-i", f"file:{Path(sound).absolute()}"]
    sound.samples.astype("<f4", copy=False).tofile(raw)
    return [*options, *f"-f f32le -ar {sound.rate_hz} -ac {sound.channels} -i".split(), f"file:{raw}"]


def sound_filter(frames: int | None, fps: int | float) -> str:
    """Filter that sets sound to the first frame's start, cuts it or fills it up to a number of frames (None: whole)."""
    end = "" if frames is None else f"apad,atrim=end={frames / fps},"
    return f"asetpts=N/SR/TB,{end}aformat=channel_layouts=mono|stereo"


def run_ffmpeg(options: list[str], path: Path) -> None:
    """Run ffmpeg to its end.

    Args:
        options: What to do.
        path: What an error is said of.

    Raises:
        InputError: It failed.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *QUIET, *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    if done.returncode != 0:
        raise ffmpeg_failure(path, done.stderr, done.returncode)


def ffmpeg_failure(path: Path, log: bytes, code: int | None) -> InputError:
    """The error for what ffmpeg said; its last line, unless an earlier one tells more."""
    lines = log.decode("utf-8", errors="replace").strip().splitlines()
    lines = lines or [f"no message, exit code {code}"]
    words = next((line for line in lines if "No space left" in line), lines[-1])
    remedy = "Free some disk space and check that the sound plays, or choose another output."
    return InputError(str(path), f"ffmpeg could not write the video ({words.strip()})", remedy)
