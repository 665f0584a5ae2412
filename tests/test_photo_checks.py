"""Tests of the checks of photos: own state, blink, holes, the camera that turns, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_clips import wandering
from toy import save_portrait, toy_base, toy_model, toy_track

from sdtalk.camera import Camera
from sdtalk.driving import NECK
from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import open_writer
from training.evaluation.photo_checks import main, photo_sources
from training.evaluation.photo_metrics import (
    EDGE_PX,
    PHOTO_METRICS,
    energy_within,
    face_area,
    hole_share,
    measure_photo,
    outline,
    turned_camera,
)
from training.evaluation.photo_report import PhotoResult, PhotoResults, as_markdown
from training.evaluation.tracked_face import see_face
from training.image_metrics import gradient_energy


def disc(size: int = 120) -> np.ndarray:
    """An opaque disc whose lower part is cut off by the picture's border."""
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - size / 2, y - size * 0.7) < size * 0.4).astype(np.float32)


def test_a_solid_outline_has_no_holes_whatever_happens_at_its_border() -> None:
    alpha = disc()
    assert np.array_equal(outline(alpha), alpha > 0.5) and hole_share(alpha) == 0
    soft = torch.nn.functional.avg_pool2d(
        torch.from_numpy(alpha)[None, None], 9, 1, 4, count_include_pad=False
    )
    assert hole_share(soft[0, 0].numpy()) == 0
    assert hole_share(np.zeros((64, 64), np.float32)) == 0


def test_holes_and_slits_are_counted() -> None:
    holed = disc()
    holed[60:70, 55:65] = 0.4
    share = hole_share(holed)
    assert 100 / (holed > 0.1).sum() < share < 2 * 100 / (holed > 0.1).sum()
    slit = disc()
    slit[:, 58:60] = 0.85 * slit[:, 58:60]
    slit[:80, 58:60] = 0  # open to the outside
    rows = np.flatnonzero(disc()[:, 58])
    inside = disc()[rows[0] + EDGE_PX + 1 :, 58:60].size
    assert hole_share(slit) * (disc() > 0).sum() > 0.9 * inside
    here = np.zeros(holed.shape, bool)
    here[45:85, 40:80] = True
    inner = (40 - 2 * EDGE_PX) ** 2
    assert 100 / inner <= hole_share(holed, here) < 1.3 * 100 / inner and hole_share(disc(), here) == 0
    ring = disc()
    ring[50:90, 40:80] = 0  # as between two people
    assert hole_share(ring) == 0 and not outline(ring)[56:84, 46:74].any()


def test_energy_within_an_area_is_that_of_a_cut_out_box() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    area = np.zeros((40, 50), bool)
    area[5:25, 10:42] = True
    assert energy_within(picture, area) == pytest.approx(gradient_energy(picture[5:25, 10:42]))
    assert energy_within(picture, np.zeros_like(area)) == 0


def test_the_area_of_a_face_is_its_hull() -> None:
    angles = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([256 + 100 * np.cos(angles), 200 + 100 * np.sin(angles)], axis=1)
    inner = np.random.default_rng(0).uniform(220, 240, (50, 2))
    assert face_area(np.concatenate([circle, inner])).sum() == pytest.approx(np.pi * 100**2, rel=0.01)


def test_a_head_turns_about_its_neck() -> None:
    rest = toy_track().camera
    neck, nose = torch.tensor([[NECK]]), torch.tensor([[[0.0, 0.0, 0.5]]])
    torch.testing.assert_close(turned_camera(rest, 0).world_to_camera, rest.world_to_camera)
    for degrees in (-25, 25):
        camera: Camera = turned_camera(rest, degrees)
        torch.testing.assert_close(camera.project(neck), rest.project(neck))
        cosine = (torch.trace(rest.rotation[0].T @ camera.rotation[0]) - 1) / 2
        assert torch.rad2deg(cosine.acos()) == pytest.approx(25, abs=1e-3)
        aside = (camera.project(nose) - rest.project(nose))[0, 0, 0]
        assert aside * degrees > 0  # to the subject's left, which is to the picture's right


def test_a_face_is_seen_as_the_tracker_has_it(tmp_path: Path) -> None:
    tracker = Tracker.from_bundled()
    picture = read_picture(save_portrait(tmp_path / "p.png", 300)).pixels
    seen, person = see_face(tracker, picture), tracker.portrait(picture, "p")
    assert seen is not None
    in_picture = person.track.camera.project(person.track.mesh)[0] * person.crop.side / 512
    in_picture = in_picture + torch.tensor([person.crop.left, person.crop.top])
    assert (seen.mesh_px - in_picture).abs().max() < 1
    torch.testing.assert_close(seen.eyes[None], person.track.eyes, atol=5e-3, rtol=0)
    assert see_face(tracker, np.zeros((64, 64, 3), np.uint8)) is None


def test_photos_are_checked_and_what_cannot_be_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """By the bundled model, which gives photos back somewhat, and closes eyes a little."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    save_portrait(photos / "a.png", 512)
    (photos / "damaged.png").write_bytes(b"no picture")
    (photos / "notes.txt").write_text("not looked at")
    assert main([str(photos), "--device", "cpu", "-o", str(out)]) == 0
    written = json.loads((out / "photos.json").read_text())
    (photo,) = written["photos"]
    assert photo["name"] == "a.png" and [f["photo"] for f in written["failed"]] == ["damaged.png"]
    assert photo["figures"].keys() | photo["missing"].keys() == PHOTO_METRICS.keys()
    found = photo["figures"]
    assert min(found["own_psnr"], found["own_mouth_psnr"], found["own_eyes_psnr"]) > 18
    assert found["blink_gap"] < 0.9 and 0 <= found["holes_own"] < 10
    assert written["summary"]["own_psnr"]["mean"] == photo["figures"]["own_psnr"]
    assert (out / photo["sheet"]).is_file() and "damaged.png" in (out / "photos.md").read_text()
    assert "data:image/jpeg;base64," in (out / "index.html").read_text()
    assert "warning: damaged.png" in capsys.readouterr().err


def test_first_frames_of_a_manifest_are_photos(tmp_path: Path) -> None:
    frames = wandering(2)
    with open_writer(tmp_path / "a.mp4", frames[0].shape[1::-1]) as writer:
        for frame in frames:
            writer.write(frame)
    entries = [{"file": "a.mp4", "split": "dev"}, {"file": "b.mp4", "split": "train"}]
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    (source,) = photo_sources(tmp_path / "manifest.json", "dev")
    assert source.name == "a.mp4" and np.abs(source.read().astype(int) - frames[0]).mean() < 10


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["nowhere"], "no such file or folder"),
        (["EMPTY"], "no pictures in this folder"),
        (["nowhere.json"], "cannot be read"),
        (["EMPTY", "--photos", "0"], "--photos 0: it is less than 1"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(tmp_path) if a == "EMPTY" else a for a in arguments]) == 2
    assert problem in capsys.readouterr().err


def test_a_model_that_knows_no_mouths_has_no_own_state(tmp_path: Path, toy_home: Path) -> None:
    tracker = Tracker.from_bundled()
    person = tracker.portrait(read_picture(save_portrait(tmp_path / "p.png")).pixels, "p")
    pipeline = SDTalkPipeline(toy_model(), tracker)
    pipeline.model = toy_base()
    with pytest.raises(InputError, match="has no own state"):
        measure_photo(pipeline, person)


def test_the_worst_photo_is_named_by_what_is_better() -> None:
    figures = [
        {"own_psnr": 30.0, "blink_gap": 0.2, "own_mouth_sharpness": 0.5},
        {"own_psnr": 20.0, "blink_gap": 0.6, "own_mouth_sharpness": 1.2},
    ]
    photos = [PhotoResult(f"{i}.png", f, {"holes_own": "why"}, "") for i, f in enumerate(figures)]
    results = PhotoResults("command", "mini", "photos", photos, [])
    worst = {name: found["worst"] for name, found in results.summary().items()}
    assert worst == {"own_psnr": 20.0, "blink_gap": 0.6, "own_mouth_sharpness": 0.5}
    assert "| **mean** | **25.00** | **0.85** | **0.40** |" in as_markdown(results)
