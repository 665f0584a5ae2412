"""Window painter report: painted windows against real ones, people by people, without rendering."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
import torch
from torch import Tensor

from sdtalk.rendering.face_windows import FaceWindow
from sdtalk.rendering.window_inputs import WindowInputs, window_inputs
from training.image_metrics import box_around, psnr, relative_sharpness, ssim
from training.mini.painter_data import FaceCrops, Pairs, PairSampler

WIDE_OPEN = 0.3
"""The inside is measured where the real opening is larger, as `FaceModel.mouth_opening`."""

FAR = 0.25
"""A frame opens or closes a mouth when its state differs by more from the photo's."""


@dataclass(frozen=True)
class WindowScore:
    """One painted window beside the real one.

    Attributes:
        psnr: Of the box around the outline, dB.
        ssim: Of the same box.
        sharpness: Gradient energy of the box over the real one's.
        inside: Mean absolute error inside of lips or lids, 0 to 255; NaN where they are not wide open.
        change: How much further open the frame is than the photo, as a share of wide open.
    """

    psnr: float
    ssim: float
    sharpness: float
    inside: float
    change: float


def report_pairs(
    clips: Sequence[FaceCrops], window: FaceWindow, sources: int = 3, targets: int = 8
) -> list[Pairs]:
    """Pairs of each clip, the same whenever asked: sources from closed to open, targets spread over all states."""
    sampler = PairSampler(clips, window, seed=0, augment=False)
    made = []
    for c, state in enumerate(sampler.states):
        order = state.argsort()
        photos, frames = (
            order[np.linspace(0, len(order) - 1, n).round().astype(int)] for n in (sources, targets)
        )
        made.append(sampler.pairs([(c, int(s), int(t)) for s in photos for t in frames if s != t]))
    return made


@torch.no_grad()
def score_windows(
    window: FaceWindow, pairs: Pairs, paint: Callable[[WindowInputs], Tensor]
) -> list[WindowScore]:
    """Paint and measure.

    Args:
        window: Which kind.
        pairs: What to paint.
        paint: Inputs -> the finished windows.
    """
    inputs = window_inputs(window, pairs.geometry)
    pictures = (paint(inputs).clamp(0, 1) * 255).round()
    real = (pairs.target * 255).round()
    scores = []
    for i, (before, now) in enumerate(pairs.states.tolist()):
        outline = pairs.geometry.moved_xy[i : i + 1, list(window.outline)]
        left, top, right, bottom = box_around(outline, window.size, window.size)[0]
        a, b = (p[i, :, top:bottom, left:right].permute(1, 2, 0).byte().numpy() for p in (pictures, real))
        inner = inputs.distances[i, 0] < 0
        error = (pictures[i] - real[i]).abs().mean(0)[inner]
        inside = error.mean().item() if now > WIDE_OPEN and len(error) else math.nan
        scores.append(WindowScore(psnr(a, b), ssim(a, b), relative_sharpness(a, b), inside, now - before))
    return scores


def summary(scores: Sequence[WindowScore]) -> str:
    """One line: all pairs, those that open and those that close."""

    def mean(name: str, chosen: Sequence[WindowScore], middle: Callable[[list[float]], float]) -> float:
        values = [v for v in (getattr(s, name) for s in chosen) if not math.isnan(v)]
        return middle(values) if values else math.nan

    parts = []
    groups = (
        ("all", lambda s: True),
        ("opening", lambda s: s.change > FAR),
        ("closing", lambda s: s.change < -FAR),
    )
    for name, belongs in groups:
        chosen = [s for s in scores if belongs(s)]
        values = [mean("psnr", chosen, fmean), mean("ssim", chosen, fmean), mean("sharpness", chosen, median)]
        parts.append(
            f"{name} ({len(chosen)}) {values[0]:.2f} dB, SSIM {values[1]:.3f}, sharp {values[2]:.2f}"
        )
    return "; ".join(parts) + f"; inside {mean('inside', scores, fmean):.1f}"
