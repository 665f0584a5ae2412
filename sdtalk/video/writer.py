"""Video writer: what all output formats share. Frames come one by one, the result appears whole or not at all."""

import contextlib
import os
import secrets
import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from sdtalk.errors import InputError
from sdtalk.provenance.claim import sign
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.speech.waveform import Waveform

COMMENT = "AI-generated with SDTalk: made from a picture and a sound recording, not filmed."
"""Stands in the metadata of everything written,"""
DUBBED = "AI-generated with SDTalk: mouth and jaw of a filmed person were made anew for other speech."
"""but for videos of people who were filmed."""


class VideoWriter(ABC):
    """Writes frames beside their place and moves the result there at the end; memory does not depend on the length.

    Use as a context manager; on any error, Ctrl-C included, nothing is left behind. Made by `formats.open_writer`.

    Attributes:
        path: The file or folder that will appear.
        written: Frames so far.
        claim: Digital source type that a signed claim in the file tells, see `provenance.claim`; "": no claim.
        comment: What the metadata say.
    """

    claim = ""
    comment = COMMENT

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: int | float = FRAME_RATE_HZ,
        sound: str | Path | Waveform | None = None,
        frames: int | None = None,
        alpha: bool = False,
    ) -> None:
        """Take the arguments of `formats.open_writer`; the work starts on entering the context."""
        self.path, self.size, self.fps = Path(path), size, fps
        self.sound, self.frames, self.alpha, self.written = sound, frames, alpha, 0

    def __enter__(self) -> "VideoWriter":
        place = self.path.absolute()
        self._new_folders = [folder for folder in place.parents if not folder.exists()]
        self._temporary = place.parent / f".sdtalk-{secrets.token_hex(6)}{place.suffix.lower()}"
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._start()
        except BaseException as error:
            self._clean_up()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        return self

    def write(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        """Append a frame.

        Args:
            frame: RGB; with alpha RGBA, the colours not multiplied by it.

        Raises:
            InputError: The disk is full, or the encoder fails.
        """
        self.write_all(frame[None])

    def write_all(self, frames: UInt8[np.ndarray, "frame height width channel"]) -> None:
        """Append frames, as `write` does one.

        Args:
            frames: As for `write`; contiguous ones are not copied.

        Raises:
            InputError: The disk is full, or the encoder fails.
        """
        width, height = self.size
        expected = (height, width, 4 if self.alpha else 3)
        assert frames.shape[1:] == expected, f"frames have the shape {frames.shape[1:]}, not {expected}"
        try:
            self._append_all(np.ascontiguousarray(frames))
        except OSError as error:
            raise self._failure(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
        finally:
            self._clean_up()

    def _complete(self) -> None:
        """Finish the file and move it to its place."""
        if self.written == 0:
            raise InputError(str(self.path), "there is no frame to write", "Give a longer recording.")
        assert self.frames in (None, self.written), f"{self.written} frames came, {self.frames} were promised"
        try:
            self._finish()
            if self.claim:
                sign(self._temporary, self.claim)
        except OSError as error:
            raise self._failure(error) from error
        try:
            self._move()
        except OSError as error:
            raise self._unwritable(error) from error
        self._new_folders = []

    def _move(self) -> None:
        os.replace(self._temporary, self.path)

    def _clean_up(self) -> None:
        """Stop, remove what is not the finished result."""
        self._stop()
        for rest in self._temporary.parent.glob(f"{self._temporary.stem}*"):
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        for folder in self._new_folders:
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()

    def _beside(self, suffix: str) -> Path:
        """A name for more of the work in progress; what is there is removed at the end."""
        return self._temporary.with_suffix(suffix)

    @abstractmethod
    def _start(self) -> None:
        """Begin to write to `_temporary`."""

    @abstractmethod
    def _append(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        """Write a frame, contiguous; an OSError becomes `_failure`."""

    def _append_all(self, frames: UInt8[np.ndarray, "frame height width channel"]) -> None:
        """Write frames, contiguous, and count them; an OSError becomes `_failure`."""
        for frame in frames:
            self._append(frame)
            self.written += 1

    @abstractmethod
    def _finish(self) -> None:
        """Complete `_temporary`; an OSError becomes `_failure`."""

    def _failure(self, error: OSError) -> InputError:
        """Say why a frame could not be written."""
        return self._unwritable(error)

    def _unwritable(self, error: OSError) -> InputError:
        remedy = "Free some disk space, or choose another output."
        return InputError(str(self.path), f"it cannot be written ({error.strerror})", remedy)

    def _stop(self) -> None:  # noqa: B027 - most have nothing that goes on by itself
        """End at once what goes on in the background; also called after a start that failed."""
