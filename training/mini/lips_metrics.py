"""Lip metrics: how well a predicted mouth follows a real one; curves are [frames] at 25 fps, NaN for lost faces."""

import numpy as np

DIP, PEAK = 0.2, 0.4
"""A closure is a dip of the opening below 20 % of the speaker's range between openings above 40 %."""


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
