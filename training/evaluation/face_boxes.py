"""Face boxes: what people look at first, the mouth and each eye, as boxes of the picture found on the real frame."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from sdtalk.rendering.face_windows import MOUTH
from sdtalk.tracking.completion import LID_RINGS
from sdtalk.tracking.face_model import LOWER_LIDS, UPPER_LIDS, FaceModel
from training.image_metrics import box_around

SMALLEST_BOX_PX = 8
"""SSIM looks at windows of 7 px; what is smaller is not measured."""

OUTER_LIPS, INNER_LIP_RING = list(MOUTH.outline), list(MOUTH.opening)
"""Points of the lips once around, closed polygons."""

UPPER_CREASE, LOWER_CREASE = LID_RINGS[9:16], LID_RINGS[1:8]
"""Mesh points of the subject's right eye above the upper lid, along its crease, and below the lower lid."""


@dataclass(frozen=True)
class FaceBoxes:
    """Boxes of a face in every frame: x_min, y_min, x_max, y_max in whole px within the picture, the last exclusive.

    Attributes:
        mouth: Around the outer lips.
        eyes: Around the lids and their creases; the subject's right eye, then the left one.
    """

    mouth: Int[np.ndarray, "frame 4"]
    eyes: Int[np.ndarray, "frame 2 4"]


def face_boxes(mesh_px: Float[Tensor, "frame 478 2"], width: int, height: int) -> FaceBoxes:
    """Find the boxes of tracked faces.

    Args:
        mesh_px: The face mesh in px of the frames.
        width: Of the frames, px.
        height: Of the frames, px.
    """
    eyes = [box_around(mesh_px[:, points], width, height) for points in eye_points()]
    return FaceBoxes(box_around(mesh_px[:, OUTER_LIPS], width, height), np.stack(eyes, axis=1))


def eye_points() -> tuple[list[int], list[int]]:
    """Mesh points of lids and creases: of the subject's right eye, then of the left one."""
    right = sorted({*UPPER_LIDS[0], *LOWER_LIDS[0], *UPPER_CREASE, *LOWER_CREASE})
    return right, FaceModel.bundled().mirror[right].tolist()


def cut(
    picture: UInt8[np.ndarray, "height width 3"], box: Int[np.ndarray, " 4"]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """A box of a picture; what a moved box has beyond the border is the border's pixels."""
    x = np.arange(box[0], box[2]).clip(0, picture.shape[1] - 1)
    y = np.arange(box[1], box[3]).clip(0, picture.shape[0] - 1)
    return picture[y[:, None], x]


def large_enough(box: Int[np.ndarray, " 4"]) -> bool:
    """Whether a box can be measured."""
    return bool(min(box[2] - box[0], box[3] - box[1]) >= SMALLEST_BOX_PX)


def inside_polygon(
    corners: Float[np.ndarray, "corner 2"], box: Int[np.ndarray, " 4"]
) -> Bool[np.ndarray, "rows columns"]:
    """Which pixels of a box have their centre inside a closed polygon, by the even-odd rule.

    Args:
        corners: In px of the picture.
        box: Whose pixels are asked for.
    """
    x = (np.arange(box[0], box[2]) + 0.5)[None, :]
    y = (np.arange(box[1], box[3]) + 0.5)[:, None]
    inside = np.zeros((y.shape[0], x.shape[1]), bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return inside
