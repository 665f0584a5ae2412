"""Lip report: how well predicted mouth codes follow tracked ones, clip by clip and on average."""

from collections.abc import Sequence
from dataclasses import astuple, fields

import numpy as np
from torch import Tensor

from sdtalk.speech.audio import speech_level
from sdtalk.speech.encoder import hold_in_silence
from sdtalk.tracking.face_model import FaceModel
from training.mini.lips_data import TalkingClip
from training.mini.lips_metrics import LipScores, MouthCurves, compare_mouths

LIP_CORNERS = (61, 291)


def mouth_width(code: Tensor) -> np.ndarray:
    """Distance of the lip corners of mouth codes [frames, 5], in head-space units, up to a constant."""
    right, left = LIP_CORNERS
    moved = FaceModel.bundled().mouth_displacement(code)[..., 0]
    return (moved[:, left] - moved[:, right]).numpy()


def mouth_curves(code: Tensor) -> MouthCurves:
    """What is compared of mouth codes [frames, 5]."""
    return MouthCurves(code[:, 0].numpy(), mouth_width(code))


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
    return compare_mouths(mouth_curves(code), mouth_curves(real), (level == 0).numpy())


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
    share, level, own = (sum(columns[n]) / max(closures, 1) for n in ("hits", "level", "own_level"))
    return (
        f"opening r {mean['opening_r']:.3f}, width r {mean['width_r']:.3f}, closures hit {share:.0%} of {closures}, "
        f"opening there {level:.3f}, of its own range {own:.3f}, spread {mean['spread']:.2f}, "
        f"movement in pauses {mean['pause_motion']:.3f}"
    )
