"""What the page shows of a video that is being made, and the words for it."""

from dataclasses import dataclass
from pathlib import Path

from sdtalk.demo.waiting_line import Place
from sdtalk.demo.work_time import in_words

DOING = {
    "preparing": "Looking at the portrait, listening to the speech",
    "tracking": "Following the head in the video",
    "rendering": "Drawing the frames",
}
"""What the stages of a pipeline are called."""


@dataclass(frozen=True)
class Shown:
    """News of a video for its visitor.

    Attributes:
        line: How far it is, in a sentence without markup; None: as before.
        done: How many frames are done.
        total: How many there will be; 0: not known.
        piece: The next piece to be watched.
        video: The finished video.
        seconds: How long it is.
        note: What the visitor should know about it, or "".
        problem: Why there is none, in a sentence without markup, or "".
        ended: Whether there will be no more news.
    """

    line: str | None = None
    done: int = 0
    total: int = 0
    piece: Path | None = None
    video: str | None = None
    seconds: float = 0.0
    note: str = ""
    problem: str = ""
    ended: bool = False


def waiting(place: Place) -> str:
    """How long the line is."""
    videos = "one video is" if place.ahead == 1 else f"{place.ahead} videos are"
    return f"In line: {videos} made before yours, about {in_words(place.wait)}"


def far(stage: str, done: int, total: int, left_s: float | None) -> str:
    """How far the work is, and how many seconds are left (None: not known yet)."""
    line = DOING.get(stage, "Working")
    if not total:
        return f"{line} …"
    left = "" if left_s is None else f", about {in_words(left_s)} left"
    return f"{line}: {done} of {total}{left}"


def finished(speech_s: float, took_s: float) -> str:
    """What is said at the end."""
    return f"Finished: {in_words(round(speech_s))} of video in {in_words(round(took_s))}"


def expected(speech_s: float, work_s: float, wait_s: float) -> str:
    """What is said of a recording before anything is made of it."""
    wait = f", after about {in_words(wait_s)} in line" if wait_s else ""
    return f"{in_words(round(speech_s))} of speech: the video takes about {in_words(work_s)}{wait}"
