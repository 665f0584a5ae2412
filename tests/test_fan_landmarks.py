"""Tests of face-alignment's landmarks: crops, heat maps and pixels by made-up networks, and missing packages."""

import importlib.util
import pickle
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.flame import fan
from sdtalk.flame.fan import FanLandmarks
from sdtalk.image import read_picture
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.landmarks68 import landmarks68

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
BOXES = torch.tensor([[50.0, 60.0, 130.0, 170.0], [40.5, 71.25, 110.0, 150.0], [-20.0, 5.0, 90.0, 122.0]])

TOY_NETWORK = """
import torch
from torch import nn

class FAN(nn.Module):
    def __init__(self, num_modules=1):
        super().__init__()
        self.layer = nn.Conv2d(3, 68, 4, stride=4)

    def forward(self, x):
        return [torch.zeros(len(x), 68, 64, 64), self.layer(x)]
"""
"""In place of the package's file; of the same shapes."""


class Answer(nn.Module):
    """Gives fixed heat maps for a picture that is brighter on the left, and others for its mirror image."""

    def __init__(self, maps: Tensor, mirrored: Tensor) -> None:
        super().__init__()
        self.maps, self.mirrored = maps, mirrored

    def forward(self, x: Tensor) -> list[Tensor]:
        assert x.shape[1:] == (3, 256, 256) and 0 <= x.min() and x.max() <= 1
        left = x[..., :128].mean((1, 2, 3)) > x[..., 128:].mean((1, 2, 3))
        shown = torch.where(left[:, None, None, None], self.maps, self.mirrored)
        return [torch.zeros_like(shown), shown]


class Record(nn.Module):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.seen.append(x)
        return [torch.zeros(len(x), 68, 64, 64)]


class Brightness(nn.Module):
    """Heat maps of how bright the picture is."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(x.mean(1, keepdim=True), 4).expand(-1, 68, -1, -1)]


def brighter_left(count: int) -> Tensor:
    pictures = torch.zeros(count, 240, 250, 3, dtype=torch.uint8)
    pictures[:, :, :30] = 200
    return pictures


def package_square(box: Tensor) -> tuple[np.ndarray, float]:
    """Middle (0 = border of the picture) and side of the square, as the package defines them."""
    x0, y0, x1, y1 = (box + 0.5).double().tolist()
    middle = np.array([x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 - 0.12 * (y1 - y0)])
    return middle, 200 * (x1 - x0 + y1 - y0) / 195


def test_peaks_come_back_to_their_px() -> None:
    random = np.random.default_rng(0)
    column, row = random.integers(1, 63, (2, 68))
    slope_x, slope_y = random.choice([-1, 0, 1], (2, 68))
    column[:4], row[4:8] = [0, 63, 0, 63], [0, 63, 0, 63]
    inside = (column % 63 > 0) & (row % 63 > 0)
    maps = torch.zeros(1, 68, 64, 64)
    for k in range(68):
        maps[0, k, row[k], column[k]] = 1.0
        if inside[k]:
            maps[0, k, row[k], column[k] + slope_x[k]] += 0.3
            maps[0, k, row[k] + slope_y[k], column[k]] += 0.3
        else:  # at the border neighbours do not count
            maps[0, k, row[k] + (-1 if row[k] else 1), column[k]] = 0.3
    found = FanLandmarks(Answer(maps, torch.zeros_like(maps))).find(brighter_left(3), BOXES)
    assert found.dtype == torch.float32
    for box, points in zip(BOXES, found, strict=True):
        middle, side = package_square(box)
        to_map = np.array(
            [
                [64 / side, 0, 64 * (0.5 - middle[0] / side)],
                [0, 64 / side, 64 * (0.5 - middle[1] / side)],
                [0, 0, 1],
            ]
        )
        place = np.stack(
            [column + 0.5 + 0.25 * slope_x * inside, row + 0.5 + 0.25 * slope_y * inside, np.ones(68)]
        )
        expected = np.linalg.solve(to_map, place)[:2].T - 0.5
        np.testing.assert_allclose(points, expected, atol=2e-4)


def test_the_mirrored_picture_counts_as_much() -> None:
    """A network that finds every landmark only in mirror images, with left and right exchanged."""
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(1, 68, 64, 64, generator=random)
    nothing = torch.zeros_like(maps)
    mirrored = maps.flip(3)[:, fan._MIRRORED]
    plain = FanLandmarks(Answer(maps, nothing)).find(brighter_left(1), BOXES[:1])
    assert torch.equal(FanLandmarks(Answer(nothing, mirrored)).find(brighter_left(1), BOXES[:1]), plain)
    both = FanLandmarks(Answer(maps, mirrored + 3 * maps)).find(brighter_left(1), BOXES[:1])
    assert not torch.equal(both, plain)


def test_left_and_right_are_exchanged_as_on_a_face() -> None:
    face = landmarks68(FaceModel.bundled().mean_face[None])[0]
    distance = torch.cdist(face * torch.tensor([-1.0, 1.0, 1.0]), face)
    assert distance.argmin(1).tolist() == fan._MIRRORED


def test_the_network_sees_the_square_of_the_package() -> None:
    """Red and green tell where in the picture a px of the input was taken from."""
    picture = torch.zeros(1, 240, 250, 3, dtype=torch.uint8)
    picture[..., 0], picture[..., 1] = torch.arange(250), torch.arange(240)[:, None]
    picture[..., 2] = 255
    for box in BOXES:
        record = Record()
        FanLandmarks(record).find(picture, box[None])
        seen = record.seen[0][0].double().numpy() * 255
        assert torch.equal(record.seen[1], record.seen[0].flip(3))
        middle, side = package_square(box)
        places = []
        for axis, length in enumerate((250, 240)):
            # The package counts from 1: px 1 of 256 is the first, 256 the last.
            first, last = (int(middle[axis] + side * (k / 256 - 0.5)) for k in (1, 256))
            place = first + (np.arange(256) + 0.5) / 256 * (last - first) - 0.5
            places.append((place, (place >= 0) & (place <= length - 1), (place < -1) | (place > length)))
        (x, in_x, out_x), (y, in_y, out_y) = places
        np.testing.assert_allclose(seen[0][np.ix_(in_y, in_x)], np.tile(x[in_x], (in_y.sum(), 1)), atol=2e-3)
        np.testing.assert_allclose(
            seen[1][np.ix_(in_y, in_x)], np.tile(y[in_y], (in_x.sum(), 1)).T, atol=2e-3
        )
        assert (seen[2][:, out_x] == 0).all() and (seen[2][out_y] == 0).all(), "black beyond the border"
        assert seen[2][np.ix_(in_y, in_x)].min() > 254.99
    assert out_x.any(), "one square reaches over the border"


def test_a_dot_is_found_where_it_is() -> None:
    finder = FanLandmarks(Brightness())
    for column, row in [(60, 80), (101, 33), (140, 150), (90, 61)]:
        picture = torch.zeros(1, 240, 250, 3, dtype=torch.uint8)
        spread = (torch.arange(250) - column).square() + (torch.arange(240) - row).square()[:, None]
        picture[0] = (255 * torch.exp(-spread / 18.0)).to(torch.uint8)[..., None]
        found = finder.find(picture, BOXES[:1])[0]
        # Quarters of a px of the map (3 px here), the 256th that the square lacks, whole px of its corners.
        assert (found - torch.tensor([column, row])).abs().max() < 0.25 * 3.05 + 195 / 256 + 1
        assert (found == found[0]).all()


def test_many_faces_are_each_found_as_if_alone() -> None:
    pictures = torch.randint(
        0, 256, (11, 240, 250, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    boxes = BOXES[:1] + torch.arange(11.0)[:, None]
    finder = FanLandmarks(Brightness())
    alone = torch.cat([finder.find(pictures[i : i + 1], boxes[i : i + 1]) for i in range(11)])
    torch.testing.assert_close(finder.find(pictures, boxes), alone)
    assert finder.find(pictures[:0], boxes[:0]).shape == (0, 68, 2)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the package, with an empty cache, and no network; returns the place of the weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    true_find = importlib.util.find_spec
    beside = str(tmp_path)
    monkeypatch.delitem(sys.modules, "face_alignment", raising=False)

    def find_spec(name: str, package: str | None = None) -> object:
        spec = true_find(name, package)
        return None if name == "face_alignment" and spec and beside not in str(spec.origin) else spec

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("asks the network")

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "torch" / "hub" / "checkpoints" / "2DFAN4-11f355bf06.pth.tar"


def install_package(folder: Path) -> None:
    """A package that cannot be imported; the file of its network can."""
    (folder / "face_alignment" / "models").mkdir(parents=True)
    (folder / "face_alignment" / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "face_alignment" / "models" / "fan.py").write_text(TOY_NETWORK)
    importlib.invalidate_caches()


def install_weights(place: Path) -> dict[str, Tensor]:
    place.parent.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    weights = {
        "layer.weight": torch.randn(68, 3, 4, 4, generator=random),
        "layer.bias": torch.randn(68, generator=random),
    }
    torch.save(weights, place)
    return weights


def test_both_must_be_there(machine: Path, tmp_path: Path) -> None:
    assert not fan.installed() and not (tmp_path / "torch").exists(), "looking makes no folder"
    no_package = r"^face-alignment: its version 1.5 is not installed.*pip install face-alignment==1.5$"
    with pytest.raises(InputError, match=no_package):
        FanLandmarks.from_installed()
    weights = install_weights(machine)
    assert not fan.installed()
    with pytest.raises(InputError, match=no_package):
        FanLandmarks.from_installed()
    install_package(tmp_path)
    assert fan.installed()
    finder = FanLandmarks.from_installed()
    assert torch.equal(finder.network.layer.weight, weights["layer.weight"]) and not finder.network.training
    found = finder.find(
        torch.full((1, 90, 80, 3), 128, dtype=torch.uint8), torch.tensor([[20.0, 20.0, 60.0, 70.0]])
    )
    assert found.shape == (1, 68, 2) and torch.isfinite(found).all()
    assert "face_alignment" not in sys.modules
    machine.unlink()
    assert not fan.installed()
    with pytest.raises(
        InputError, match=r"2DFAN4.*weights are not there\. Download https://www\.adrianbulat\.com/.*"
    ):
        FanLandmarks.from_installed()


def test_another_version_of_the_package_is_not_it(machine: Path, tmp_path: Path) -> None:
    """Before 1.5 the network was a TorchScript file of another name, and the package had no file for it."""
    install_weights(machine)
    install_package(tmp_path)
    (tmp_path / "face_alignment" / "models" / "fan.py").unlink()
    assert not fan.installed()
    with pytest.raises(InputError, match="version 1.5 is not installed, or not whole"):
        FanLandmarks.from_installed()


class Harmful:
    def __reduce__(self) -> tuple:
        return pytest.fail, ("the file was run",)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", pickle.dumps(Harmful(), 2)], ids=["empty", "page", "code"]
)
def test_damaged_weights_are_an_error(machine: Path, tmp_path: Path, content: bytes) -> None:
    install_package(tmp_path)
    install_weights(machine)
    machine.write_bytes(content)
    with pytest.raises(InputError, match="2DFAN4.*these are not the landmark network's weights. Delete it"):
        FanLandmarks.from_installed()


@pytest.mark.parametrize(
    "weights", [{"layer.weight": torch.zeros(68, 3, 4, 4)}, [torch.zeros(3)], {"layer": 1}]
)
def test_weights_of_another_network_are_an_error(machine: Path, tmp_path: Path, weights: object) -> None:
    install_package(tmp_path)
    install_weights(machine)
    torch.save(weights, machine)
    with pytest.raises(InputError, match="these are not the landmark network's weights"):
        FanLandmarks.from_installed()


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("face_alignment", "cv2", "skimage")),
    reason="needs the package face-alignment and what it imports",
)
def test_the_package_gives_the_same_but_for_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own code, with the true network of random weights in the place of the true ones."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source, place = fan.network_file(), fan.weights_file()
    assert source is not None
    torch.manual_seed(0)
    network = fan._network(source)
    for part in network.modules():  # else all heat maps would be alike
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1, 0.3)
            nn.init.normal_(part.bias, 0, 0.3)
    place.parent.mkdir(parents=True)
    torch.save(network.state_dict(), place)
    import face_alignment

    theirs = face_alignment.FaceAlignment(
        face_alignment.LandmarksType.TWO_D, device="cpu", face_detector="folder", compile=False
    )
    picture = read_picture(EXAMPLE).pixels
    boxes = torch.tensor(
        [[150.0, 60.5, 330.0, 290.0], [170.25, 20.0, 300.0, 190.0], [3.0, 10.0, 260.0, 300.0]]
    )
    found = FanLandmarks.from_installed().find(torch.from_numpy(np.stack([picture] * 3)), boxes)
    given = np.stack(
        theirs.get_landmarks_from_image(picture, [(box + 0.5).double().numpy() for box in boxes])
    )
    assert len(np.unique(given[0], axis=0)) > 10
    # The package rounds its crop to whole levels, and noise has a few peaks so nearly equal that this decides.
    assert ((found + 0.5).trunc().numpy() == given).mean() > 0.97
