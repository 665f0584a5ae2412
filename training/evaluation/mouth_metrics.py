"""Mouth metrics: how the mouth of the rendered frames follows the real one, both as our tracker sees them.

Opening, width (rounding) and closures are compared as `training.mini.lips_metrics` compares them; there the mouth codes
that a model hears, here what is to be seen.
"""

import numpy as np
import torch
from jaxtyping import Bool

from sdtalk.speech.audio import speech_level
from training.evaluation.metrics import RenderedClip, Scores
from training.evaluation.theval import lip_dynamics, long_silences, silent_lip_motion
from training.evaluation.tracked_face import FacePair, TrackedFaces, both_faces
from training.image_metrics import best_lag_correlation
from training.mini.lips_metrics import REACH, compare_mouths
from training.mini.lips_report import mouth_curves

STILL = 1e-6
FOLLOWING = ("mouth_correlation", "mouth_lag_frames")
CLOSURES = ("closures_hit", "closure_opening", "closure_own_opening", "closures")
SILENCE = ("silence_motion", "silence_motion_real", "silent_lips", "silent_lips_real")
DYNAMICS = ("lip_dynamics", "lip_dynamics_real")


def measure_mouth(clip: RenderedClip, faces: TrackedFaces, scores: Scores) -> None:
    """Opening, width, closures, and movement in silence."""
    names = (*FOLLOWING, "mouth_spread", "mouth_width_correlation", *CLOSURES, *SILENCE, *DYNAMICS)
    if not (clip.own_speech or clip.measured_codes):
        return scores.skip("the clip has no sound of the speaker's own", *names)
    if (pair := both_faces(faces, scores, *names)) is None:
        return None
    _following(pair, scores)
    _silence(clip, pair, scores)
    for name, face in zip(DYNAMICS, (pair.predicted, pair.real), strict=True):
        scores.metrics[name] = lip_dynamics(face.mesh_px)
    return None


def _following(pair: FacePair, scores: Scores) -> None:
    ours, real = pair.predicted.opening, pair.real.opening
    if real.std() < STILL:
        names = (*FOLLOWING, "mouth_spread", "mouth_width_correlation", *CLOSURES)
        return scores.skip("the real mouth stands still", *names)
    scores.metrics["mouth_spread"] = float(ours.std() / real.std())
    correlation, lag = best_lag_correlation(ours, real, REACH)
    if lag is None:
        reason = "the predicted mouth stands still, or the clip is too short"
        return scores.skip(reason, *FOLLOWING, "mouth_width_correlation", *CLOSURES)
    scores.metrics |= {"mouth_correlation": correlation, "mouth_lag_frames": float(lag)}
    if len(real) <= 2 * REACH:
        return scores.skip("the clip is too short", "mouth_width_correlation", *CLOSURES)
    nowhere = np.zeros(len(real), bool)
    found = compare_mouths(mouth_curves(pair.predicted.mouth), mouth_curves(pair.real.mouth), nowhere)
    scores.metrics["mouth_width_correlation"] = found.width_r
    if found.closures == 0:
        return scores.skip("the real lips never meet between two open mouths", *CLOSURES)
    shares = (number / found.closures for number in (found.hits, found.level, found.own_level))
    scores.metrics |= dict(zip(CLOSURES, (*shares, float(found.closures)), strict=True))
    return None


def _silence(clip: RenderedClip, pair: FacePair, scores: Scores) -> None:
    if clip.samples is None:
        return scores.skip("the clip has no sound", *SILENCE)
    quiet = _quiet(clip)
    if quiet.sum() < 2:
        return scores.skip("nobody is silent in the clip", *SILENCE)
    lasting = long_silences(quiet)
    height, width = clip.real[0].shape[:2]
    for suffix, face in (("", pair.predicted), ("_real", pair.real)):
        scores.metrics[f"silence_motion{suffix}"] = float(face.opening[quiet].std())
        motion = silent_lip_motion(face.mesh_px, lasting, width, height)
        if motion is None:
            scores.skip("no silence of the clip lasts for .3 s", f"silent_lips{suffix}")
        else:
            scores.metrics[f"silent_lips{suffix}"] = motion
    return None


def _quiet(clip: RenderedClip) -> Bool[np.ndarray, " frame"]:
    """Frames at which nobody speaks, where the sound reaches them."""
    quiet = np.zeros(len(clip.real), bool)
    assert clip.samples is not None
    level = speech_level(torch.from_numpy(np.ascontiguousarray(clip.samples)).float())[: len(quiet)]
    quiet[: len(level)] = (level == 0).numpy()
    return quiet
