"""Tests of the 68 landmarks from the face mesh, and of the published eye and lip numbers (fixture k)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.landmarks68 import (
    BROWS,
    CONTOUR,
    EYES,
    INNER_LIP,
    MESH_NUMBERS,
    NOSE,
    OUTER_LIP,
    PUPIL_MESH_NUMBERS,
    eye_numbers_px,
    landmarks68,
    landmarks70,
    lip_box_px,
)

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "k_loader.npz")
FACE = FaceModel.bundled()

# The other side's landmark of each, as the annotation is defined.
MIRRORED = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
    *(69, 68),
]


@pytest.mark.parametrize("case", ["float0", "float1", "int0", "int1"])
def test_eye_numbers_and_lip_box_are_the_published_ones(case: str) -> None:
    landmarks = torch.from_numpy(FIXTURE[f"{case}_landmarks"])[None]
    assert eye_numbers_px(landmarks, truncated=True)[0].tolist() == FIXTURE[f"{case}_eye"].tolist()
    assert lip_box_px(landmarks)[0].tolist() == FIXTURE[f"{case}_lipbox"].tolist()


def test_whole_eye_numbers_differ_from_cut_ones_by_less_than_a_pixel() -> None:
    landmarks = torch.from_numpy(FIXTURE["float0_landmarks"])[None]
    lost = eye_numbers_px(landmarks) - eye_numbers_px(landmarks, truncated=True)
    assert (lost >= 0).all() and (lost < 1).all() and (lost > 0).any()


def test_left_and_right_landmarks_mirror_each_other() -> None:
    numbers = torch.tensor(MESH_NUMBERS + PUPIL_MESH_NUMBERS)
    assert len(set(numbers.tolist())) == 70
    assert FACE.mirror[numbers].tolist() == numbers[MIRRORED].tolist()


def test_landmarks_lie_in_the_order_of_the_annotation() -> None:
    points = landmarks68(FACE.mean_face[None])[0]
    right_to_left = [
        CONTOUR,
        BROWS,
        slice(31, 36),
        slice(36, 40),
        slice(42, 46),
        slice(48, 55),
        slice(60, 65),
    ]
    for part in right_to_left:
        assert (points[part, 0].diff() > 0).all(), part
    for part in [slice(39, 42), slice(45, 48), slice(54, 60), slice(64, 68)]:
        assert (points[part, 0].diff() < 0).all(), part
    assert (points[0:9, 1].diff() < 0).all() and (points[8:17, 1].diff() > 0).all()
    assert (points[27:31, 1].diff() < 0).all(), "down the ridge of the nose"
    assert points[NOSE, 2].argmax() == 3, "its tip is foremost"
    heights = [points[part, 1].mean() for part in (BROWS, EYES, NOSE, OUTER_LIP)]
    assert heights == sorted(heights, reverse=True)
    for outer, inner in ((51, 62), (57, 66), (48, 60), (54, 64)):
        middle = points[INNER_LIP, :2].mean(0)
        assert (points[outer, :2] - middle).norm() > (points[inner, :2] - middle).norm()


def test_points_along_a_line_are_spread_evenly() -> None:
    points = landmarks68(FACE.mean_face[None])[0]
    for part in (CONTOUR, slice(27, 31), slice(48, 55), slice(60, 65)):
        steps = points[part].diff(dim=0).norm(dim=1)
        assert steps.max() < 2.6 * steps.min(), part


def test_pupils_lie_between_the_corners_of_their_eyes() -> None:
    points = landmarks70(FACE.mean_face[None])[0]
    for pupil, outer, inner in ((68, 36, 39), (69, 45, 42)):
        share = (points[pupil, 0] - points[outer, 0]) / (points[inner, 0] - points[outer, 0])
        assert 0.3 < share < 0.7


def test_eyes_and_lips_of_the_average_face_in_a_picture() -> None:
    """A face 10 units away that looks into the camera: 307.2 px a unit, y down."""
    points = landmarks68(FACE.mean_face[None])
    px = points[..., :2] * torch.tensor([307.2, -307.2]) + 256
    numbers = eye_numbers_px(px)[0]
    torch.testing.assert_close(numbers[:3], numbers[[4, 3, 5]], msg="the two eyes in their two orders")
    assert (numbers > 0).all() and numbers[2] > 3 * numbers[0]
    top, bottom, left, right = lip_box_px(px)[0].tolist()
    assert bottom - top == right - left and left + right == pytest.approx(512, abs=2)
    assert abs(left - px[0, 48, 0]) <= 2 and abs(right - px[0, 54, 0]) <= 2
