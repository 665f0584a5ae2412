"""68 landmarks: the common set, taken from our face mesh, and what the published code reads from them.

The order is that of the iBUG 300-W annotation: contour 0-16, brows 17-26, nose 27-35, eyes 36-47, outer lip 48-59,
inner lip 60-67, each from the subject's right to the left. FLAME's landmarks follow it, some with two pupils behind.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from sdtalk.tracking.face_model import IRIS_CENTRES

LANDMARKS = 68

CONTOUR, BROWS, NOSE, EYES = slice(0, 17), slice(17, 27), slice(27, 36), slice(36, 48)
OUTER_LIP, INNER_LIP, PUPILS = slice(48, 60), slice(60, 68), slice(68, 70)

_RIGHT_CONTOUR = [127, 234, 93, 58, 172, 136, 150, 176, 152]
_LEFT_CONTOUR = [400, 379, 365, 397, 288, 323, 454, 356]

# Where the 68 points are spread evenly along a line (contour, lips, ridge of the nose), the mesh point is the one
# nearest to the even spacing on the average face; elsewhere it is the same feature of the face.
MESH_NUMBERS = [
    *(_RIGHT_CONTOUR + _LEFT_CONTOUR),
    *(70, 63, 105, 66, 107),  # right brow
    *(336, 296, 334, 293, 300),  # left brow
    *(168, 197, 5, 4),  # ridge of the nose, to the tip
    *(75, 97, 2, 326, 305),  # under the nose
    *(33, 160, 158, 133, 153, 144),  # right eye: outer corner, upper lid, inner corner, lower lid
    *(362, 385, 387, 263, 373, 380),  # left eye: inner corner, upper lid, outer corner, lower lid
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    *(78, 81, 13, 311, 308, 402, 14, 178),
]
"""For each of the 68 landmarks its point of the face mesh."""

PUPIL_MESH_NUMBERS = list(IRIS_CENTRES)
"""Landmarks 68 and 69 of the sets that have them."""

FIRST_MESH_LANDMARK = PUPILS.stop
"""From here on a landmark's number is this plus that of a point of the face mesh."""

# Of the right eye outer lid gap, inner lid gap, width; of the left eye INNER lid gap, outer lid gap, width.
_EYE_ENDS = [(41, 37), (40, 38), (39, 36), (47, 43), (46, 44), (45, 42)]
_EYE_AXES = [1, 1, 0, 1, 1, 0]


def landmarks68(points: Float[Tensor, "batch 478 axis"]) -> Float[Tensor, "batch 68 axis"]:
    """Pick the 68 landmarks out of face meshes, in whatever units and space they are."""
    return points[:, MESH_NUMBERS]


def landmarks70(points: Float[Tensor, "batch 478 axis"]) -> Float[Tensor, "batch 70 axis"]:
    """The 68 landmarks and the pupils."""
    return points[:, MESH_NUMBERS + PUPIL_MESH_NUMBERS]


def all_landmarks(points: Float[Tensor, "batch 478 axis"]) -> Float[Tensor, "batch 548 axis"]:
    """The 68 landmarks, the pupils, and then every point of the mesh by its own number."""
    return torch.cat([landmarks70(points), points], dim=1)


def eye_numbers_px(
    landmarks: Shaped[Tensor, "batch landmark 2"], truncated: bool = False
) -> Float[Tensor, "batch 6"]:
    """The eye state of the published code: heights and widths of the eyes in the picture.

    Unlike `sdtalk.tracking.face_model.eye_state` the left eye's inner lid gap stands before its outer one
    (reference section 6, "Conditions"; fixture k).

    Args:
        landmarks: At least the 68, in px of the 512 px crop.
        truncated: Cut to whole px, towards zero, as the published code does.

    Returns:
        For the right eye the outer and inner lid gap and the width, for the left eye inner, outer, width.
    """
    columns = [
        landmarks[:, a, axis] - landmarks[:, b, axis]
        for (a, b), axis in zip(_EYE_ENDS, _EYE_AXES, strict=True)
    ]
    numbers = torch.stack(columns, dim=1)
    numbers = numbers if numbers.is_floating_point() else numbers.to(torch.float32)
    return numbers.trunc() if truncated else numbers


def lip_box_px(landmarks: Shaped[Tensor, "batch landmark 2"]) -> Int[Tensor, "batch 4"]:
    """The square around the lips that the published lip loss looks at (reference section 6, "Stage 2").

    It has no margin: its half side is half of the longer side of the box of the outer lip, in whole px. It may reach
    over the border of the picture where the lips do.

    Returns:
        First row, last row + 1, first column, last column + 1.
    """
    lip = landmarks[:, OUTER_LIP].long()
    low, high = lip.amin(dim=1), lip.amax(dim=1)
    half = (high - low).amax(dim=1) // 2
    column, row = ((low + high) // 2).unbind(1)
    return torch.stack([row - half, row + half, column - half, column + half], dim=1)
