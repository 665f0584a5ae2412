"""Tests of the tracking networks together, with the bundled weights and MediaPipe itself as the reference.

fixtures/eileen_collins_mediapipe.npz is what MediaPipe 0.10.21 finds in the (public domain) example portrait,
written by `training/tracker/tracker_parity.py --judge examples/eileen_collins.png`; the picture is left out and the
mask cut at 0.5.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sdtalk.errors import InputError
from sdtalk.tracking import networks
from sdtalk.tracking.follow import follow_face
from sdtalk.tracking.networks import FaceNetworks
from sdtalk.tracking.roi import whole_pictures
from sdtalk.weights import assets

ROOT = Path(__file__).parent.parent
RIGHT_SIDE, LEFT_SIDE, NOSE, CHIN, FOREHEAD = 234, 454, 1, 152, 10


@pytest.fixture(scope="module")
def bundled() -> FaceNetworks:
    return FaceNetworks.from_bundled()


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(ROOT / "examples/eileen_collins.png").convert("RGB")))[None]


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    with np.load(ROOT / "tests/fixtures/eileen_collins_mediapipe.npz") as found:
        mask = np.unpackbits(found["mask"]).reshape(512, 512).astype(bool)
        return {"points": torch.from_numpy(found["points"][0]), "mask": torch.from_numpy(mask)}


def face_width(points: torch.Tensor) -> float:
    return float((points[RIGHT_SIDE, :2] - points[LEFT_SIDE, :2]).norm())


def shown(portrait: torch.Tensor, scale: float, canvas_px: int, left: int, top: int) -> torch.Tensor:
    """The head of the portrait (250 px, the face 92 px) at another scale on a grey square."""
    head = portrait[:, 20:270, 100:350].permute(0, 3, 1, 2).float()
    small = F.interpolate(head, scale_factor=scale, mode="area").round().byte().permute(0, 2, 3, 1)
    canvas = torch.full((1, canvas_px, canvas_px, 3), 128, dtype=torch.uint8)
    canvas[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return canvas


# ---- pictures


def test_example_agrees_with_mediapipe(
    bundled: FaceNetworks, portrait: torch.Tensor, reference: dict[str, torch.Tensor]
) -> None:
    (face,) = bundled.find_faces(portrait)[0]
    errors = (face.points - reference["points"]).norm(dim=1) / face_width(reference["points"])
    assert errors.median() < 0.004 and errors.max() < 0.01
    mask = bundled.person_mask(portrait)
    assert mask.shape == (1, 1, 512, 512) and mask.min() >= 0 and mask.max() <= 1
    found = mask[0, 0] > 0.5
    assert (found & reference["mask"]).sum() / (found | reference["mask"]).sum() >= 0.995


def test_example_has_one_plausible_face(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    (face,) = bundled.find_faces(portrait)[0]
    points = face.points
    assert face.score > 0.99
    assert points[FOREHEAD, 1] < points[NOSE, 1] < points[CHIN, 1]
    assert points[RIGHT_SIDE, 0] < points[468, 0] < points[NOSE, 0] < points[473, 0] < points[LEFT_SIDE, 0]
    assert points[NOSE, 2] < points[RIGHT_SIDE, 2] and points[NOSE, 2] < points[LEFT_SIDE, 2]
    assert abs(face.side - float((face.box[2:] - face.box[:2]).max())) < 1e-4


def test_batches_do_not_change_the_result(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    dark = (portrait.float() * 0.7).byte()
    pictures = torch.cat(
        [portrait, dark, torch.zeros_like(portrait)] + [portrait] * 14
    )  # more than one batch
    together, masks = bundled.find_faces(pictures), bundled.person_mask(pictures)
    assert [len(found) for found in together] == [1, 1, 0] + [1] * 14
    for i in (1, 16):
        alone = bundled.find_faces(pictures[i : i + 1])[0][0]
        torch.testing.assert_close(together[i][0].points, alone.points, atol=5e-3, rtol=0)
        torch.testing.assert_close(
            masks[i : i + 1], bundled.person_mask(pictures[i : i + 1]), atol=1e-3, rtol=0
        )


def test_small_face_in_a_large_picture_is_found(
    bundled: FaceNetworks, portrait: torch.Tensor, reference: dict[str, torch.Tensor]
) -> None:
    """The face is 4.5 % as wide as the picture, far below what the detector finds in the whole picture."""
    (face,) = bundled.find_faces(shown(portrait, 0.5, 1000, 610, 333))[0]
    expected = (reference["points"][:, :2] - torch.tensor([100.0, 20.0])) / 2 + torch.tensor([610.0, 333.0])
    errors = (face.points[:, :2] - expected).norm(dim=1)
    assert errors.mean() < 0.04 * face_width(reference["points"]) / 2


def test_the_largest_face_comes_first(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    both = shown(portrait, 1, 440, 0, 0)
    both[:, 250:, 250:] = shown(portrait, 0.75, 440, 250, 250)[:, 250:, 250:]
    faces = bundled.find_faces(both)[0]
    assert len(faces) == 2
    assert faces[0].side > 1.2 * faces[1].side and faces[0].points[NOSE, 0] < faces[1].points[NOSE, 0]
    (only,) = bundled.find_faces(both, max_faces=1)[0]
    assert min((only.points - face.points).abs().max() for face in faces) < 1e-2


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (400, 300)])
def test_pictures_without_a_face_have_none(bundled: FaceNetworks, shape: tuple[int, int]) -> None:
    picture = torch.randint(0, 256, (1, *shape, 3), dtype=torch.uint8)
    assert bundled.find_faces(picture) == [[]]
    assert bundled.person_mask(picture).shape == (1, 1, *shape)


def test_landmarks_of_no_regions(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    rois = whole_pictures(0, 512, 512, square=True)
    points, flags = bundled.landmarks(portrait, rois, torch.zeros(0, dtype=torch.long))
    assert points.shape == (0, 478, 3) and flags.shape == (0,)


def test_results_can_be_used_in_a_fit(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    scale = torch.ones(1, requires_grad=True)
    (bundled.find_faces(portrait)[0][0].points * scale).sum().backward()
    assert scale.grad is not None


# ---- video


def moving(portrait: torch.Tensor, shifts: list[int]) -> torch.Tensor:
    return torch.cat([portrait.roll((shift, 2 * shift), dims=(1, 2)) for shift in shifts])


def test_following_agrees_with_searching_every_frame(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    """The fast path (keyframes and interpolation) against the slow one, on a face that moves and halts."""
    frames = moving(portrait, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 20, 20, 20, 20, 22, 24, 26])
    followed = follow_face(bundled, frames)
    for face, (searched,) in zip(followed, bundled.find_faces(frames), strict=True):
        assert face is not None
        error = (face.points - searched.points)[:, :2].norm(dim=1).mean() / face_width(searched.points)
        assert error < 0.02


def test_following_stays_with_a_face_that_only_tiles_find(
    bundled: FaceNetworks, portrait: torch.Tensor
) -> None:
    """A larger face appears beside it, and from then on the whole picture's search finds only that one."""
    narrow = shown(portrait, 0.35, 700, 30, 30)
    larger = shown(portrait, 1, 700, 400, 400)
    both = torch.where(larger == 128, narrow, larger)
    (alone,) = follow_face(bundled, narrow)
    assert alone is not None and alone.box[0] < 125
    for face in follow_face(bundled, both.repeat(3, 1, 1, 1), alone):
        assert face is not None
        torch.testing.assert_close(face.box, alone.box, atol=3, rtol=0)
    (first,) = follow_face(bundled, both)
    assert first is not None and first.side > 2 * alone.side


def test_following_survives_a_cut_and_a_gap(bundled: FaceNetworks, portrait: torch.Tensor) -> None:
    far, nothing = portrait.roll((150, 200), dims=(1, 2)), torch.zeros_like(portrait)
    followed = follow_face(bundled, torch.cat([portrait] * 3 + [nothing] * 2 + [far] * 6))
    assert [face is not None for face in followed] == [True] * 3 + [False] * 2 + [True] * 6
    for i, shift in ((2, (0, 0)), (5, (200, 150)), (7, (200, 150))):
        expected = bundled.find_faces(portrait)[0][0].points[NOSE, :2] + torch.tensor(shift)
        torch.testing.assert_close(followed[i].points[NOSE, :2], expected, atol=2, rtol=0)


def test_a_video_without_a_face_has_none(bundled: FaceNetworks) -> None:
    assert follow_face(bundled, torch.zeros(3, 64, 64, 3, dtype=torch.uint8)) == [None] * 3


# ---- files


def test_missing_and_damaged_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "FOLDER", tmp_path)
    with pytest.raises(InputError, match="tracker.safetensors"):
        FaceNetworks.from_bundled()
    content = (ROOT / "sdtalk/assets" / networks.WEIGHTS).read_bytes()
    (tmp_path / networks.WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        FaceNetworks.from_bundled()
