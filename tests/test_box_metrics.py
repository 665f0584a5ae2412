"""Tests of the boxes of mouth and eyes, and of what is measured in them: independent references, and limits."""

import numpy as np
import pytest
import torch
from made_up_clips import wandering
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from sdtalk.tracking.tracker import Tracker
from training.evaluation.box_metrics import (
    EYES,
    INSIDE,
    MOUTH,
    SHARPNESS,
    measure_boxes,
    shift_to,
)
from training.evaluation.face_boxes import OUTER_LIPS, cut, eye_points, face_boxes, inside_polygon
from training.evaluation.metrics import RenderedClip, Scores
from training.evaluation.tracked_face import TrackedFace, TrackedFaces, track_face
from training.image_metrics import BOX_MARGIN, gradient_energy, psnr

FRAMES = np.stack(wandering(4))
HEIGHT, WIDTH = FRAMES.shape[1:3]


@pytest.fixture(scope="module")
def seen() -> TrackedFace:
    return track_face(Tracker.from_bundled(), FRAMES, "frames")


def measured(predicted: np.ndarray, real: TrackedFace | str, frames: np.ndarray = FRAMES) -> Scores:
    scores, faces = Scores(), TrackedFaces(predicted=real, real=real)
    measure_boxes(RenderedClip("clip", predicted, frames, None, True), faces, scores)
    assert scores.metrics.keys() | scores.missing.keys() == {*MOUTH, *SHARPNESS, *INSIDE, *EYES}
    return scores


def opened(face: TrackedFace, openings: list[float]) -> TrackedFace:
    """The same points, said to be open so far."""
    mouth = face.mouth.clone()
    mouth[:, 0] = torch.tensor(openings)
    return TrackedFace(face.mesh_px, mouth, face.side_px)


def test_boxes_hold_their_points_and_a_margin_within_the_picture(seen: TrackedFace) -> None:
    boxes = face_boxes(seen.mesh_px, WIDTH, HEIGHT)
    for box, points in zip(boxes.mouth, seen.mesh_px[:, OUTER_LIPS].numpy(), strict=True):
        low, high = points.min(0), points.max(0)
        margin = BOX_MARGIN * (high[0] - low[0])
        wanted = [*(low - margin), *(high + margin)]
        assert (
            np.abs(box - wanted).max() <= 1
            and (box[:2] <= wanted[:2]).all()
            and (box[2:] >= wanted[2:]).all()
        )
    right, left = boxes.eyes[:, 0], boxes.eyes[:, 1]
    assert (right[:, 2] < left[:, 0]).all() and (boxes.eyes[..., 3] < boxes.mouth[:, None, 1]).all()
    assert not set(eye_points()[0]) & set(eye_points()[1])
    beyond = face_boxes(seen.mesh_px - torch.tensor([WIDTH / 2, HEIGHT / 2]), WIDTH, HEIGHT)
    assert min(beyond.mouth.min(), beyond.eyes.min()) >= 0


def test_a_moved_box_repeats_the_border() -> None:
    picture = FRAMES[0]
    assert np.array_equal(cut(picture, np.array([5, 6, 25, 20])), picture[6:20, 5:25])
    beyond = cut(picture, np.array([-3, 0, 4, 2]))
    assert beyond.shape == (2, 7, 3) and (beyond[:, :3] == picture[:2, :1]).all()
    box, first = np.array([10, 20, 30, 30]), np.array([40, 20, 62, 34])
    moved = box + shift_to(first, box)
    assert np.array_equal(moved[2:] - moved[:2], [20, 10])
    assert np.abs(moved.reshape(2, 2).mean(0) - first.reshape(2, 2).mean(0)).max() <= 0.5


def test_pixels_inside_a_polygon_are_those_that_are_drawn_finely() -> None:
    corners = np.random.default_rng(0).uniform(5, 35, (7, 2))
    box, fine = np.array([0, 0, 40, 40]), 16
    image = Image.new("L", (40 * fine, 40 * fine))
    ImageDraw.Draw(image).polygon([tuple(c) for c in corners * fine], fill=1)
    drawn = np.asarray(image)[fine // 2 :: fine, fine // 2 :: fine].astype(bool)
    ours = inside_polygon(np.round(corners * fine) / fine, box)
    assert 50 < ours.sum() < 1000
    if not (
        drawn == ours
    ).all():  # Pillow fills a self-crossing polygon by the same rule; borders are drawn, too
        assert (drawn != ours).sum() <= 3
    assert np.array_equal(
        ours[10:30, 12:33], inside_polygon(np.round(corners * fine) / fine, np.array([12, 10, 33, 30]))
    )


def test_gradient_energy_of_a_ramp_and_of_white_noise() -> None:
    ramp = np.tile(np.arange(20, dtype=np.uint8)[None, :, None] * 3, (8, 1, 3))
    assert gradient_energy(ramp) == pytest.approx(9)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    assert gradient_energy(noise) == pytest.approx(4 * (256**2 - 1) / 12, rel=0.02)


def test_the_real_frames_are_perfect_and_blurred_ones_less_sharp(seen: TrackedFace) -> None:
    found = measured(FRAMES, opened(seen, [0.5, 0.5, 0.9, 0.1])).metrics
    assert found["mouth_psnr"] == found["eyes_psnr"] == 100 and found["inner_lips_l1"] == 0
    assert found["mouth_ssim"] == pytest.approx(1) and found["eyes_ssim"] == pytest.approx(1)
    for name in (*SHARPNESS, "eyes_sharpness"):
        assert found[name] == 1
    assert found["mouth_psnr_gain"] == pytest.approx(100 - found["mouth_psnr_frozen"])
    assert found["mouth_psnr_gain_shifted"] == pytest.approx(100 - found["mouth_psnr_shifted"])
    assert found["mouth_psnr_frozen"] < found["mouth_psnr_shifted"] < 60
    blurred = np.stack([gaussian_filter(frame, (2, 2, 0)) for frame in FRAMES])
    worse = measured(blurred, seen).metrics
    assert worse["mouth_sharpness"] < 0.6 and worse["eyes_sharpness"] < 0.6
    assert worse["mouth_ssim"] < 1 and worse["mouth_psnr"] < 45


def test_frozen_frames_are_their_own_baseline(seen: TrackedFace) -> None:
    frozen = np.stack([FRAMES[0]] * len(FRAMES))
    found = measured(frozen, seen).metrics
    assert found["mouth_psnr"] == found["mouth_psnr_frozen"] and found["mouth_psnr_gain"] == 0
    assert found["eyes_ssim"] == found["eyes_ssim_frozen"]
    boxes = face_boxes(seen.mesh_px, WIDTH, HEIGHT).mouth
    by_hand = [psnr(cut(FRAMES[0], boxes[i]), cut(FRAMES[i], boxes[i])) for i in range(1, len(FRAMES))]
    assert found["mouth_psnr"] == pytest.approx(np.mean(by_hand))


def test_sharpness_is_parted_by_what_the_mouth_does(seen: TrackedFace) -> None:
    """Only the frame that is open is blurred."""
    predicted = FRAMES.copy()
    predicted[2] = gaussian_filter(FRAMES[2], (3, 3, 0))
    found = measured(predicted, opened(seen, [0.3, 0.3, 0.9, 0.0])).metrics
    assert found["mouth_sharpness_opening"] < 0.5 and found["mouth_sharpness_closing"] == 1
    missing = measured(predicted, opened(seen, [0.2, 0.2, 0.2, 0.2])).missing
    assert "never opens farther than in the source" in missing["mouth_sharpness_opening"]
    assert "never opens farther than .3" in missing["inner_lips_l1"]


def test_errors_count_inside_the_lips_only(seen: TrackedFace) -> None:
    face, predicted = opened(seen, [0.2, 0.4, 0.2, 0.2]), FRAMES.copy()
    predicted[1] = np.where(FRAMES[1] > 127, FRAMES[1] - 40, FRAMES[1] + 40)
    predicted[2] = 255 - FRAMES[2]  # not open, so not looked at
    moved = TrackedFace(face.mesh_px, face.mouth, face.side_px)
    moved.mesh_px[:, 13:15, 1] += torch.tensor([-4.0, 4.0])  # some room between the lips
    assert measured(predicted, moved).metrics["inner_lips_l1"] == pytest.approx(40)


def test_what_cannot_be_compared_says_so(seen: TrackedFace) -> None:
    clip = RenderedClip("clip", FRAMES, FRAMES, None, True, source=FRAMES[0])
    scores = Scores()
    measure_boxes(clip, TrackedFaces(predicted=seen, real=seen), scores)
    assert not scores.metrics and "another person" in scores.missing["eyes_psnr"]
    assert measured(FRAMES, "no face").missing["mouth_psnr"] == "no face"
    small = TrackedFace(seen.mesh_px / 40, seen.mouth, seen.side_px)
    assert "too small" in measured(FRAMES, small).missing["mouth_psnr"]
