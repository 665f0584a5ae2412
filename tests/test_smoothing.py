"""Tests of video tracks: smoothing, gaps, and the choice of the crop."""

import pytest
import torch
from made_up_heads import FACE, seen, turned, with_opening
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.tracking.camera_fit import fit_camera
from sdtalk.tracking.face_model import eye_state
from sdtalk.tracking.framing import LEAST_ROOM, ROOM, choose_crop
from sdtalk.tracking.smoothing import LONGEST_GAP, fill_gaps, smooth, smooth_mesh, smooth_track


def test_smoothing_keeps_blinks_and_closures() -> None:
    frames = torch.arange(60)
    mesh = with_opening(0.8).repeat(60, 1, 1)
    mesh[frames == 20] = with_opening(0.0)  # a /p/ of one frame
    lids = mesh[:, [160, 158]] - mesh[:, [144, 153]]
    mesh[40:43, [160, 158]] -= lids[40:43]  # a blink of three
    smoothed = smooth_mesh(mesh, FACE)
    assert FACE.mouth_opening(smoothed)[20] < 0.1
    assert (eye_state(smoothed)[41, :2] < 0.01 * eye_state(smoothed)[0, :2]).all()
    assert (eye_state(smoothed)[[38, 45], :2] > 0.98 * eye_state(smoothed)[0, :2]).all()


def test_smoothing_quiets_noise_and_leaves_slow_motion() -> None:
    time = torch.arange(100) / 25
    nod = turned(10 * torch.sin(3 * time), 5 * torch.cos(2 * time), 0 * time)
    place = torch.stack([0.1 * torch.sin(2 * time), 0 * time, torch.full_like(time, 10.0)], dim=1)
    true = Camera.from_pose(nod, place)
    landmarks = seen(FACE.mean_face[None], true)
    noise = torch.randn(100, 478, 3, generator=torch.Generator().manual_seed(5))
    fitted, mesh = fit_camera(landmarks + 2 * noise, FACE.mean_face, FACE.pose_weights)
    camera, smoothed = smooth_track(fitted, mesh, FACE)
    inner = slice(5, -5)  # at the ends the average is over one side only
    assert (camera.rotation - nod)[inner].abs().max() < 0.02
    nose_and_forehead = [10, 151, 9, 168, 6, 197, 195]
    error, error_before = ((m - FACE.mean_face)[:, nose_and_forehead].std() for m in (smoothed, mesh))
    assert error < 0.5 * error_before
    torch.testing.assert_close(
        camera.rotation @ camera.rotation.mT, torch.eye(3).repeat(100, 1, 1), atol=1e-5, rtol=0
    )


def test_smooth_agrees_with_scipy_inside_and_keeps_constants() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    values = torch.randn(50, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    expected = torch.from_numpy(ndimage.gaussian_filter1d(values.numpy(), 1.2, axis=0, radius=9))
    torch.testing.assert_close(smooth(values, 1.2)[9:-9], expected[9:-9])
    torch.testing.assert_close(smooth(torch.ones(3, 2), 2.0), torch.ones(3, 2))
    torch.testing.assert_close(smooth(values[:1], 2.0), values[:1])


def test_short_gaps_are_bridged_and_long_ones_named() -> None:
    landmarks = torch.arange(40.0)[:, None, None].repeat(1, 5, 3)
    gappy = landmarks.clone()
    gappy[10 : 10 + LONGEST_GAP] = torch.nan
    gappy[:2] = torch.nan
    gappy[-1] = torch.nan
    filled = fill_gaps(gappy, "a.mp4")
    torch.testing.assert_close(filled[2:-1], landmarks[2:-1])
    assert (filled[:2] == 2).all() and (filled[-1] == 38).all()
    gappy[10 : 11 + LONGEST_GAP] = torch.nan
    with pytest.raises(InputError, match=r"a.mp4: from 0.4 s on, no face was found for 0.5 s"):
        fill_gaps(gappy, "a.mp4")
    with pytest.raises(InputError, match="no face was found in this video"):
        fill_gaps(torch.full((3, 5, 3), torch.nan), "a.mp4")


def box(left: float, top: float, side: float) -> Tensor:
    return torch.tensor([[[left, top, 0.0], [left + side, top + side, 0.0]]]) - 0.5


def test_crop_has_room_and_stays_inside_where_it_can() -> None:
    free = choose_crop(box(500, 400, 100), 1200, 1000)
    assert free.side == pytest.approx(ROOM * 100) and free.left == pytest.approx(550 - 105)
    shifted = choose_crop(box(10, 20, 100), 1200, 1000)
    assert (shifted.left, shifted.top, shifted.side) == (0, 0, pytest.approx(ROOM * 100))
    tightened = choose_crop(box(150, 100, 100), 400, 200)
    assert (tightened.side, tightened.top) == (200, 0)
    beyond = choose_crop(box(20, 20, 100), 160, 140)
    assert beyond.side == pytest.approx(LEAST_ROOM * 100)
    assert beyond.left <= 0 and beyond.left + beyond.side >= 160, "all of the picture is used"


def test_crop_holds_all_a_moving_face_passes_through() -> None:
    path = torch.cat([box(100, 100, 100), box(400, 150, 100)])
    crop = choose_crop(path, 1920, 1080)
    assert crop.left < 90 and crop.left + crop.side > 510
