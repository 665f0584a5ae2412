"""Frame stream: a head and driving signals go in, finished frames come out, a few at a time."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.config import SDTalkConfig
from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians
from sdtalk.image import straight_alpha, to_frames
from sdtalk.live.in_flight import in_flight
from sdtalk.model import SDTalk
from sdtalk.progress import Progress
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.stopwatch import Stopwatch
from sdtalk.video import VideoWriter

BATCH = 4
"""Frames animated and handed on at once; more gain nothing and need more memory."""

MOST_WORKERS = 8
"""Parts of a video that are made at the same time, however many cores there are: each needs memory of its own."""

AHEAD_SECONDS = 0.4
"""By a clock, frames are made at most so long before they are due."""

Frames: TypeAlias = UInt8[np.ndarray, "frame size size channel"]


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
    picture: UInt8[np.ndarray, "size size channel"]


def render_frames(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Float[Tensor, "1 3 height width"] | None,
    size: int = FRAME_SIZE,
    watch: Stopwatch | None = None,
    seed: int = 0,
    batch: int = BATCH,
    exact: bool = False,
) -> Iterator[Frames]:
    """Render a signals in batches; memory does not depend on its length.

    Args:
        model: The model that made the head.
        head: Who.
        signals: What happens; on the CPU.
        background: What stands behind, as large as the model's frames; None: frames are RGBA, with straight alpha.
        size: Side of the finished frames in px; the model's own frames are resampled where it differs.
        watch: Measures "motion", "rasterising", "neural rendering" and "finishing" on every core that is used, or for
            the exact way "rendering" instead of the two in the middle.
        seed: Of the noise, where the model's renderer draws it anew for every frame.
        batch: Frames animated at once.
        exact: Render as `SDTalk.render` does, also where there is a faster way, see `sdtalk.live`.
    """
    make, workers = _frame_maker(model, head, signals, background, size, watch or Stopwatch(), seed, exact)
    yield from in_flight(make, _parts(len(signals), batch, workers), workers)


def render_on_time(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Float[Tensor, "1 3 height width"] | None,
    now: Callable[[], float],
    size: int = FRAME_SIZE,
    seed: int = 0,
    exact: bool = False,
) -> Iterator[TimedFrame]:
    """Render by a clock: where the machine falls behind, frames are dropped, never sound.

    Args:
        model: As for `render_frames`, like head, signals, background, size, seed and exact.
        head: See model.
        signals: See model.
        background: See model.
        now: Where in the sound a listener is, in seconds; never goes back.
        size: See model.
        seed: See model.
        exact: See model.

    Yields:
        Frames in order, at most `AHEAD_SECONDS` before they are due; dropped ones are missing, and counted.
    """
    make, workers = _frame_maker(model, head, signals, background, size, Stopwatch(), seed, exact)
    numbers = deque[int]()

    def due() -> Iterator[range]:
        number = 0
        while (number := max(number, math.floor(now() * FRAME_RATE_HZ))) < len(signals):
            time.sleep(max(0.0, number / FRAME_RATE_HZ - now() - AHEAD_SECONDS))
            numbers.append(number)
            yield range(number, number + 1)
            number += 1

    for made, frames in enumerate(in_flight(make, due(), workers)):
        number = numbers.popleft()
        yield TimedFrame(number, number - made, frames[0])


def _parts(frames: int, batch: int, workers: int) -> Iterator[range]:
    """Parts of `batch` frames; the first ones smaller, so that somebody who waits sees something soon."""
    start, number = 0, 0
    while start < frames:
        stop = min(start + min(batch, 2 ** (number // workers)), frames)
        yield range(start, stop)
        start, number = stop, number + 1


def has_live_renderer(config: SDTalkConfig, device: torch.device) -> bool:
    """Whether `sdtalk.live` knows a model: with windows, and colours of the photo, on a CPU."""
    return config.neural_renderer == "windows" and config.prior_colour and device.type == "cpu"


def _frame_maker(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Tensor | None,
    size: int,
    watch: Stopwatch,
    seed: int,
    exact: bool,
) -> tuple[Callable[[range], Frames], int]:
    """What makes some of the frames, and how many threads may call it."""
    where = head.eyes.device
    background = None if background is None else background.to(where)
    if exact or not has_live_renderer(model.config, where):

        def make_exactly(part: range) -> Frames:
            frames = signals[part.start : part.stop].to(where)
            with _own_noise(where, seed, part.start):
                return _render_exactly(model, head, frames, background, size, watch)

        return make_exactly, 1
    from sdtalk.live.renderer import LiveRenderer  # imports a compiler, which takes a quarter of a second

    with watch("preparing"):
        renderer = LiveRenderer(model, head, signals)

    def make(part: range) -> Frames:
        pictures = renderer.pictures(signals[part.start : part.stop], watch)
        with watch("finishing"):
            return _finished(pictures, background, size)

    return make, min(torch.get_num_threads(), MOST_WORKERS)


@contextmanager
def _own_noise(device: torch.device, seed: int, start: int) -> Iterator[None]:
    """Random numbers that only the seed and the place in the video decide; those of the caller go on as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.default_rng((seed, 3, start)).integers(2**63)))
        yield


@torch.inference_mode()
def _render_exactly(
    model: SDTalk,
    head: HeadGaussians,
    part: DrivingSignals,
    background: Tensor | None,
    size: int,
    watch: Stopwatch,
) -> Frames:
    with watch("motion"):
        animated = model.animate(head, part.audio_code, part.eyes, part.small_motion)
    frames = []
    # windows of several frames at once take half the time; whole frames of 32 features are large, and faster one by one
    step = len(part) if model.config.neural_renderer == "windows" else 1
    for index in range(0, len(part), step):
        with watch("rendering"):
            frame = model.render(head, animated[index : index + step], part.camera[index : index + step])
        with watch("finishing"):
            frames.append(_finished(torch.cat([frame.colours, frame.alpha], dim=1), background, size))
    return np.concatenate(frames)


@torch.inference_mode()
def _finished(
    pictures: Float[Tensor, "frame 4 height width"], background: Tensor | None, size: int
) -> Frames:
    """Frames of a size, over the background or with straight alpha.

    Args:
        pictures: Colours, premultiplied, and alpha.
        background: None: there is none.
        size: In px.
    """
    resized = size != pictures.shape[-1]
    if background is not None and not resized and background.device.type == "cpu":
        from sdtalk.live.renderer import composed

        return composed(pictures, background)
    alpha = pictures[:, 3:]
    frames = pictures if background is None else pictures[:, :3] + (1 - alpha) * background
    frames = frames.clamp(0, 1)
    if resized:  # still premultiplied, or transparent pixels' colours would leak
        frames = F.interpolate(frames, size=(size, size), mode="bicubic", antialias=True)
    return to_frames(straight_alpha(frames.clamp(0, 1)) if background is None else frames)


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
            for frame in batch:
                writer.write(frame)
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
