"""Tests of the FLAME tracker on pictures and videos, with a made-up model that looks like a face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from face_like_flame import face_like_flame
from made_up_flame import made_up_flame
from test_fan_landmarks import Record, install_package, install_weights, machine  # noqa: F401
from test_tracker import panning
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.flame.fan import FanLandmarks
from sdtalk.flame.fit import NOISE_PX
from sdtalk.flame.layer import FlameModel
from sdtalk.flame.tracker import FlameTracker
from sdtalk.image import crop_picture, read_picture
from sdtalk.tracking.face_model import eye_state
from sdtalk.tracking.follow import follow_face
from sdtalk.tracking.landmarks68 import (
    CONTOUR,
    FIRST_MESH_LANDMARK,
    MESH_NUMBERS,
    PUPILS,
    eye_numbers_px,
    landmarks68,
    landmarks70,
)
from sdtalk.tracking.networks import FaceLandmarks, FaceNetworks
from sdtalk.tracking.tracker import Tracker

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
MODEL = face_like_flame()
ALL_ROWS = replace(MODEL, completion_rows=torch.arange(len(MODEL.template)))
"""With all vertices as completion points FLAME's landmarks can be read from a track."""


@pytest.fixture(scope="module")
def mesh_tracker() -> Tracker:
    return Tracker.from_bundled()


def flame_tracker(
    mesh_tracker: Tracker, model: FlameModel, eyes_in_px: bool = True, landmarks: FanLandmarks | None = None
) -> FlameTracker:
    return FlameTracker(
        mesh_tracker.networks, mesh_tracker.face, mesh_tracker.template, model, eyes_in_px, landmarks
    )


class Shifted(FanLandmarks):
    """In place of face-alignment: the landmarks of the mesh, shifted, in px of the picture."""

    def __init__(self, networks: FaceNetworks, shift: tuple[float, float], apart: float = 0.05) -> None:
        super().__init__(Record())
        self.apart = apart
        self.networks, self.shift, self.boxes = networks, torch.tensor(shift), torch.zeros(0, 4)

    def find(self, pictures: Tensor, boxes: Tensor) -> Tensor:
        assert len(pictures) == len(boxes)
        self.boxes = torch.cat([self.boxes, boxes])
        faces = [found[0] for found in self.networks.find_faces(pictures)]
        torch.testing.assert_close(boxes, torch.stack([face.box for face in faces]), atol=self.apart, rtol=0)
        return landmarks68(torch.stack([face.points for face in faces]))[..., :2] + self.shift


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


def test_flame_may_have_landmarks_of_the_mesh(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    of_68, of_mesh = (
        replace(
            MODEL,
            landmark_triangles=MODEL.landmark_triangles[17:68],
            landmark_weights=MODEL.landmark_weights[17:68],
            landmark_numbers=numbers[17:68],
        )
        for numbers in (torch.arange(68), FIRST_MESH_LANDMARK + torch.tensor(MESH_NUMBERS))
    )
    expected = flame_tracker(mesh_tracker, of_68).portrait(picture, "astronaut").track
    track = flame_tracker(mesh_tracker, of_mesh).portrait(picture, "astronaut").track
    torch.testing.assert_close(track.completion_points, expected.completion_points)
    torch.testing.assert_close(track.mesh, expected.mesh)
    assert torch.equal(track.eyes, expected.eyes)


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


def test_portrait_follows_other_landmarks(mesh_tracker: Tracker, picture: np.ndarray) -> None:
    shift = (12.0, -7.0)
    plain = flame_tracker(mesh_tracker, ALL_ROWS).portrait(picture, "astronaut")
    fan = Shifted(mesh_tracker.networks, shift)
    portrait = flame_tracker(mesh_tracker, ALL_ROWS, landmarks=fan).portrait(picture, "astronaut")
    assert len(fan.boxes) == 1
    # Crop, mesh and eyes are not moved; FLAME is, but for the pupils, which stay with the mesh.
    assert torch.equal(portrait.image, plain.image) and torch.equal(portrait.mask, plain.mask)
    assert portrait.crop == plain.crop and torch.equal(portrait.track.eyes, plain.track.eyes)
    mesh_px = portrait.track.camera.project(portrait.track.mesh)
    torch.testing.assert_close(mesh_px, plain.track.camera.project(plain.track.mesh), atol=0.05, rtol=0)
    before, after = (
        track.camera.project(MODEL.landmarks(track.completion_points))[0]
        for track in (plain.track, portrait.track)
    )
    moved = (after - before)[: PUPILS.start] * portrait.crop.side / 512
    assert (moved.mean(0) - torch.tensor(shift)).abs().max() < 0.7 and (
        moved - torch.tensor(shift)
    ).abs().max() < 3


def test_portrait_with_the_same_landmarks_is_the_same(
    mesh_tracker: Tracker, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions in the picture and in the crop are counted alike, to less than half a px."""
    plain = flame_tracker(mesh_tracker, ALL_ROWS).portrait(picture, "astronaut").track
    tracker = flame_tracker(mesh_tracker, ALL_ROWS, landmarks=Shifted(mesh_tracker.networks, (0.0, 0.0)))
    looser = tracker.portrait(picture, "astronaut").track
    monkeypatch.setattr("sdtalk.flame.fan.NOISE_PX", NOISE_PX)
    same = tracker.portrait(picture, "astronaut").track
    expected, loose, found = (
        t.camera.project(MODEL.landmarks(t.completion_points)) for t in (plain, looser, same)
    )
    assert (found - expected).abs().max() < 0.02
    assert 0.1 < (loose - expected).abs().max() < 3, "face-alignment's landmarks are trusted less"


def test_video_follows_other_landmarks(
    mesh_tracker: Tracker, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    shift = (10.0, 6.0)
    previous = []

    def followed(networks: FaceNetworks, pictures: Tensor, last: FaceLandmarks | None) -> list:
        previous.append(last)
        return follow_face(networks, pictures, last)

    monkeypatch.setattr("sdtalk.tracking.tracker.BATCH_BYTES", 0)
    plain = flame_tracker(mesh_tracker, ALL_ROWS).video(panning(picture, 16), "pan.mp4")
    # Between keyframes the mesh looks into another square: 3 px of the face's 240.
    fan = Shifted(mesh_tracker.networks, shift, apart=6)
    monkeypatch.setattr("sdtalk.tracking.tracker.follow_face", followed)
    video = flame_tracker(mesh_tracker, ALL_ROWS, landmarks=fan).video(panning(picture, 16), "pan.mp4")
    assert len(fan.boxes) == 14, "two frames of 16 are covered"
    assert len(previous) == 2 and previous[0] is None, "the second batch goes on with the face of the first"
    assert torch.equal(previous[1].box, fan.boxes[7])
    assert video.crop == plain.crop and torch.equal(video.track.eyes, plain.track.eyes)
    before, after = (
        v.track.camera.project(MODEL.landmarks(v.track.completion_points))[:, : PUPILS.start]
        for v in (plain, video)
    )
    moved = (after - before) * video.crop.side / 512
    assert (moved.mean(1) - torch.tensor(shift)).abs().max() < 0.7
    mesh_px = video.track.camera.project(video.track.mesh)
    torch.testing.assert_close(mesh_px, plain.track.camera.project(plain.track.mesh), atol=1, rtol=0)
    with pytest.raises(InputError, match="^blank.mp4: no face was found"):
        flame_tracker(mesh_tracker, MODEL, landmarks=fan).video(
            iter([np.zeros((200, 200, 3), np.uint8)] * 3), "blank.mp4"
        )


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


def test_landmarks_are_chosen_by_what_is_there(
    machine: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path))
    (tmp_path / "flame").mkdir()
    made_up_flame().save(tmp_path / "flame" / "flame.safetensors", {})
    assert FlameTracker.from_installed().landmarks is None
    with pytest.raises(InputError, match="pip install face-alignment==1.5"):
        FlameTracker.from_installed(landmarks="face-alignment")
    install_package(tmp_path)
    assert FlameTracker.from_installed().landmarks is None
    with pytest.raises(InputError, match="weights are not there"):
        FlameTracker.from_installed(landmarks="face-alignment")
    install_weights(machine)
    assert isinstance(FlameTracker.from_installed().landmarks, FanLandmarks)
    assert isinstance(FlameTracker.from_installed(landmarks="face-alignment").landmarks, FanLandmarks)
    assert FlameTracker.from_installed(landmarks="mesh").landmarks is None
    marks = FIRST_MESH_LANDMARK + torch.arange(70)
    replace(made_up_flame(), landmark_numbers=marks).save(tmp_path / "flame" / "flame.safetensors", {})
    assert FlameTracker.from_installed().landmarks is None
    with pytest.raises(
        InputError, match="^face-alignment: the FLAME on this machine marks none of its 68 landmarks"
    ):
        FlameTracker.from_installed(landmarks="face-alignment")
