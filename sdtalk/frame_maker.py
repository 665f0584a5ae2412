"""Frame makers: what turns driving signals into finished frames, a few at a time; live where it can, else exactly."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians
from sdtalk.image import straight_alpha, to_frames
from sdtalk.model import SDTalk
from sdtalk.stopwatch import Stopwatch

MOST_WORKERS = 8
"""Parts of a video that are made at the same time, however many cores there are: each needs memory of its own."""

Frames: TypeAlias = UInt8[np.ndarray, "frame size size channel"]


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
) -> tuple[Callable[[range], Frames], int]:
    """What makes some frames by their numbers, and how many threads may call it; arguments as of `render_frames`."""
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
        renderer = LiveRenderer(model, head, signals, size)

    def make(part: range) -> Frames:
        pictures = renderer.pictures(signals[part.start : part.stop], watch)
        with watch("finishing"):
            return _finished(pictures, background, size, renderer.zoom)

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
    pictures: Float[Tensor, "frame 4 height width"], background: Tensor | None, size: int, zoom: int = 1
) -> Frames:
    """Frames of a size, over the background or with straight alpha.

    Args:
        pictures: Colours, premultiplied, and alpha.
        background: None: there is none.
        size: In px.
        zoom: So many equal pixels of the pictures, across and down, are one of small frames.
    """
    resized = size != pictures.shape[-1]
    if background is not None and background.device.type == "cpu" and size * zoom == pictures.shape[-1]:
        from sdtalk.live.renderer import composed

        return composed(pictures, background, zoom)
    alpha = pictures[:, 3:]
    frames = pictures if background is None else pictures[:, :3] + (1 - alpha) * background
    frames = frames.clamp(0, 1)
    if resized:  # still premultiplied, or transparent pixels' colours would leak
        frames = F.interpolate(frames, size=(size, size), mode="bicubic", antialias=True)
    return to_frames(straight_alpha(frames.clamp(0, 1)) if background is None else frames)
