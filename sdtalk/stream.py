"""Frame stream: a head and driving signals go in, finished frames come out, a few at a time."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.driving import DrivingSignals
from sdtalk.frame_maker import FrameMaker, Frames, frame_maker
from sdtalk.full_frame import FullFrame
from sdtalk.head import HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.progress import Progress
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.stopwatch import Stopwatch
from sdtalk.video import VideoWriter

BATCH = 4
"""Frames animated and handed on at once on a CPU; more gain nothing and need more memory."""

AHEAD_SECONDS = 0.4
"""By a clock, frames are made at most so long before they are due."""


@dataclass(frozen=True)
class TimedFrame:
    """A frame that was made by a clock.

    Attributes:
        number: Which frame of the video.
        dropped: How many frames before it were left out so far, because the machine was too slow for them.
        picture: RGB, or RGBA with straight alpha.
    """

    number: int
    dropped: int
    picture: UInt8[np.ndarray, "height width channel"]


def render_frames(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Float[Tensor, "1 3 height width"] | None,
    size: int = FRAME_SIZE,
    watch: Stopwatch | None = None,
    seed: int = 0,
    batch: int | None = None,
    exact: bool = False,
    label: str = "",
    place: FullFrame | None = None,
    mark: bool = False,
) -> Iterator[Frames]:
    """Render a signals in batches; memory does not depend on its length.

    Args:
        model: The model that made the head.
        head: Who.
        signals: What happens; on the CPU.
        background: What stands behind, as large as the model's frames; None: frames are RGBA, with straight alpha.
        size: Side of the finished frames in px; the model's own frames are resampled where it differs.
        watch: Measures "motion", "rasterising", "neural rendering" and "finishing" on every core that is used, or for
            the exact way, and on a GPU, "rendering" instead of the two in the middle.
        seed: Of the noise, where the model's renderer draws it anew for every frame.
        batch: Frames animated at once, at most; None: `BATCH`, or on a GPU as many as it has best.
        exact: Render as `SDTalk.render` does, also where there is a faster way, see `sdtalk.live`.
        label: Text in a corner of every frame; "": none.
        place: The photo that heads are pasted into, for whole frames; size and background have no meaning then.
        mark: Put the invisible mark into every frame, see `provenance.mark`.
    """
    maker = frame_maker(
        model, head, signals, background, size, watch or Stopwatch(), seed, exact, label, place, mark
    )
    yield from maker.frames(_parts(len(signals), batch or maker.batch or BATCH, maker))


def render_on_time(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Float[Tensor, "1 3 height width"] | None,
    now: Callable[[], float],
    size: int = FRAME_SIZE,
    seed: int = 0,
    exact: bool = False,
    label: str = "",
    place: FullFrame | None = None,
    mark: bool = False,
) -> Iterator[TimedFrame]:
    """Render by a clock: where the machine falls behind, frames are dropped, never sound.

    Args:
        model: As for `render_frames`, like head, signals, background, size, seed, exact, label, place and mark.
        head: See model.
        signals: See model.
        background: See model.
        now: Where in the sound a listener is, in seconds; never goes back.
        size: See model.
        seed: See model.
        exact: See model.
        label: See model.
        place: See model.
        mark: See model.

    Yields:
        Frames in order, at most `AHEAD_SECONDS` before they are due; dropped ones are missing, and counted.
    """
    maker = frame_maker(model, head, signals, background, size, Stopwatch(), seed, exact, label, place, mark)
    numbers = deque[int]()

    def due() -> Iterator[range]:
        number = 0
        while (number := max(number, math.floor(now() * FRAME_RATE_HZ))) < len(signals):
            time.sleep(max(0.0, number / FRAME_RATE_HZ - now() - AHEAD_SECONDS))
            numbers.append(number)
            yield range(number, number + 1)
            number += 1

    for made, frames in enumerate(maker.soon(due())):
        number = numbers.popleft()
        yield TimedFrame(number, number - made, frames[0])


def _parts(frames: int, batch: int, maker: FrameMaker) -> Iterator[range]:
    """Parts of a recording, of `batch` frames; the first may be smaller."""
    start, number = 0, 0
    while start < frames:
        grown = (
            batch if maker.smallest is None else maker.smallest * maker.growth ** (number // maker.repeats)
        )
        stop = min(start + min(batch, grown), frames)
        yield range(start, stop)
        start, number = stop, number + 1


def write_video(
    writer: VideoWriter,
    batches: Iterator[UInt8[np.ndarray, "frame height width channel"]],
    total: int,
    progress: Progress,
    watch: Stopwatch,
) -> None:
    """Write batches while the next one is made; at most one waits.

    Args:
        writer: Where to; already entered, not finished here.
        batches: Frames in order.
        total: How many frames will come.
        progress: Told about every batch written.
        watch: Measures "encoding", which overlaps with making the frames.
    """

    def write(batch: np.ndarray) -> int:
        with watch("encoding"):
            writer.write_all(batch)
        return len(batch)

    done = 0
    waiting: Future[int] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="encoding") as thread:
        for batch in batches:
            if waiting is not None:
                done += waiting.result()
                progress("rendering", done, total)
            waiting = thread.submit(write, batch)
        if waiting is not None:
            progress("rendering", done + waiting.result(), total)
