"""Talks: what a pipeline returns; a video whose frames are rendered when they are wanted, and written on request."""

import base64
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.background import ORIGINAL, Background
from sdtalk.camera import FRAME_SIZE
from sdtalk.driving import DrivingSignals
from sdtalk.framing import Framing, scene_behind
from sdtalk.full_frame import FullFrame
from sdtalk.head import Head
from sdtalk.model import SDTalk
from sdtalk.options import TalkOptions
from sdtalk.progress import Progress, ProgressBar, no_progress
from sdtalk.provenance.claim import COMPOSITE, GENERATED
from sdtalk.speech.audio import FRAME_RATE_HZ, Speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import TimedFrame, render_frames, render_on_time, write_video
from sdtalk.video import open_writer


@dataclass(frozen=True)
class WrittenVideo:
    """A finished video.

    Attributes:
        path: Where it is.
        frames: Its length in frames of 1/25 s.
        note: What the user should know, or "".
        timings: Seconds spent, by stage; "encoding" runs beside the others.
    """

    path: Path
    frames: int
    note: str = ""
    timings: dict[str, float] = field(default_factory=dict)


class Talk:
    """A person speaking a recording: `frames()` renders, `save()` writes, a notebook shows it as a video.

    Nothing is rendered before it is wanted. The same talk always has the same frames.

    Attributes:
        head: Who speaks.
        signals: What drives the head in every frame.
        options: How the video is made.
        note: What the user should know, or "".
        path: Where it was last saved; None: nowhere yet.

    Examples:
        >>> talk = pipeline("portrait.jpg", "speech.wav")
        >>> first = next(talk.frames())
        >>> talk.save("talk.mp4")
    """

    frames_per_second = FRAME_RATE_HZ

    def __init__(
        self,
        model: SDTalk,
        head: Head,
        signals: DrivingSignals,
        speech: Speech,
        background: Background,
        options: TalkOptions,
        watch: Stopwatch | None = None,
    ) -> None:
        """Put a talk together; users get theirs from a pipeline.

        Args:
            model: Renders the head.
            head: Who speaks; made by this model.
            signals: One entry a frame, on the CPU.
            speech: The sound.
            background: What stands behind the head.
            options: Size, seed and label are followed here.
            watch: Has measured what was done before, and measures what comes.
        """
        self.head, self.signals, self.options, self.note = head, signals, options, head.note
        self.path: Path | None = None
        self._player = ""
        self._model, self._speech, self._watch = model, speech, watch or Stopwatch()
        self._background = background

    def __len__(self) -> int:
        """Frames: as many as cover the sound."""
        return len(self.signals)

    def __repr__(self) -> str:
        place = "not saved" if self.path is None else f"saved as {str(self.path)!r}"
        return f"Talk({len(self)} frames, {len(self) / self.frames_per_second:.2f} s, {place})"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames in px."""
        return (self.options.size, self.options.size) if self._place is None else self._place.size

    @cached_property
    def _place(self) -> FullFrame | None:
        """Where full or large frames are wanted, the photo that heads are pasted into."""
        framing = self._framing()
        if framing is None:
            return None
        with self._watch("preparing"):
            return FullFrame.of(self._model, self.head.gaussians, self.head.portrait, framing)

    def _framing(self) -> Framing | None:
        """What of the photo is shown where that is more than the model's own frame; None: just that."""
        options, portrait = self.options, self.head.portrait
        if options.frame == "full":
            return Framing.whole(portrait, options.shape)
        if options.size <= FRAME_SIZE or options.transparent or portrait.picture is None:
            return None
        own = options.background == ORIGINAL
        scene = None if own else scene_behind(self._background, portrait, options.size)
        return Framing.head(portrait, options.size, scene)

    @cached_property
    def _scene(self) -> Float[Tensor, "1 3 height width"] | None:
        """What stands behind a head that is pasted nowhere; None: it is pasted, or frames are transparent."""
        if self._place is not None:
            return None
        with self._watch("preparing"):
            return scene_behind(self._background, self.head.portrait)

    @property
    def model(self) -> SDTalk:
        """What renders the head."""
        return self._model

    @property
    def speech(self) -> Speech:
        """The sound."""
        return self._speech

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far, by stage; "video" is the time from the first frame's beginning to the finished file.

        The stages of frames add up what every core took, and "encoding" runs beside them.
        """
        return dict(self._watch.seconds)

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width channel"]]:
        """Render from the first frame on, a few at a time, as they are taken; memory does not grow.

        Yields:
            RGB, [size, size, 3] or of a full frame [height, width, 3]; where the background is transparent RGBA, [size,
            size, 4], straight alpha.
        """
        batches = self._batches()
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                yield from batch

    def save(
        self,
        path: str | Path,
        progress: Progress | Literal[True] | None = None,
        pieces: Path | None = None,
    ) -> Path:
        """Render and write the video with its sound; the file appears when all went well.

        Args:
            path: The file to write; what it ends in chooses the format, see `video.open_writer`.
            progress: Told about every few frames; True shows a bar.
            pieces: Folder that gets an .mp4 in pieces of a second, too, while it is made: see `sdtalk.video.pieces`.

        Returns:
            The path.

        Raises:
            InputError: It cannot be written; nothing is left behind then.
        """
        self.path = self._write(Path(path), progress, pieces)
        return self.path

    def frames_on_time(self, now: Callable[[], float]) -> Iterator[TimedFrame]:
        """Render by a clock, for a preview: where the machine falls behind, frames are dropped, never sound.

        Args:
            now: Where in the sound a listener is, in seconds.

        Yields:
            Frames in order, with the label; each says how many were dropped so far.
        """
        o = self.options
        timed = render_on_time(
            self._model,
            self.head.gaussians,
            self.signals,
            self._scene,
            now,
            o.size,
            o.seed,
            o.exact,
            o.label,
            self._place,
            o.mark,
        )
        yield from timed

    def _write(
        self, path: Path, progress: Progress | Literal[True] | None, pieces: Path | None = None
    ) -> Path:
        size, alpha = self.size, self.options.transparent
        on_gpu = self.head.gaussians.eyes.is_cuda
        writer = open_writer(
            path,
            size,
            sound=self._speech.original,
            alpha=alpha,
            on_gpu=on_gpu,
            pieces=pieces,
            claim=COMPOSITE if self.options.frame == "full" else GENERATED,
        )
        with showing(progress) as show, self._watch("video"), writer:
            batches = self._batches()
            with closing(batches):  # type: ignore[type-var]
                write_video(writer, batches, len(self), show, self._watch)
        return path

    def _batches(self) -> Iterator[UInt8[np.ndarray, "frame height width channel"]]:
        options, gaussians = self.options, self.head.gaussians
        return render_frames(
            self._model,
            gaussians,
            self.signals,
            self._scene,
            options.size,
            self._watch,
            options.seed,
            exact=options.exact,
            label=options.label,
            place=self._place,
            mark=options.mark,
        )

    def _repr_html_(self) -> str:
        """A player with the whole video in it, for notebooks; rendered when it is first shown."""
        if not self._player:
            kind = "webm" if self.options.transparent else "mp4"
            with tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
                video = self._write(Path(folder, f"talk.{kind}"), True).read_bytes()
            source = f"data:video/{kind};base64,{base64.b64encode(video).decode('ascii')}"
            self._player = f'<video controls width="{min(self.size[0], 640)}" src="{source}"></video>'
        return self._player


def showing(progress: Progress | Literal[True] | None) -> "nullcontext[Progress] | ProgressBar":
    """What to tell about progress, as a context: a function, a bar of our own (True), or nobody (None)."""
    return ProgressBar() if progress is True else nullcontext(progress or no_progress)
