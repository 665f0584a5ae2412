"""Lip report: how well predicted mouth codes follow tracked ones, clip by clip and on average."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from torch import Tensor

from sdtalk.speech.audio import speech_level
from sdtalk.speech.encoder import hold_in_silence
from sdtalk.tracking.face_model import FaceModel
from training.mini.lips_data import TalkingClip
from training.mini.lips_metrics import best_lag, correlation_by_lag, count_closures_hit

REACH = 6
HIT_BELOW = 0.3
"""A closure is hit where the predicted opening falls below this part of the speaker's range."""

LIP_CORNERS = (61, 291)


@dataclass(frozen=True)
class LipScores:
    """How a predicted mouth follows a real one; the first five at the lag (in frames) with the highest r.

    Attributes:
        lag: How many frames late the prediction is.
        opening_r: Pearson's r of the opening.
        width_r: The same of the mouth's width.
        hits: Closures at which the prediction, brought to the real mean and spread, comes below 30 % of the range.
        closures: How many there are.
        level: Sum of the predicted openings at the closures, in parts of the real range.
        spread: Standard deviation of the opening over the real one's.
        pause_motion: Standard deviation of the opening in pauses, where the pipeline holds the mouth still.
    """

    lag: int
    opening_r: float
    width_r: float
    hits: int
    closures: int
    level: float
    spread: float
    pause_motion: float


def mouth_width(code: Tensor) -> np.ndarray:
    """Distance of the lip corners of mouth codes [frames, 5], in head-space units, up to a constant."""
    right, left = LIP_CORNERS
    moved = FaceModel.bundled().mouth_displacement(code)[..., 0]
    return (moved[:, left] - moved[:, right]).numpy()


def score(clip: TalkingClip, code: Tensor) -> LipScores:
    """Compare a prediction, as the pipeline would use it, with what was tracked.

    Args:
        clip: With the tracked mouth.
        code: [frames, 5] predicted mouth codes, not held in pauses.
    """
    frames = min(len(code), len(clip.mouth))
    level = speech_level(clip.audio)[:frames]
    code = hold_in_silence(code[:frames], level)
    real = clip.mouth[:frames]
    opening, tracked = code[:, 0].numpy(), real[:, 0].numpy()
    lag, r = best_lag(opening, tracked, REACH)
    width_r = correlation_by_lag(mouth_width(code), mouth_width(real), REACH)[lag]
    ahead, behind = max(lag, 0), max(-lag, 0)
    moved, wanted = opening[ahead : frames - behind], tracked[behind : frames - ahead]
    low, high = np.nanpercentile(wanted, (2, 98))
    scaled = (moved - moved.mean()) / max(moved.std(), 1e-6) * np.nanstd(wanted) + np.nanmean(wanted)
    hits, count, total = count_closures_hit((scaled - low) / (high - low), wanted, HIT_BELOW)
    still = opening[(level == 0).numpy()]
    motion = float(still.std()) if len(still) else 0.0
    return LipScores(lag, r, width_r, hits, count, total, float(moved.std() / np.nanstd(wanted)), motion)


def print_report(title: str, clips: Sequence[TalkingClip], codes: Sequence[Tensor]) -> None:
    """Print the scores of each clip and their means."""
    print(title)
    scores = [score(clip, code) for clip, code in zip(clips, codes, strict=True)]
    for clip, s in zip(clips, scores, strict=True):
        print(
            f"  {clip.name[:48]:48} opening r {s.opening_r:.2f} at {s.lag:+d}, width r {s.width_r:.2f}, "
            f"spread {s.spread:.2f}, closures {s.hits}/{s.closures}"
        )
    print(f"  mean of {len(scores)}: {summary(scores)}", flush=True)


def summary(scores: Sequence[LipScores]) -> str:
    """Means over clips; closures over all of them."""
    columns = dict(
        zip([f.name for f in fields(LipScores)], zip(*map(astuple, scores), strict=True), strict=True)
    )
    mean = {name: float(np.mean(values)) for name, values in columns.items()}
    closures = sum(columns["closures"])
    share, level = sum(columns["hits"]) / max(closures, 1), sum(columns["level"]) / max(closures, 1)
    return (
        f"opening r {mean['opening_r']:.3f}, width r {mean['width_r']:.3f}, closures hit {share:.0%} of {closures}, "
        f"opening there {level:.3f}, spread {mean['spread']:.2f}, movement in pauses {mean['pause_motion']:.3f}"
    )
