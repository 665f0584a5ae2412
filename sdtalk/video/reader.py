"""Video reader: frames of any file that ffmpeg reads, one in memory at a time."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from sdtalk.errors import InputError
from sdtalk.speech.audio import FRAME_RATE_HZ

OTHER_FILE = "Give an mp4, mov, webm, mkv or avi video."
CUT_SHORT = re.compile("partial file|ended prematurely")
"""What ffmpeg's readers say of files that stop before they should."""
DAMAGED = "Conversion failed"
"""What it says where it was told to stop at what it cannot decode."""


@dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        width: As shown (rotated as the file asks, square pixels), px; `read_frames` gives this size.
        height: The same.
        fps: Frames per second of the file.
        duration: Seconds.
        has_sound: Whether there is a sound track.
    """

    width: int
    height: int
    fps: float
    duration: float
    has_sound: bool


def _reading(path: Path, *options: str, strict: bool = False) -> list[str]:
    """Command that reads the first video stream (V: cover art is none) of a file, which must have content.

    Strict: it stops at the first thing it cannot decode; else ffmpeg hides damage as well as it can.

    "file:" and the white list: a name or a play list must never make ffmpeg open anything but local files.
    """
    if not path.is_file():
        problem = "it is not a file" if path.exists() else "there is no such file"
        raise InputError(str(path), problem, "Check the path of the video.")
    if path.stat().st_size == 0:
        raise InputError(str(path), "the file is empty", OTHER_FILE)
    source = ["-xerror", "-err_detect", "explode"] if strict else []
    source += "-hide_banner -nostdin -nostats -protocol_whitelist file,pipe -i".split()
    source.append(f"file:{path.absolute()}")
    return [imageio_ffmpeg.get_ffmpeg_exe(), *source, "-map", "0:V:0", *options]


def _as_ppm(filters: str) -> list[str]:
    """Options for upright frames with square pixels; PPM, because each frame then tells its size.

    In 8 bits, also where the video has 10, of which ffmpeg would make 16.
    """
    square = f"{filters}scale=w='max(1,round(iw*sar))':h=ih,setsar=1,format=rgb24"
    return ["-vf", square, "-fps_mode", "passthrough", "-c:v", "ppm", "-f", "image2pipe", "pipe:1"]


def _unreadable(path: Path, log: str) -> InputError:
    problem = "no frame of it can be read"
    if "matches no streams" in log:
        problem = "it has no video stream"
    elif "Error opening input" in log:
        problem = "it is not a video that ffmpeg can read (damaged, cut short, or another kind of file)"
    return InputError(str(path), problem, OTHER_FILE)


def probe(path: str | Path) -> VideoInfo:
    """Look at a video file; its first frame is decoded.

    Raises:
        InputError: No such file, not a video, a still picture, or no frame can be read.
    """
    path = Path(path)
    done = subprocess.run(_reading(path, "-frames:v", "1", *_as_ppm("")), capture_output=True)
    log = done.stderr.decode("utf-8", errors="replace")
    size = re.match(rb"P6\s(\d+) (\d+)\s", done.stdout)
    if not size:
        raise _unreadable(path, log)
    if re.search(r"Input #0, (image2|\w+_pipe)", log):
        raise InputError(str(path), "it is a still picture", OTHER_FILE)
    source = log.partition("Stream mapping:")[0]
    rate = re.search(r"Video: .*? ([\d.]+)(k?) (?:fps|tbr)", source)
    fps = float(rate[1]) * (1000 if rate[2] else 1) if rate else float(FRAME_RATE_HZ)
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", source)
    if not duration:  # recorded by a browser: only reading to the end tells
        whole = subprocess.run(_reading(path, *"-c copy -f null -".split()), capture_output=True, text=True)
        duration = re.search(r"time=(\d+):(\d+):([\d.]+)\D*$", whole.stderr.partition(" bitrate=")[0])
    hours, minutes, seconds = duration.groups() if duration else (0, 0, 1 / fps)
    total = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return VideoInfo(int(size[1]), int(size[2]), fps, total, ": Audio: " in source)


def has_video(path: str | Path) -> bool:
    """Whether a file holds moving pictures (a still picture or cover art does not count)."""
    try:
        probe(path)
    except InputError:
        return False
    return True


def read_frames(
    path: str | Path, fps: int | float = FRAME_RATE_HZ, strict: bool = False, first: int = 0
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Read a video frame by frame, resampled to a frame rate, in constant memory.

    Frame t is what the file shows at (t + 0.5) / fps, the middle of the frame; where the pictures start later
    than the sound, the first one stands until then. Frames are upright, have square pixels, may be written to.

    Args:
        path: The video.
        fps: Frames a second that are wanted.
        strict: Stop with an error at what cannot be decoded, instead of hiding it.
        first: So many frames are left out first.

    Raises:
        InputError: As `probe`; also after the last frame, when the file is cut short.
    """
    path = Path(path)
    skipped = f"trim=start_frame={first}," if first else ""
    command = _reading(path, *_as_ppm(f"fps=fps={fps}:start_time=0,{skipped}"), strict=strict)
    count = 0
    with tempfile.TemporaryFile() as log_file:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log_file) as process:
            assert process.stdout is not None
            try:
                while (frame := _read_ppm(process.stdout)) is not None:
                    yield frame
                    count += 1
                process.wait()
            finally:
                process.kill()  # no frames are wanted any more, or there are none
        log_file.seek(0)
        log = log_file.read().decode("utf-8", errors="replace")
    if count == 0:
        raise _unreadable(path, log)
    if DAMAGED in log:
        raise InputError(str(path), f"the file is damaged from {count / fps:.1f} s on", "Copy it again.")
    if CUT_SHORT.search(log):
        raise InputError(str(path), f"the file is cut short after {count / fps:.1f} s", "Copy it again.")


def _read_ppm(pipe: IO[bytes]) -> np.ndarray | None:
    """The next frame of a stream of PPM pictures, None at its end."""
    header = [pipe.readline() for _ in range(3)]
    if not header[2]:
        return None
    width, height = map(int, header[1].split())
    pixels = bytearray(width * height * 3)
    if pipe.readinto(pixels) < len(pixels):  # type: ignore[attr-defined]
        return None
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)
