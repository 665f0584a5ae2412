"""Tests of LPIPS: against a computation written out by hand, and weights in the published files' layout."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.weights.assets import optional_asset
from sdtalk.weights.third_party import add_weights
from training.alexnet import ALEXNET_CHANNELS, alexnet_convolutions
from training.lpips import Lpips


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made_up(seed: int = 0) -> Lpips:
    torch.manual_seed(seed)
    network = Lpips().eval().requires_grad_(False)
    for layer in network.linear:
        layer.weight.uniform_(0, 1)
    return network


def published_files(network: Lpips, folder: Path) -> list[Path]:
    """What torchvision and the package `lpips` publish, with a network's weights."""
    alexnet = {f"features.{k}": v for k, v in network.alexnet.state_dict().items()}
    alexnet |= {"classifier.1.weight": torch.zeros(4, 4)}
    linear = {f"lin{i}.model.1.weight": layer.weight for i, layer in enumerate(network.linear)}
    folder.mkdir(exist_ok=True)
    torch.save(alexnet, folder / "alexnet.pth")
    torch.save(
        {k: v.detach() for k, v in linear.items()}, folder / "alex.pth", _use_new_zipfile_serialization=False
    )
    return [folder / "alexnet.pth", folder / "alex.pth"]


def by_hand(network: Lpips, a: np.ndarray, b: np.ndarray) -> float:
    """The definition for one pair of pictures [3, H, W] in 0..1, in double precision, layer by layer."""

    def maps(picture: np.ndarray) -> list[np.ndarray]:
        mean, spread = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
        x = torch.tensor((picture * 2 - 1 - mean[:, None, None]) / spread[:, None, None])[None]
        found = []
        for stride, padding, pool, key in (
            (4, 2, False, 0),
            (1, 2, True, 3),
            (1, 1, True, 6),
            (1, 1, False, 8),
            (1, 1, False, 10),
        ):
            if pool:
                x = torch.nn.functional.max_pool2d(x, 3, 2)
            layer = network.alexnet[key]
            x = torch.nn.functional.conv2d(
                x, layer.weight.double(), layer.bias.double(), stride, padding
            ).clamp(min=0)
            found.append(x[0].numpy())
        return found

    total = 0.0
    for one, other, layer in zip(maps(a), maps(b), network.linear, strict=True):
        lengths = [np.sqrt((m**2).sum(0)) + 1e-10 for m in (one, other)]
        squares = (one / lengths[0] - other / lengths[1]) ** 2
        weights = layer.weight.detach().double().numpy()[0, :, 0, 0]
        total += float(np.tensordot(weights, squares, 1).mean())
    return total


def pictures(seed: int = 0, count: int = 2) -> Tensor:
    return torch.rand(count, 3, 80, 72, generator=torch.Generator().manual_seed(seed))


def test_the_definition_by_hand() -> None:
    network, a, b = made_up(), pictures(1), pictures(2)
    found = network(a, b)
    for i in range(len(a)):
        assert float(found[i]) == pytest.approx(
            by_hand(network, a[i].double().numpy(), b[i].double().numpy()), rel=1e-4
        )
    assert float(network(a, a).abs().max()) == 0 and torch.equal(network(a, b), network(b, a))


def test_dead_pixels_have_a_gradient() -> None:
    network = made_up()
    for layer in network.alexnet:
        if isinstance(layer, torch.nn.Conv2d):
            layer.bias.fill_(-10.0)  # every channel is zero
    picture = pictures().requires_grad_()
    network(picture, torch.zeros_like(picture)).sum().backward()
    assert picture.grad is not None and picture.grad.isfinite().all()


def test_weights_of_the_published_files(tmp_path: Path, home: Path) -> None:
    assert Lpips.installed() is None
    network = made_up(3)
    files = published_files(network, tmp_path / "given")
    assert main(["assets", "add", "lpips", *map(str, reversed(files))]) == 0
    assert optional_asset("lpips") == home / "lpips" / "lpips.safetensors"
    stored = Lpips.installed()
    assert stored is not None and not any(p.requires_grad for p in stored.parameters())
    assert torch.equal(stored(pictures(1), pictures(2)), network(pictures(1), pictures(2)))


def test_the_layout_is_torchvisions() -> None:
    shapes = {k: tuple(v.shape) for k, v in alexnet_convolutions().state_dict().items()}
    assert shapes == {
        "0.weight": (64, 3, 11, 11), "0.bias": (64,), "3.weight": (192, 64, 5, 5), "3.bias": (192,),
        "6.weight": (384, 192, 3, 3), "6.bias": (384,), "8.weight": (256, 384, 3, 3), "8.bias": (256,),
        "10.weight": (256, 256, 3, 3), "10.bias": (256,),
    }  # fmt: skip
    assert ALEXNET_CHANNELS == (64, 192, 384, 256, 256)


@pytest.mark.skipif(importlib.util.find_spec("lpips") is None, reason="the package lpips is not installed")
def test_the_packages_own_linear_layers_are_taken(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("lpips")
    assert spec is not None and spec.origin is not None
    weights = Path(spec.origin).parent / "weights"
    given = published_files(made_up(), tmp_path / "given")[0]
    with pytest.raises(InputError, match="older version"):
        add_weights("lpips", [given, weights / "v0.0" / "alex.pth"])
    add_weights("lpips", [given, weights / "v0.1" / "alex.pth"])
    assert Lpips.installed() is not None


def test_what_is_not_lpips_is_refused(tmp_path: Path, home: Path) -> None:
    files = published_files(made_up(), tmp_path / "given")
    with pytest.raises(InputError, match="alex.pth of version 0.1 is missing"):
        add_weights("lpips", files[:1])
    torch.save({"lin0.model.1.weight": torch.zeros(1, 8, 1, 1)}, files[1])
    with pytest.raises(InputError, match="it is no file of lpips"):
        add_weights("lpips", files)
    files[1].write_bytes(b"<html>")
    with pytest.raises(InputError, match="damaged"):
        add_weights("lpips", files)
    with pytest.raises(InputError, match="no such file"):
        add_weights("lpips", [tmp_path / "nowhere.pth"])
    assert not home.exists()


def test_stored_weights_of_another_network_are_told(tmp_path: Path, home: Path) -> None:
    network = made_up()
    add_weights("lpips", published_files(network, tmp_path / "given"))
    path = home / "lpips" / "lpips.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="lpips.safetensors: it is damaged.*sdtalk assets add lpips"):
        Lpips.installed()
