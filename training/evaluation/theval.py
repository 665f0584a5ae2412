"""THEval's lip metrics: lip dynamics, and the stability of lips in silence.

Definitions from the published code of THEval (github.com/Newbyl/THEval: Naturalness/lip_dynamics.py and
Synchronization/silent_lip_stability.py), computed here on our own face track. THEval scores a method by
how near its mean comes to that of the real videos, 1 - |ours - real| / real, so each stands beside the real one's; no
direction is better. What differs from theirs: the points are our tracker's (smoothed, where MediaPipe's are not), and
silence is what our speech detector calls a pause (where theirs is Silero's). Compare with figures computed here only.
"""

from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.face_model import LOWER_INNER_LIP, LOWER_OUTER_LIP, UPPER_INNER_LIP, UPPER_OUTER_LIP

LIP_POINTS = sorted({*UPPER_INNER_LIP, *LOWER_INNER_LIP, *UPPER_OUTER_LIP, *LOWER_OUTER_LIP})
"""The 40 points of the lips' four lines."""

EYE_CORNERS = (33, 263)
"""Outer corners of the eyes; their distance is the unit."""

UPPER, LOWER = [191, 80, 81, 82, 13, 312, 311, 310], [95, 88, 178, 87, 14, 317, 402, 318]
"""Points of the inner lips whose difference in height is the opening."""

FIRST_FRAMES = 500
"""Lip dynamics look at no more."""

SHORTEST_SILENCE_S = 0.3


def lip_dynamics(mesh_px: Float[Tensor, "frame 478 2"]) -> float:
    """How much the shape of the lips varies: variance over time of their points' distances, mean over all pairs.

    Args:
        mesh_px: The face mesh in px of the frames, any number of them.

    Returns:
        In squares of the eyes' outer distance.
    """
    points = mesh_px[:FIRST_FRAMES].double()
    lips = points[:, LIP_POINTS]
    a, b = torch.tensor(list(combinations(range(len(LIP_POINTS)), 2))).T
    distances = (lips[:, a] - lips[:, b]).norm(dim=-1) / _eye_distance(points)[:, None]
    return float(distances.var(0, correction=0).mean())


def silent_lip_motion(
    mesh_px: Float[Tensor, "frame 478 2"], silent: Bool[np.ndarray, " frame"], width: int, height: int
) -> float | None:
    """How much the mouth opens and closes in silence: median distance of the opening from its mean.

    THEval calls it silent lip stability; 0 is a mouth that stands still.

    Args:
        mesh_px: The face mesh in px of the frames.
        silent: Which frames, see `long_silences`.
        width: Of the frames, px; they are looked at as squares, whatever their shape.
        height: Of the frames, px.

    Returns:
        In the eyes' outer distance; None where fewer than two frames are silent.
    """
    chosen = mesh_px[torch.from_numpy(silent)].double() / mesh_px.new_tensor([width, height])
    if len(chosen) < 2:
        return None
    heights = (chosen[:, UPPER, 1] - chosen[:, LOWER, 1]).abs() / _eye_distance(chosen)[:, None]
    opening = heights.mean(1).numpy()
    return float(np.median(np.abs(opening - opening.mean())))


def long_silences(quiet: Bool[np.ndarray, " frame"]) -> Bool[np.ndarray, " frame"]:
    """Of quiet frames those that stand in a row for at least 0.3 s."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(int)))
    lasting = np.zeros(len(quiet), bool)
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        lasting[first:end] = end - first >= SHORTEST_SILENCE_S * FRAME_RATE_HZ
    return lasting


def _eye_distance(points: Float[Tensor, "frame 478 2"]) -> Float[Tensor, " frame"]:
    a, b = EYE_CORNERS
    return (points[:, a] - points[:, b]).norm(dim=-1).clamp_min(1e-6)
