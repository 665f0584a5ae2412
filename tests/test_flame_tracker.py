"""Pictures and videos to FLAME heads, with a made-up model that looks like a face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from face_like_flame import face_like_flame
from made_up_flame import made_up_flame
from test_tracker import panning

from sdtalk.errors import InputError
from sdtalk.image import crop_picture, read_picture
from sdtalk.tracking.face_model import eye_state
from sdtalk.tracking.flame import FlameModel
from sdtalk.tracking.flame_tracker import FlameTracker
from sdtalk.tracking.landmarks68 import CONTOUR, eye_numbers_px, landmarks68, landmarks70
from sdtalk.tracking.tracker import Tracker

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
MODEL = face_like_flame()
ALL_ROWS = replace(MODEL, completion_rows=torch.arange(len(MODEL.template)))
"""With all vertices as completion points FLAME's landmarks can be read from a track."""


@pytest.fixture(scope="module")
def mesh_tracker() -> Tracker:
    return Tracker.from_bundled()


def flame_tracker(mesh_tracker: Tracker, model: FlameModel, eyes_in_px: bool = True) -> FlameTracker:
    return FlameTracker(
        mesh_tracker.networks, mesh_tracker.face, mesh_tracker.template, model, eyes_in_px=eyes_in_px
    )


@pytest.fixture(scope="module")
def picture(mesh_tracker: Tracker) -> np.ndarray:
    """Head and shoulders, 480 px."""
    whole = read_picture(EXAMPLE).pixels
    return crop_picture(whole, mesh_tracker.portrait(whole, "whole").crop, 480)


def test_portrait_differs_in_its_track_only(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    plain = mesh_tracker.portrait(picture, "astronaut")
    portrait = flame_tracker(mesh_tracker, MODEL).portrait(picture, "astronaut")
    assert torch.equal(portrait.image, plain.image) and torch.equal(portrait.mask, plain.mask)
    assert portrait.crop == plain.crop and portrait.note == ""
    track, before = portrait.track, plain.track
    assert track.completion_points.shape == (1, 1920, 3)
    assert track.completion_rows is not None and torch.equal(track.completion_rows, MODEL.completion_rows)
    # The mesh is seen where it was; it is the same face, a little turned and shifted.
    torch.testing.assert_close(
        track.camera.project(track.mesh), before.camera.project(before.mesh), atol=0.05, rtol=0
    )
    assert (track.camera.rotation @ before.camera.rotation.mT - torch.eye(3)).abs().max() < 0.15
    assert (landmarks70(track.mesh) - landmarks70(before.mesh)).norm(dim=2).mean() < 0.1, "2 cm"
    assert 7 < track.camera.translation[0, 2] < 14


def test_flame_lies_on_the_landmarks(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    track = flame_tracker(mesh_tracker, ALL_ROWS).portrait(picture, "astronaut").track
    flame = MODEL.landmarks(track.completion_points)
    seen_px = landmarks70(track.camera.project(track.mesh))
    error = (track.camera.project(flame) - seen_px).norm(dim=2)[0]
    # Made-up fields explain a smile only roughly; with one coefficient each of shape and expression 5 px are left.
    assert error.mean() < 2.2 and error[CONTOUR.stop :].mean() < 2 and error.max() < 9
    assert (flame - landmarks70(track.mesh)).norm(dim=2).mean() < 0.1, "2 cm in depth, too"


def test_eyes_are_the_published_numbers_or_ours(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    track = flame_tracker(mesh_tracker, MODEL).portrait(picture, "astronaut").track
    seen_px = landmarks68(track.camera.project(track.mesh))
    assert torch.equal(track.eyes, track.eyes.trunc())
    assert (eye_numbers_px(seen_px) - track.eyes).abs().max() <= 1.01
    assert (track.eyes[0, [0, 1, 3, 4]] > 5).all() and (track.eyes[0, [2, 5]] > 30).all()
    ours = flame_tracker(mesh_tracker, MODEL, eyes_in_px=False).portrait(picture, "astronaut").track
    assert torch.equal(ours.eyes, eye_state(ours.mesh))


def test_video_has_one_shape_and_a_smooth_path(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    video = flame_tracker(mesh_tracker, ALL_ROWS).video(panning(picture, 16), "pan.mp4")
    track = video.track
    assert len(track) == 16 and torch.isfinite(track.completion_points).all()
    seen_px, flame = track.camera.project(track.mesh), MODEL.landmarks(track.completion_points)
    steps = (seen_px[1:, 6] - seen_px[:-1, 6])[3:-3] * video.crop.side / 512
    assert (steps[:, 0] + 2).abs().max() < 0.8 and steps[:, 1].abs().max() < 0.8
    assert (track.camera.project(flame) - landmarks70(seen_px)).norm(dim=2).mean() < 2.5
    assert flame.std(dim=0).max() < 0.05, "the head itself does not change"
    assert track[3:5].completion_rows is track.completion_rows


def test_what_cannot_be_tracked_is_an_error(mesh_tracker: Tracker) -> None:
    tracker = flame_tracker(mesh_tracker, MODEL)
    with pytest.raises(InputError, match="^wall.png: no face was found in this picture"):
        tracker.portrait(np.full((300, 400, 3), 128, np.uint8), "wall.png")
    with pytest.raises(InputError, match="^empty.mp4: this video has no frames"):
        tracker.video(iter([]), "empty.mp4")


def test_flame_is_found_where_it_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path))
    with pytest.raises(InputError, match="FLAME.* is not on this machine.*sdtalk assets add flame"):
        FlameTracker.from_installed()
    (tmp_path / "flame").mkdir()
    made_up_flame().save(tmp_path / "flame" / "flame.safetensors", {})
    tracker = FlameTracker.from_installed()
    assert torch.equal(tracker.flame.template, made_up_flame().template) and tracker.eyes_in_px
    assert not FlameTracker.from_installed(eyes_in_px=False).eyes_in_px
