"""Tests of the tracker on pictures and videos: networks and geometry together, on the example portrait."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_heads import turned

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.image import Crop, crop_picture, read_picture
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.portrait_notes import SMALL_FACE_PX, about_pose
from sdtalk.tracking.tracker import Tracker

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.from_bundled()


@pytest.fixture(scope="module")
def picture(tracker: Tracker) -> np.ndarray:
    """Head and shoulders, 480 px."""
    whole = read_picture(EXAMPLE).pixels
    crop = tracker.portrait(whole, "whole").crop
    return crop_picture(whole, crop, 480)


def test_portrait_is_cropped_masked_and_tracked(tracker: Tracker, picture: np.ndarray) -> None:
    portrait = tracker.portrait(picture, "astronaut")
    assert portrait.image.shape == (1, 3, 512, 512) and portrait.mask.shape == (1, 1, 512, 512)
    assert portrait.note == "" and len(portrait.track) == 1
    points = portrait.track.camera.project(portrait.track.mesh)[0]
    assert ((points > 40) & (points < 472)).all(), "the face is well inside the crop"
    assert points[10, 1] < points[1, 1] < points[152, 1] and points[33, 0] < points[263, 0], (
        "upright, facing us"
    )
    columns, rows = points.long().unbind(1)
    assert portrait.mask[0, 0, rows, columns].mean() > 0.9 and portrait.mask[0, 0, :20, :20].mean() < 0.2
    assert 7 < portrait.track.camera.translation[0, 2] < 14
    assert portrait.track.completion_points.shape == (1, 1920, 3)


def test_the_margin_around_a_crop_is_the_photos(tracker: Tracker) -> None:
    whole = read_picture(EXAMPLE).pixels
    portrait = tracker.portrait(whole, "astronaut")
    image, mask = tracker.with_margin(portrait, 16)
    inside = (..., slice(16, -16), slice(16, -16))
    assert torch.equal(image[inside], portrait.image) and torch.equal(mask[inside], portrait.mask)
    crop, scale = portrait.crop, portrait.crop.side / 512
    rows = np.rint(crop.top + (np.arange(6, 16) - 15.5) * scale - 0.5).astype(int)
    columns = np.rint(crop.left + (np.arange(544) - 15.5) * scale - 0.5).astype(int).clip(0, 511)
    assert rows.min() >= 0, "this photo goes on above the crop"
    there = torch.from_numpy(whole[rows][:, columns]).permute(2, 0, 1) / 255
    mirrored = torch.nn.functional.pad(portrait.image, (16,) * 4, mode="reflect")
    far, near = ((x[0, :, 6:16] - there).abs().mean() for x in (mirrored, image))
    assert near < 0.03 and near < far / 2


def test_portrait_does_not_depend_on_where_in_the_picture_it_is(
    tracker: Tracker, picture: np.ndarray
) -> None:
    """The same face in a larger picture gives the same head; border and detector make a small difference."""
    alone = tracker.portrait(picture, "alone").track
    larger = tracker.portrait(np.pad(picture, ((37, 91), (55, 120), (0, 0)), mode="edge"), "larger").track
    torch.testing.assert_close(larger.mesh, alone.mesh, atol=0.04, rtol=0)
    torch.testing.assert_close(larger.camera.rotation, alone.camera.rotation, atol=0.06, rtol=0)


def test_no_face_is_an_error_that_names_the_picture(tracker: Tracker) -> None:
    with pytest.raises(InputError, match="^wall.png: no face was found in this picture"):
        tracker.portrait(np.full((300, 400, 3), 128, np.uint8), "wall.png")


def test_the_largest_face_is_taken_and_the_user_told(tracker: Tracker, picture: np.ndarray) -> None:
    small = crop_picture(picture, Crop(0.0, 0.0, 480.0), 240)
    both = np.full((480, 720, 3), 200, np.uint8)
    both[:240, :240], both[:, 240:] = small, picture
    portrait = tracker.portrait(both, "couple")
    assert portrait.note == "2 faces were found; the largest is used (number 2 from the left)."
    assert portrait.crop.left + portrait.crop.side / 2 > 360
    tiny = crop_picture(picture, Crop(0.0, 0.0, 480.0), 160)
    assert "larger picture gives a sharper video" in tracker.portrait(tiny, "tiny").note
    assert SMALL_FACE_PX > 60


def test_closed_eyes_and_turned_heads_are_told() -> None:
    face, facing = (
        FaceModel.bundled(),
        turned(*torch.tensor([[0.0, 33.0, 10.0], [0.0, 0.0, -30.0], [0.0, 0.0, 0.0]])),
    )
    shut = face.mean_face[None] + face.lid_displacement(torch.tensor([[0.0, 0, 0, -0.04, -0.04, 0]]))
    for mesh, pose, wanted in (
        (face.mean_face[None], 0, ""),
        (shut, 0, "An eye is closed"),
        (face.mean_face[None], 1, "turned by 33 degrees"),
        (face.mean_face[None], 2, "turned by 30 degrees"),
    ):
        camera = Camera.from_pose(facing[pose : pose + 1], torch.tensor([[0.0, 0.0, 9.5]]))
        notes = about_pose(camera, mesh)
        assert wanted in " ".join(notes) and len(notes) == bool(wanted)


@pytest.mark.parametrize("side", ["left", "bottom"])
def test_a_face_that_the_border_cuts_is_told_or_refused(tracker: Tracker, side: str) -> None:
    whole = read_picture(EXAMPLE).pixels
    points = tracker.networks.find_faces(torch.from_numpy(whole)[None])[0][0].points
    (left, top), (right, bottom) = points[:, :2].amin(0).tolist(), points[:, :2].amax(0).tolist()

    def cut(share: float) -> np.ndarray:
        """Without so much of the width or height of the face."""
        if side == "left":
            return whole[:, int(left + share * (right - left)) :]
        return whole[: int(bottom - share * (bottom - top))]

    assert tracker.portrait(cut(-0.05), "close").note == ""
    assert "cut off by the border" in tracker.portrait(cut(0.2), "cut").note
    with pytest.raises(InputError, match="^half.png: too much of the face.*whole face"):
        tracker.portrait(cut(0.4), "half.png")


def panning(picture: np.ndarray, frames: int) -> Iterator[np.ndarray]:
    """The picture moves two px to the left a frame; between frames 10 and 12 it is covered."""
    wide = np.pad(picture, ((0, 0), (0, 2 * frames), (0, 0)), mode="edge")
    for i in range(frames):
        frame = wide[:, 2 * i : 2 * i + picture.shape[1]]
        yield np.zeros_like(frame) if 10 <= i < 12 else frame


def test_video_has_one_crop_and_a_smooth_path(tracker: Tracker, picture: np.ndarray) -> None:
    video = tracker.video(panning(picture, 24), "pan.mp4")
    assert len(video.track) == 24
    nose = video.track.camera.project(video.track.mesh)[:, 6] * video.crop.side / 512
    steps = (nose[1:] - nose[:-1])[3:-3]
    assert (steps[:, 0] + 2).abs().max() < 0.8 and steps[:, 1].abs().max() < 0.8
    assert torch.isfinite(video.track.completion_points).all()
    assert video.track.mesh.std(dim=0).max() < 0.03, "the head itself does not change"


def test_video_without_frames_or_faces_is_an_error(tracker: Tracker) -> None:
    with pytest.raises(InputError, match="^empty.mp4: this video has no frames"):
        tracker.video(iter([]), "empty.mp4")
    with pytest.raises(InputError, match="^blank.mp4: no face was found"):
        tracker.video(iter([np.zeros((200, 200, 3), np.uint8)] * 3), "blank.mp4")
