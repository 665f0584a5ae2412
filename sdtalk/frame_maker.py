"""Frame makers: what turns driving signals into finished frames, a few at a time; live where it can, else exactly."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.config import SDTalkConfig
from sdtalk.driving import DrivingSignals
from sdtalk.full_frame import FullFrame
from sdtalk.gpu_frames import GROWTH, SMALLEST, Frames, GpuFrames, finished
from sdtalk.head import HeadGaussians
from sdtalk.live.in_flight import in_flight
from sdtalk.model import SDTalk
from sdtalk.provenance.mark import marked
from sdtalk.stopwatch import Stopwatch
from sdtalk.video.label import labelled

MOST_WORKERS = 8
"""Parts of a video that are made at the same time, however many cores there are: each needs memory of its own."""


@dataclass(frozen=True)
class FrameMaker:
    """Makes frames of one recording.

    Attributes:
        frames: Frames of parts of the recording, in order; a part is the numbers of its frames.
        soon: The same, each part as soon as it can be, at the cost of those after it.
        batch: Frames that a part has best; None: any few.
        smallest: So small the first parts should be: somebody who waits sees something soon. None: as all others.
        repeats: After so many parts they grow, until they are as large as they should be,
        growth: by this factor.
    """

    frames: Callable[[Iterable[range]], Iterator[Frames]]
    soon: Callable[[Iterable[range]], Iterator[Frames]]
    batch: int | None = None
    smallest: int | None = None
    repeats: int = 1
    growth: int = 2


def has_live_renderer(config: SDTalkConfig, device: torch.device) -> bool:
    """Whether `sdtalk.live` knows a model: with windows, and colours of the photo, on a CPU."""
    return config.neural_renderer == "windows" and config.prior_colour and device.type == "cpu"


def frame_maker(
    model: SDTalk,
    head: HeadGaussians,
    signals: DrivingSignals,
    background: Tensor | None,
    size: int,
    watch: Stopwatch,
    seed: int,
    exact: bool,
    label: str,
    place: FullFrame | None,
    mark: bool,
) -> FrameMaker:
    """What makes frames where the head is; arguments as of `render_frames`."""
    where = head.eyes.device
    sides = (size, size) if place is None else place.size
    if where.type != "cpu":
        on_gpu = GpuFrames(model, head, signals, background, size, watch, seed, exact, label, place, mark)
        return FrameMaker(
            on_gpu.frames, partial(on_gpu.frames, ahead=0), on_gpu.batch, SMALLEST, growth=GROWTH
        )
    if exact or not has_live_renderer(model.config, where):

        def make_exactly(part: range) -> Frames:
            with _own_noise(seed, part.start):
                some = signals[part.start : part.stop]
                return _render_exactly(model, head, some, background, size, watch, place)

        one_by_one = _labelling(partial(map, make_exactly), label, sides, mark)
        return FrameMaker(one_by_one, one_by_one)
    from sdtalk.live.renderer import LiveRenderer  # imports a compiler, which takes a quarter of a second

    with watch("preparing"):
        renderer = LiveRenderer(model, head, signals, size if place is None else FRAME_SIZE)
        behind = None if background is None else F.avg_pool2d(background, renderer.zoom)

    def make(part: range) -> Frames:
        if place is not None:
            moved = renderer.moved(signals[part.start : part.stop], watch)
            with watch("finishing"):
                return place.pasted(moved).numpy()
        pictures = renderer.pictures(signals[part.start : part.stop], watch)
        with watch("finishing"):
            return _finished(pictures, behind, size)

    workers = min(torch.get_num_threads(), MOST_WORKERS)
    flying = _labelling(partial(in_flight, make, workers=workers), label, sides, mark)
    return FrameMaker(flying, flying, smallest=None if workers == 1 else 1, repeats=workers)


def _labelling(
    make: Callable[[Iterable[range]], Iterator[Frames]], label: str, size: tuple[int, int], mark: bool
) -> Callable[[Iterable[range]], Iterator[Frames]]:
    """With the label, and the invisible mark where it is wanted."""

    def finished(parts: Iterable[range]) -> Iterator[Frames]:
        batches = labelled(make(parts), label, size)
        return marked(batches) if mark else batches

    return finished


@contextmanager
def _own_noise(seed: int, start: int) -> Iterator[None]:
    """Random numbers that only the seed and the place in the video decide; those of the caller go on as they were."""
    with torch.random.fork_rng([]):
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
    place: FullFrame | None,
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
            if place is not None:
                frames.append(place.pasted(frame).numpy())
                continue
            frames.append(_finished(torch.cat([frame.colours, frame.alpha], dim=1), background, size))
    return np.concatenate(frames)


@torch.inference_mode()
def _finished(
    pictures: Float[Tensor, "frame 4 height width"], background: Tensor | None, size: int
) -> Frames:
    """Frames of a size, over the background or with straight alpha.

    Args:
        pictures: Colours, premultiplied, and alpha.
        background: As large; None: there is none.
        size: In px.
    """
    if background is not None and size == pictures.shape[-1]:
        from sdtalk.live.renderer import composed

        return composed(pictures, background)
    return finished(pictures, background, size).numpy()
