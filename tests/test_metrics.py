"""Tests of the metrics: against hand-computed values and independent formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import EXAMPLE

from sdtalk.cli.main import main
from sdtalk.image import read_picture
from sdtalk.tracking.landmarks68 import MESH_NUMBERS as LANDMARK_NUMBERS
from sdtalk.tracking.tracker import Tracker
from training.evaluation.identity import IrSe50, align_faces, similarity_transform
from training.evaluation.landmark_metrics import landmark_distance, lip_distance, mesh_landmarks
from training.evaluation.tracked_face import TrackedFace, track_face
from training.image_metrics import best_lag_correlation, psnr, ssim


def test_psnr_by_hand() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == 100
    assert psnr(black + 16, black) == pytest.approx(10 * np.log10(255**2 / 256))


def test_ssim_is_one_for_equal_and_near_zero_for_unrelated_pictures() -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    assert ssim(a, a) == pytest.approx(1) and abs(ssim(a, b)) < 0.1


@pytest.mark.parametrize("shape", [(7, 7), (10, 9)])
def test_ssim_window_by_window(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    x, y = (random.integers(0, 255, (*shape, 3)).astype(np.uint8) for _ in range(2))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(shape[0] - 6):
        for column in range(shape[1] - 6):
            for channel in range(3):
                window = slice(row, row + 7), slice(column, column + 7), channel
                a, b = x[window].astype(float).ravel(), y[window].astype(float).ravel()
                cov = np.cov(a, b)
                luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
                values.append(luminance * (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2))
    assert ssim(x, y) == pytest.approx(np.mean(values))


def test_the_lag_of_a_shifted_signal_is_found() -> None:
    signal = np.random.default_rng(2).standard_normal(100)
    correlation, lag = best_lag_correlation(np.roll(signal, 3)[3:], signal[3:], 6)
    assert lag == 3 and correlation > 0.99


def test_a_still_mouth_correlates_with_nothing() -> None:
    assert best_lag_correlation(np.zeros(50), np.random.default_rng(0).standard_normal(50), 6) == (-1, None)


def test_landmark_distances_by_hand() -> None:
    points = torch.rand(3, 68, 2) * 100
    moved = points + torch.tensor([3.0, 4.0])
    assert landmark_distance(moved, points, 512) == pytest.approx(5)
    assert landmark_distance(moved, points, 256) == pytest.approx(
        10
    )  # the same in the picture, twice as large
    assert lip_distance(moved, points, 512) == pytest.approx(0, abs=1e-4)
    open_mouth = points.clone()
    open_mouth[:, 48] += torch.tensor([0.0, 20.0])
    # 19 points seem to move by a twentieth, the moved one by the rest
    assert lip_distance(open_mouth, points, 512) == pytest.approx((19 * 1 + 19) / 20, rel=1e-4)
    assert landmark_distance(open_mouth, points, 512) == pytest.approx(20 / 68, rel=1e-4)


def test_the_68_are_those_of_the_mesh() -> None:
    face = TrackedFace(torch.rand(2, 478, 2), torch.zeros(2, 5), 512)
    assert torch.equal(mesh_landmarks(face), face.mesh_px[:, LANDMARK_NUMBERS])


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(read_picture(EXAMPLE).pixels)


@pytest.fixture(scope="module")
def seen(portrait: np.ndarray) -> TrackedFace:
    return track_face(Tracker.from_bundled(), [portrait] * 2, "portrait")


def test_a_face_is_seen_where_it_is(portrait: np.ndarray, seen: TrackedFace) -> None:
    found = Tracker.from_bundled().networks.find_faces(torch.from_numpy(portrait)[None])[0][0]
    assert (seen.mesh_px[0] - (found.points[:, :2].cpu() + 0.5)).norm(dim=1).mean() < 0.005 * portrait.shape[
        0
    ]
    assert seen.side_px == max(portrait.shape[:2])
    x_min, y_min, x_max, y_max = seen.boxes_px[0]
    assert 0 < x_min < x_max < portrait.shape[1] and 0 < y_min < y_max < portrait.shape[0]


def test_a_similarity_is_recovered() -> None:
    angle, scale, shift = 0.3, 2.5, torch.tensor([7.0, -4.0])
    turn = scale * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).float()
    points = torch.randn(1, 5, 2)
    found = similarity_transform(points, points @ turn.T + shift)
    assert torch.allclose(found[0, :, :2], turn, atol=1e-5) and torch.allclose(
        found[0, :, 2], shift, atol=1e-5
    )


def test_faces_are_aligned(portrait: np.ndarray, seen: TrackedFace) -> None:
    """Dots painted on the features come to lie where the network expects the features."""
    dotted = np.zeros_like(portrait)
    features = seen.mesh_px[0, [468, 473, 4, 61, 291]]
    for x, y in features.tolist():
        dotted[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 255
    face = align_faces(dotted[None], seen.mesh_px[:1])[0].mean(0)
    assert face.shape == (112, 112)
    wanted = [(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)]
    for x, y in wanted:  # a face is no template: a few px beside
        at = slice(max(0, int(y) - 9), int(y) + 10), slice(int(x) - 9, int(x) + 10)
        assert face[at].max() > 0.5
    assert float((face > 0.25).sum()) < 600


def test_the_recognition_network_is_the_published_one(
    portrait: np.ndarray, seen: TrackedFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    assert IrSe50.installed() is None
    torch.manual_seed(0)
    network = IrSe50().eval()
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    # published: 3 convolution, 3 x 4 norm, 1 prelu... a block has 2 norms, 2 convolutions, a prelu and 2 excitations
    blocks = 24 * (2 * 4 + 2 + 1 + 2) + 3 * (1 + 4)
    assert len(state) == (1 + 4 + 1) + blocks + (4 + 2 + 4)
    shapes = {
        "input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,),
        "body.0.res_layer.1.weight": (64, 64, 3, 3), "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
        "body.3.shortcut_layer.0.weight": (128, 64, 1, 1), "body.7.res_layer.3.weight": (256, 256, 3, 3),
        "body.20.res_layer.5.fc2.weight": (256, 16, 1, 1), "body.23.res_layer.4.running_var": (512,),
        "output_layer.0.weight": (512,), "output_layer.3.weight": (512, 25088), "output_layer.4.bias": (512,),
    }  # fmt: skip
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    torch.save(state, tmp_path / "model_ir_se50.pth")
    assert main(["assets", "add", "arcface", str(tmp_path / "model_ir_se50.pth")]) == 0
    stored = IrSe50.installed()
    assert stored is not None
    faces = align_faces(np.stack([portrait, portrait[:, ::-1]]), seen.mesh_px)
    with torch.inference_mode():
        embeddings = stored(faces)
        assert torch.equal(embeddings, network(faces))
    assert embeddings.shape == (2, 512) and torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
