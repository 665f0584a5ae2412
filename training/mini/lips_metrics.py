"""Lip metrics: how well a predicted mouth follows a real one; curves are [frames] at 25 fps, NaN for lost faces."""

from dataclasses import dataclass

import numpy as np

REACH = 6
"""Farthest lag that is tried, in frames."""

HIT_BELOW = 0.3
"""A closure is hit where the predicted opening falls below this part of the speaker's range."""

DIP, PEAK = 0.2, 0.4
"""A closure is a dip of the opening below 20 % of the speaker's range between openings above 40 %."""


@dataclass(frozen=True)
class MouthCurves:
    """How a mouth moves, frame by frame.

    Attributes:
        opening: [frames] see `FaceModel.mouth_opening`.
        width: [frames] distance of the lip corners, head-space units, up to a constant.
    """

    opening: np.ndarray
    width: np.ndarray


@dataclass(frozen=True)
class LipScores:
    """How a predicted mouth follows a real one; all but the last at the lag (in frames) with the highest r.

    Attributes:
        lag: How many frames late the prediction is.
        opening_r: Pearson's r of the opening.
        width_r: The same of the mouth's width.
        hits: Closures at which the prediction, brought to the real mean and spread, comes below 30 % of the range.
        closures: How many there are.
        level: Sum of the predicted openings at the closures, brought to the real mean and spread, in parts of the real
            range: grows wherever the prediction errs, also where its lips do meet.
        own_level: The same sum of the openings as they are, in parts of the prediction's own range: how far its lips
            stay apart.
        spread: Standard deviation of the opening over the real one's.
        pause_motion: Standard deviation of the opening in pauses.
    """

    lag: int
    opening_r: float
    width_r: float
    hits: int
    closures: int
    level: float
    own_level: float
    spread: float
    pause_motion: float


def compare_mouths(predicted: MouthCurves, real: MouthCurves, quiet: np.ndarray) -> LipScores:
    """Compare a mouth with a real one that moves.

    Args:
        predicted: As many frames as `real`, none of them lost.
        real: The speaker's.
        quiet: [frames] where nobody speaks.
    """
    opening, tracked, frames = predicted.opening, real.opening, len(real.opening)
    lag, r = best_lag(opening, tracked, REACH)
    width_r = correlation_by_lag(predicted.width, real.width, REACH)[lag]
    ahead, behind = max(lag, 0), max(-lag, 0)
    moved, wanted = opening[ahead : frames - behind], tracked[behind : frames - ahead]
    low, high = np.nanpercentile(wanted, (2, 98))
    scaled = (moved - moved.mean()) / max(moved.std(), 1e-6) * np.nanstd(wanted) + np.nanmean(wanted)
    hits, count, total = count_closures_hit((scaled - low) / (high - low), wanted, HIT_BELOW)
    least, most = np.percentile(moved, (2, 98))
    _, _, own_total = count_closures_hit((moved - least) / max(most - least, 1e-6), wanted, HIT_BELOW)
    motion = float(opening[quiet].std()) if quiet.any() else 0.0
    spread = float(moved.std() / np.nanstd(wanted))
    return LipScores(lag, r, width_r, hits, count, total, own_total, spread, motion)


def correlation(predicted: np.ndarray, real: np.ndarray) -> float:
    """Pearson's r over the frames both have; 0 if one of them does not move."""
    both = np.isfinite(predicted) & np.isfinite(real)
    a, b = predicted[both], real[both]
    if len(a) < 3 or a.std() < 1e-6 or b.std() < 1e-6:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def correlation_by_lag(predicted: np.ndarray, real: np.ndarray, reach: int) -> dict[int, float]:
    """Tell r for each lag: 2 compares the prediction with the mouth two frames earlier (sound late)."""
    frames = min(len(predicted), len(real))
    predicted, real = predicted[:frames], real[:frames]
    scores = {}
    for lag in range(-reach, reach + 1):
        early, late = max(0, -lag), max(0, lag)
        scores[lag] = correlation(predicted[late : frames - early], real[early : frames - late])
    return scores


def best_lag(predicted: np.ndarray, real: np.ndarray, reach: int = 6) -> tuple[int, float]:
    """The lag with the highest r, and that r."""
    scores = correlation_by_lag(predicted, real, reach)
    lag = max(scores, key=lambda k: (scores[k], -abs(k)))
    return lag, scores[lag]


def closures(opening: np.ndarray) -> np.ndarray:
    """Frames at the bottom of dips: lips that meet within speech. An opening is measured by its own range."""
    low, high = np.nanpercentile(opening, (2, 98))
    level = (opening - low) / max(high - low, 1e-6)
    found, start = [], None
    for t, value in enumerate(level):
        if value > PEAK:
            if start is not None and np.nanmin(level[start:t]) < DIP and t - start <= 10:
                found.append(start + int(np.nanargmin(level[start:t])))
            start = t
    return np.array(found, dtype=int)


def count_closures_hit(predicted: np.ndarray, real: np.ndarray, below: float) -> tuple[int, int, float]:
    """Real closures at which the predicted opening falls below a value within a frame; all; its mean there."""
    at = closures(real)
    lows = np.array([predicted[max(t - 1, 0) : t + 2].min() for t in at])
    return int((lows < below).sum()), len(at), float(lows.sum())
