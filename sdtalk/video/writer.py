"""Frames out: an mp4 with sound that appears complete or not at all."""

import contextlib
import os
import secrets
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ

COMMENT = "AI-generated with SDTalk: made from a picture and a sound recording, not filmed."
"""Stands in the metadata of every video written."""


def check_output(path: str | Path) -> None:
    """Make sure that a video can be written to a path, before the work starts.

    Raises:
        InputError: The name does not end in .mp4, is a folder's or too long, or the folder takes no files.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(str(path), "the name of the output does not end in .mp4", "Call it, say, talk.mp4.")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        remedy = "Choose another folder or name for the output."
        raise InputError(str(path), f"it cannot be written ({error.strerror})", remedy) from error


class VideoWriter:
    """Writes H.264 + AAC to an mp4, frame by frame; the file appears when all went well, else nothing does.

    The sound is the given file's own track, not the 16 kHz the models hear; its samples follow one another
    from the first frame's start, as `audio.read_speech` counts them, whatever the file's time stamps say.

    Use as a context manager; raises InputError when ffmpeg or the disk fails.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: int | float = FRAME_RATE_HZ,
        sound: str | Path | Float[Tensor | np.ndarray, " samples"] | None = None,
        frames: int | None = None,
    ) -> None:
        """Check the output; the work starts on entering the context.

        Args:
            path: The file to write; an existing one is replaced at the end. Missing folders are made.
            size: Width and height in px; where odd, H.264's last column or row repeats its neighbour.
            fps: Frames per second.
            sound: A file that has sound, or mono samples at 16 kHz.
            frames: How many frames will come: the sound is cut, or filled up with silence, to their end. By
                default it stays whole, which is right when `audio.frame_count` frames come.
        """
        check_output(path)
        if isinstance(sound, str | Path) and Path(sound).absolute() == Path(path).absolute():
            raise InputError(str(path), "it is also an input", "Choose another name for the output.")
        self.path, self.size, self.fps = Path(path), size, fps
        self.sound, self.frames, self.written = sound, frames, 0

    def __enter__(self) -> "VideoWriter":
        self._new_folders = [folder for folder in self.path.absolute().parents if not folder.exists()]
        self._temporary = self.path.absolute().parent / f".sdtalk-{secrets.token_hex(6)}.mp4"
        self._samples = self._temporary.with_suffix(".f32")
        self._log = tempfile.TemporaryFile()
        self._process: subprocess.Popen | None = None
        try:
            self._temporary.parent.mkdir(parents=True, exist_ok=True)
            # a session of its own: Ctrl-C reaches us, and we decide what becomes of ffmpeg
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.PIPE, stderr=self._log, start_new_session=True
            )
        except BaseException:
            self._clean_up()
            raise
        return self

    def _command(self) -> list[str]:
        width, height = (side + side % 2 for side in self.size)
        command = [imageio_ffmpeg.get_ffmpeg_exe(), *"-hide_banner -loglevel error -y".split()]
        command += f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -framerate {self.fps} -i pipe:0".split()
        if self.sound is not None:
            command += ["-protocol_whitelist", "file,pipe"]
            if isinstance(self.sound, str | Path):
                command += ["-i", f"file:{Path(self.sound).absolute()}"]
            else:
                np.asarray(self.sound, dtype="<f4").tofile(self._samples)
                command += f"-f f32le -ar {SAMPLE_RATE_HZ} -ac 1 -i".split() + [f"file:{self._samples}"]
            command += "-map 0:v:0 -map 1:a:0 -c:a aac -b:a 160k -af".split()
            end = "" if self.frames is None else f"apad,atrim=end={self.frames / self.fps},"
            command.append(f"asetpts=N/SR/TB,{end}aformat=channel_layouts=mono|stereo")
        command += "-vf scale=out_color_matrix=bt709:out_range=tv,format=yuv420p".split()
        command += "-colorspace bt709 -color_primaries bt709 -color_trc bt709".split()
        command += "-c:v libx264 -preset veryfast -crf 17 -map_metadata -1 -map_chapters -1".split()
        command += ["-metadata", f"comment={COMMENT}", "-movflags", "+faststart"]
        return [*command, "-f", "mp4", f"file:{self._temporary}"]

    def write(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Append a frame, RGB."""
        width, height = self.size
        assert frame.shape == (height, width, 3), f"{frame.shape} is not {height} x {width} x 3"
        assert self._process is not None and self._process.stdin is not None
        if width % 2 or height % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise self._failure() from error
        self.written += 1

    def _failure(self) -> InputError:
        """What ffmpeg said last, once it has ended."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()
        lines = lines or [f"no message, exit code {code}"]
        words = next((line for line in lines if "No space left" in line), lines[-1])
        remedy = "Free some disk space and check that the sound plays, or choose another output."
        return InputError(str(self.path), f"ffmpeg could not write the video ({words.strip()})", remedy)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._clean_up()

    def _finish(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        if self.written == 0:
            raise InputError(str(self.path), "there is no frame to write", "Give a longer recording.")
        assert self.frames in (None, self.written), f"{self.written} frames came, {self.frames} were promised"
        try:
            self._process.stdin.close()
        except OSError as error:
            raise self._failure() from error
        if self._process.wait() != 0:
            raise self._failure()
        try:
            os.replace(self._temporary, self.path)
        except OSError as error:
            problem = f"it cannot be written ({error.strerror})"
            raise InputError(str(self.path), problem, "Choose another output.") from error
        self._new_folders = []

    def _clean_up(self) -> None:
        """End ffmpeg, remove what is not the finished video."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._log.close()
        self._temporary.unlink(missing_ok=True)
        self._samples.unlink(missing_ok=True)
        for folder in self._new_folders:
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()
