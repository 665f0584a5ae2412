"""Audio offset: how late a video's sound is, where predicted and tracked mouth openings correlate best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sdtalk.checkpoint import load_model
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.speech.encoder import SpeechEncoder
from training.mini.lips_metrics import correlation_by_lag
from training.preparation.settings import SyncSettings

FRAME_MS = 1000 / FRAME_RATE_HZ
LEAST_FRAMES = 40
"""Shorter clips are not compared: over few frames noise correlates, too."""

LEAST_MOTION = 0.05
"""Nor are clips in which the mouth's opening has a smaller standard deviation: it does not speak."""

OpeningPredictor = Callable[[torch.Tensor], Float[np.ndarray, " frame"]]
"""From samples (640 a frame) to the opening of the mouth that they let expect."""


@dataclass(frozen=True)
class AudioOffset:
    """How far a video's sound is off.

    Attributes:
        late_ms: Move the sound earlier by so much.
        source: "manifest", "measured", or "none" where it could not be told.
        r: Correlation of the predicted and the seen opening after that; None where there is nothing to compare.
        r_before: The same before.
    """

    late_ms: float
    source: str
    r: float | None
    r_before: float | None


def bundled_opening_predictor() -> OpeningPredictor:
    """Predicts openings with the audio encoder of the bundled model."""
    encoder = SpeechEncoder.for_model(load_model("mini"), "cpu")

    def predict(samples: torch.Tensor) -> np.ndarray:
        return encoder.codes(samples)[:, 0].numpy()

    return predict


def estimate_audio_offset(
    predicted: Sequence[Float[np.ndarray, " frame"]],
    seen: Sequence[Float[np.ndarray, " frame"]],
    known_ms: float | None,
    sync: SyncSettings,
) -> AudioOffset:
    """Estimate how late the sound of a video is from all its clips together.

    Args:
        predicted: For each clip the opening its uncorrected sound lets expect.
        seen: And the tracked one.
        known_ms: What is known already; it is believed.
        sync: What counts as found.
    """
    scores = scores_by_lag(predicted, seen, sync.reach_frames)
    if scores is None:
        return AudioOffset(known_ms or 0.0, "none" if known_ms is None else "manifest", None, None)
    if known_ms is not None:
        at = min(max(known_ms / FRAME_MS, -sync.reach_frames), sync.reach_frames)
        r = float(np.interp(at, list(scores), list(scores.values())))
        return AudioOffset(known_ms, "manifest", r, scores[0])
    best = max(scores, key=lambda lag: (scores[lag], -abs(lag)))
    if scores[best] < sync.least_r:
        return AudioOffset(0.0, "none", scores[0], scores[0])
    if scores[best] - scores[0] < sync.gain:
        return AudioOffset(0.0, "measured", scores[0], scores[0])
    late_ms = round((best + _peak(scores, best)) * FRAME_MS, -1)
    return AudioOffset(late_ms, "measured", scores[best], scores[0])


def scores_by_lag(
    predicted: Sequence[np.ndarray], seen: Sequence[np.ndarray], reach: int
) -> dict[int, float] | None:
    """Mean correlation over a video's clips, by their lengths, for each lag in frames; positive: sound late."""
    total: dict[int, float] = dict.fromkeys(range(-reach, reach + 1), 0.0)
    frames = 0
    for expected, opening in zip(predicted, seen, strict=True):
        if len(opening) < LEAST_FRAMES or opening.std() < LEAST_MOTION or np.ptp(expected) < 1e-3:
            continue
        for lag, r in correlation_by_lag(expected, opening, reach).items():
            total[lag] += r * len(opening)
        frames += len(opening)
    return {lag: r / frames for lag, r in total.items()} if frames else None


def _peak(scores: dict[int, float], lag: int) -> float:
    """Where the parabola through the best lag and its neighbours has its top, in frames from that lag."""
    if lag - 1 not in scores or lag + 1 not in scores:
        return 0.0
    before, top, after = scores[lag - 1], scores[lag], scores[lag + 1]
    return 0.5 * (before - after) / min(before - 2 * top + after, -1e-9)
