"""Tests of assets that the user adds: where they lie, what is found, and how HuBERT is stored."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdtalk.errors import InputError
from sdtalk.weights import assets
from sdtalk.weights.assets import OPTIONAL_ASSETS, data_folder, optional_asset, replaced_asset
from sdtalk.weights.third_party import add_hubert

CONFIG = {"model_type": "hubert", "hidden_size": 1024, "num_hidden_layers": 2}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that does not exist yet, and an empty cache of the Hub."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def hub_file(root: Path, repository: str, name: str) -> Path:
    """Put a file where the Hub's cache keeps it."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    path = folder / "snapshots" / "abc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def weights(prefix: str = "hubert.") -> dict[str, torch.Tensor]:
    """The tensors that the check looks at, and one that it does not."""
    names = [f"{prefix}encoder.layers.{i}.attention.q_proj.weight" for i in range(2)]
    return {name: torch.full((1024, 1024), float(i)) for i, name in enumerate(names)} | {
        "lm_head.bias": torch.ones(3)
    }


def downloaded(folder: Path, config: object = CONFIG, tensors: dict | None = None, old: bool = False) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors = weights() if tensors is None else tensors
    if old:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "platform, variables, expected",
    [
        ("linux", {"SDTALK_HOME": "/data/talk"}, "/data/talk"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/sdtalk"),
        ("linux", {"XDG_DATA_HOME": "data"}, "HOME/.local/share/sdtalk"),
        ("linux", {}, "HOME/.local/share/sdtalk"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "HOME/Library/Application Support/sdtalk"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/sdtalk"),
        ("win32", {}, "HOME/AppData/Local/sdtalk"),
    ],
)
def test_data_folder_is_where_the_system_keeps_such_things(
    platform: str, variables: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SDTALK_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert data_folder() == Path(expected.replace("HOME", str(tmp_path)))
    assert not any(tmp_path.iterdir())


def test_every_asset_says_what_it_is_and_how_to_get_it() -> None:
    assert {a.name for a in OPTIONAL_ASSETS} == {
        "flame", "hubert", "dinov2", "lpips", "syncnet", "arcface", "checkpoint",
    }  # fmt: skip
    for asset in OPTIONAL_ASSETS:
        assert asset.found() is None
        with pytest.raises(InputError) as caught:
            optional_asset(asset.name)
        assert all(
            part in str(caught.value) for part in (asset.what, asset.where, asset.licence, asset.without)
        )


def test_nothing_is_found_in_half(home: Path, tmp_path: Path) -> None:
    (home / "hubert").mkdir(parents=True)
    (home / "hubert" / "config.json").write_text("{}")
    hub_file(tmp_path, assets.HUBERT, "config.json")
    assert all(asset.found() is None for asset in OPTIONAL_ASSETS)


@pytest.mark.parametrize("name, repository", [("hubert", assets.HUBERT), ("dinov2", "facebook/dinov2-base")])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_networks_are_found_in_the_hubs_cache(name: str, repository: str, file: str, tmp_path: Path) -> None:
    config = hub_file(tmp_path, repository, "config.json")
    hub_file(tmp_path, repository, file)
    assert optional_asset(name) == config.parent


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("prefix", ["", "hubert."])
def test_hubert_is_stored_as_it_was(old: bool, prefix: str, tmp_path: Path, home: Path) -> None:
    stored = add_hubert(downloaded(tmp_path / "given", tensors=weights(prefix), old=old))
    assert stored == optional_asset("hubert") == home / "hubert"
    assert {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()} == {
        "hubert/config.json",
        "hubert/model.safetensors",
    }
    assert json.loads((stored / "config.json").read_text()) == CONFIG
    found = load_file(stored / "model.safetensors")
    assert found.keys() == weights(prefix).keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(prefix).items())


@pytest.mark.parametrize(
    "config, problem",
    [
        (CONFIG | {"model_type": "wav2vec2"}, "its model_type is 'wav2vec2' instead of 'hubert'"),
        (CONFIG | {"hidden_size": 768}, "its hidden_size is 768 instead of 1024"),
        ({"model_type": "hubert", "hidden_size": 1024}, "does not say num_hidden_layers"),
        (CONFIG | {"num_hidden_layers": 24}, "its weights lack encoder.layers.23.attention.q_proj.weight"),
        (["hubert"], "its model_type is None"),
    ],
    ids=str,
)
def test_another_network_is_refused(config: object, problem: str, tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match=problem):
        add_hubert(downloaded(tmp_path / "given", config))
    assert not home.exists()


def test_damaged_and_dangerous_weights_are_refused(tmp_path: Path, home: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    whole = downloaded(tmp_path / "given")
    safe, old = whole / "model.safetensors", whole / "pytorch_model.bin"
    content = safe.read_bytes()
    safe.write_bytes(content[:-5])
    with pytest.raises(InputError, match="model.safetensors: it is damaged"):
        add_hubert(whole)
    safe.unlink()
    with pytest.raises(InputError, match="it holds no weights"):
        add_hubert(whole)
    torch.save({"a": Command()}, tmp_path / "attack")
    for bad in (
        (tmp_path / "attack").read_bytes(),
        pickle.dumps(Command(), protocol=2),
        b"",
        b"<html>",
        pickle.dumps([1], protocol=2),
    ):
        old.write_bytes(bad)
        with pytest.raises(InputError, match="pytorch_model.bin: it is damaged, or holds more than tensors"):
            add_hubert(whole)
    torch.save({"a": 1}, old)
    with pytest.raises(InputError, match="it holds more than tensors"):
        add_hubert(whole)
    (whole / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json: it is no JSON"):
        add_hubert(whole)
    with pytest.raises(InputError, match="config.json: it cannot be read"):
        add_hubert(tmp_path / "nowhere")
    assert not home.exists() and not (tmp_path / "ran").exists()


def test_an_asset_is_replaced_as_a_whole_or_not_at_all(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with replaced_asset("flame") as draft:
        (draft / "flame.safetensors").write_text("old")
    with pytest.raises(RuntimeError), replaced_asset("flame") as draft:
        (draft / "flame.safetensors").write_text("new")
        raise RuntimeError
    with pytest.raises(InputError, match="cannot be written"), replaced_asset("flame") as draft:
        (draft / "missing" / "flame.safetensors").write_text("new")
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if not source.name.endswith("-old") and target == home / "flame":
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(InputError, match="Permission denied.*SDTALK_HOME"), replaced_asset("flame") as draft:
        (draft / "flame.safetensors").write_text("new")
    monkeypatch.setattr("os.replace", replace)
    assert optional_asset("flame").read_text() == "old"
    assert [path.name for path in home.iterdir()] == ["flame"]
    with replaced_asset("flame") as draft:
        (draft / "flame.safetensors").write_text("new")
    assert optional_asset("flame").read_text() == "new"
    assert [path.name for path in home.iterdir()] == ["flame"]


def test_a_data_folder_that_cannot_be_made_is_told(home: Path) -> None:
    home.write_text("a file")
    with pytest.raises(InputError, match="cannot be written.*SDTALK_HOME"), replaced_asset("flame"):
        pass
