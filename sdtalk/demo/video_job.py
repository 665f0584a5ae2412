"""Video job: what a page's video is made of, and what became of it; both can be pickled, for another process.

Where the work is done by another process, its folder is the way both talk: the wish to stop goes one way, how far the
work is, and the pieces to be watched meanwhile, come back.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.progress import Progress


class Stopped(Exception):
    """The visitor does not want the video any more."""


@dataclass(frozen=True)
class VideoJob:
    """A video to be made.

    Attributes:
        model: Name of one of the page's models.
        portrait: Path of the picture.
        speech: Path of the recording.
        options: How the video is made.
        folder: Empty folder of this job, for the video and for the wish to stop; both processes see it.
        speech_seconds: How long the recording is.
        watched: Whether somebody watches it while it is made, and wants pieces.
        face: Which face of the picture, from left to right; 0: the largest.
        turn: By how many degrees the picture is turned clockwise first.
        suffix: Of the video, which chooses its format.
    """

    model: str
    portrait: str
    speech: str
    options: TalkOptions
    folder: Path
    speech_seconds: float = 0.0
    watched: bool = False
    face: int = 0
    turn: int = 0
    suffix: str = ".mp4"

    @property
    def video(self) -> Path:
        """Where the finished video goes."""
        return self.folder / f"talking{self.suffix}"

    @property
    def pieces(self) -> Path:
        """Folder of the pieces, see `sdtalk.video.pieces`."""
        return self.folder / "pieces"

    @property
    def stop(self) -> "StopFlag":
        """Whether it is still wanted."""
        return StopFlag(self.folder)

    def begun(self, pipeline: Any, show: Progress) -> Any:
        """Look and listen by a pipeline; what is returned, such as a `Talk`, makes the frames when it is saved."""
        chosen = {"face": self.face, "turn": self.turn}
        return pipeline(self.portrait, self.speech, options=self.options, progress=show, **chosen)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Let whoever watches know how far it is; a `Progress`. Raises Stopped where nobody wants it any more."""
        self.stop.check()
        news = self.folder / "news"
        news.with_suffix(".new").write_text(f"{stage} {done} {total}", encoding="utf-8")
        os.replace(news.with_suffix(".new"), news)  # never read in parts

    def told(self) -> tuple[str, int, int]:
        """The stage, how many of its frames are done, and how many there are (0: not known)."""
        try:
            stage, done, total = (self.folder / "news").read_text(encoding="utf-8").rsplit(" ", 2)
        except FileNotFoundError:
            return "preparing", 0, 0
        return stage, int(done), int(total)


@dataclass(frozen=True)
class StopFlag:
    """A wish to stop that reaches other processes, too: a file in the folder of the job."""

    folder: Path

    def set(self) -> None:
        """Stop the job as soon as it tells of its progress; nothing happens where it has ended."""
        if self.folder.is_dir():
            (self.folder / "stop").touch()

    def check(self) -> None:
        """Raise Stopped where the flag is set."""
        if (self.folder / "stop").exists():
            raise Stopped


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        note: What the user should know, or "".
        problem: Why there is no video; None: nothing is wrong.
        stopped: Whether there is none because nobody wants it any more.
    """

    note: str = ""
    problem: InputError | None = None
    stopped: bool = False
