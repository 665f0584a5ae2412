"""Tests of assets that the user adds: where they lie, what is found, and that they are replaced whole."""

import os
import sys
from pathlib import Path

import pytest

from sdtalk.errors import InputError
from sdtalk.weights import assets
from sdtalk.weights.assets import OPTIONAL_ASSETS, data_folder, optional_asset, replaced_asset


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
