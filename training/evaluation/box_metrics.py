"""Box metrics: how near mouth and eyes come to the real ones, and how sharp they are.

The boxes are those of the real frame (`face_boxes`), so that a prediction cannot choose where it is looked at.
Sharpness is the energy of the gradient (squares of the differences of neighbouring pixels) of the predicted box over
that of the real one: 1 is as sharp, below is blurred, above is torn or noisy. Beside the prediction stands the first
frame: as it is ("frozen"), and moved so that the middle of its mouth comes to that of the real one ("shifted"). Where
a head moves, the frozen frame is easily beaten: the shifted one is the baseline that tells something of the mouth.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from training.evaluation.face_boxes import (
    INNER_LIP_RING,
    FaceBoxes,
    cut,
    face_boxes,
    inside_polygon,
    large_enough,
)
from training.evaluation.metrics import RenderedClip, Scores
from training.evaluation.tracked_face import FacePair, TrackedFaces, both_faces
from training.image_metrics import psnr, relative_sharpness, ssim

OPENED = 0.25
"""A mouth counts as opened (closed) where its opening is by so much larger (smaller) than that of the source frame."""

OPEN = 0.3
"""Mouths that are farther open show their inside."""

MOUTH = (
    "mouth_psnr", "mouth_psnr_frozen", "mouth_psnr_gain", "mouth_psnr_shifted", "mouth_psnr_gain_shifted", "mouth_ssim",
    "mouth_ssim_frozen",
)  # fmt: skip
SHARPNESS = ("mouth_sharpness", "mouth_sharpness_opening", "mouth_sharpness_closing")
INSIDE = ("inner_lips_l1", "inner_lips_l1_shifted")
EYES = ("eyes_psnr", "eyes_psnr_frozen", "eyes_ssim", "eyes_ssim_frozen", "eyes_sharpness")  # fmt: skip

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class BoxScores:
    """One kind of box, frame by frame; NaN where it is too small, or where the real one has no gradient.

    Attributes:
        psnr: Of the prediction, dB.
        psnr_frozen: Of the first frame, dB.
        psnr_shifted: Of the first frame's box of the same size, moved to where the real one is; dB.
        ssim: Of the prediction.
        ssim_frozen: Of the first frame.
        sharpness: Energy of the gradient over the real one's.
    """

    psnr: Float[np.ndarray, " frame"]
    psnr_frozen: Float[np.ndarray, " frame"]
    psnr_shifted: Float[np.ndarray, " frame"]
    ssim: Float[np.ndarray, " frame"]
    ssim_frozen: Float[np.ndarray, " frame"]
    sharpness: Float[np.ndarray, " frame"]


def compare_boxes(clip: RenderedClip, boxes: Int[np.ndarray, "frame 4"], frames: Iterable[int]) -> BoxScores:
    """Measure a box in some frames of a clip.

    Args:
        clip: Predicted and real frames.
        boxes: Of the real frames, one each; the first is the source's.
        frames: Which ones.
    """
    rows = []
    for i in frames:
        if not large_enough(boxes[i]):
            rows.append([np.nan] * 6)
            continue
        real, ours, frozen = (cut(p, boxes[i]) for p in (clip.real[i], clip.predicted[i], clip.real[0]))
        shifted = cut(clip.real[0], boxes[i] + shift_to(boxes[0], boxes[i]))
        rows.append(
            [psnr(ours, real), psnr(frozen, real), psnr(shifted, real), ssim(ours, real), ssim(frozen, real),
             relative_sharpness(ours, real)]
        )  # fmt: skip
    return BoxScores(*np.array(rows).reshape(-1, 6).T)


def shift_to(first: Int[np.ndarray, " 4"], box: Int[np.ndarray, " 4"]) -> Int[np.ndarray, " 4"]:
    """What is added to a box so that it lies in the middle of the first one; whole px."""
    shift = (first[:2] + first[2:] - box[:2] - box[2:]) // 2
    return np.concatenate([shift, shift])


def measure_boxes(clip: RenderedClip, faces: TrackedFaces, scores: Scores) -> None:
    """PSNR, SSIM and sharpness of mouth and eyes, and the error between the lips."""
    names = (*MOUTH, *SHARPNESS, *INSIDE, *EYES)
    if clip.source is not None:
        return scores.skip("another person is shown: there is no real frame to compare with", *names)
    if len(clip.real) < 2:
        return scores.skip("the clip has one frame, which is the source", *names)
    if (pair := both_faces(faces, scores, *names)) is None:
        return None
    height, width = clip.real[0].shape[:2]
    boxes = face_boxes(pair.real.mesh_px, width, height)
    _mouth(clip, pair, boxes, scores)
    _inside(clip, pair, boxes, scores)
    _eyes(clip, boxes, scores)
    return None


def _mouth(clip: RenderedClip, pair: FacePair, boxes: FaceBoxes, scores: Scores) -> None:
    found = compare_boxes(clip, boxes.mouth, range(1, len(clip.real)))
    values = (
        found.psnr, found.psnr_frozen, found.psnr - found.psnr_frozen, found.psnr_shifted,
        found.psnr - found.psnr_shifted, found.ssim, found.ssim_frozen,
    )  # fmt: skip
    small = "the mouth is too small in the picture"
    for name, value in zip(MOUTH, values, strict=True):
        _average(name, value, np.mean, small, scores)
    change = pair.real.opening[1:] - pair.real.opening[0]
    every = np.ones(len(change), bool)
    reasons = (small, "the real mouth never opens farther than in the source by .25 of opening",
               "the real mouth never closes from the source's state by .25 of opening")  # fmt: skip
    for name, chosen, reason in zip(
        SHARPNESS, (every, change > OPENED, change < -OPENED), reasons, strict=True
    ):
        _average(name, found.sharpness[chosen], np.median, reason, scores)


def _inside(clip: RenderedClip, pair: FacePair, boxes: FaceBoxes, scores: Scores) -> None:
    rings = pair.real.mesh_px[:, INNER_LIP_RING].numpy()
    errors = []
    for i in range(1, len(clip.real)):
        if pair.real.opening[i] <= OPEN:
            continue
        box = boxes.mouth[i]
        inside = inside_polygon(rings[i], box)
        if not inside.any():
            continue
        real = cut(clip.real[i], box)[inside].astype(np.float32)
        shifted = cut(clip.real[0], box + shift_to(boxes.mouth[0], box))
        errors.append([np.abs(p[inside] - real).mean() for p in (cut(clip.predicted[i], box), shifted)])
    for name, value in zip(INSIDE, np.array(errors).reshape(-1, 2).T, strict=True):
        _average(name, value, np.mean, "the real mouth never opens farther than .3", scores)


def _eyes(clip: RenderedClip, boxes: FaceBoxes, scores: Scores) -> None:
    frames = range(1, len(clip.real))
    both = [compare_boxes(clip, boxes.eyes[:, side], frames) for side in range(2)]

    def mean(kind: str) -> np.ndarray:
        return np.mean([getattr(one, kind) for one in both], axis=0)

    for name in EYES:
        kind = name.removeprefix("eyes_")
        how = np.median if kind == "sharpness" else np.mean
        _average(name, mean(kind), how, "the eyes are too small in the picture", scores)


def _average(
    name: str, values: np.ndarray, how: Callable[[np.ndarray], np.floating], reason: str, scores: Scores
) -> None:
    """Mean or median of the frames that have a value; the reason where none has."""
    known = values[np.isfinite(values)]
    if len(known):
        scores.metrics[name] = float(how(known))
    else:
        scores.skip(reason, name)
