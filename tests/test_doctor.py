"""Tests of `sdtalk doctor`: what is there, what is missing, where to get it; without the network."""

import importlib.metadata
import json
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_weights import hub_file
from toy import toy_base, toy_model

import sdtalk
from sdtalk.cli.doctor import LIBRARIES, Finding, as_text, examine
from sdtalk.cli.main import main
from sdtalk.published.convert import published_config
from sdtalk.rendering.triton import Lack
from sdtalk.weights.assets import HUBERT, OPTIONAL_ASSETS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that does not exist yet, an empty cache of the Hub, and no network."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("asks the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path / "home"


def assets() -> dict[str, Finding]:
    return {asset.name: found for asset, found in zip(OPTIONAL_ASSETS, examine().assets, strict=True)}


def models() -> dict[str, Finding]:
    return {found.name: found for found in examine().models}


def test_a_fresh_machine_has_mini_and_is_told_of_the_rest() -> None:
    found = examine()
    assert all(f.found and f.licence for f in found.weights) and len(found.weights) == 4
    assert not any(f.found for f in found.assets) and len(found.assets) == len(OPTIONAL_ASSETS)
    for finding in found.assets:
        text = " ".join(finding.details)
        assert "https://" in text and "without it" in text and finding.licence
    assert [(m.name, m.found) for m in found.models] == [("mini", True)]


def test_assets_are_found_where_they_are_kept(home: Path, toy_home: Path) -> None:
    shutil.copytree(toy_home / "flame", home / "flame")
    found = assets()
    assert [name for name, f in found.items() if f.found] == ["flame"]
    assert found["flame"].details == (str(home / "flame" / "flame.safetensors"),)
    shutil.copytree(toy_home / "hubert", home / "hubert")
    found = assets()
    assert found["hubert"].found and found["hubert"].details == (str(home / "hubert"),)
    (home / "hubert" / "config.json").unlink()
    assert not assets()["hubert"].found


@pytest.mark.parametrize("name, repository", [("hubert", HUBERT), ("dinov2", "facebook/dinov2-base")])
def test_assets_are_found_in_the_cache_of_the_hub(tmp_path: Path, name: str, repository: str) -> None:
    hub_file(tmp_path, repository, "config.json")
    assert not assets()[name].found
    folder = hub_file(tmp_path, repository, "model.safetensors").parent
    assert assets()[name].found and assets()[name].details == (str(folder),)


def test_models_are_told_what_they_lack(home: Path, toy_home: Path) -> None:
    toy_base().save_pretrained(home / "models" / "full")
    toy_model().save_pretrained(home / "models" / "small")
    found = models()
    assert list(found) == ["mini", "full", "small"]
    assert found["small"].found and found["small"].details == (str(home / "models" / "small"),)
    assert not found["full"].found and "cannot be used without flame and hubert" in found["full"].details[0]
    shutil.copytree(toy_home / "flame", home / "flame")
    assert "cannot be used without hubert, see above" in models()["full"].details[0]
    shutil.copytree(toy_home / "hubert", home / "hubert")
    assert models()["full"].found
    (home / "models" / "full" / "model.safetensors").unlink()
    assert not models()["full"].found and "model.safetensors" in models()["full"].details[0]
    (home / "models" / "small" / "config.json").write_text("{")
    assert not models()["small"].found and "no JSON" in models()["small"].details[0]


def test_the_authors_checkpoint_counts_once_it_is_converted(home: Path) -> None:
    folder = home / "models" / "theirs"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    assert not assets()["checkpoint"].found
    (folder / "config.json").write_text(json.dumps(asdict(published_config())))
    assert assets()["checkpoint"].found and assets()["checkpoint"].details == (f"{folder}, converted",)


def test_libraries_are_looked_for_and_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sdtalk.cli.doctor.find_spec", lambda name: None)
    absent = examine().libraries
    assert not any(f.found for f in absent)
    assert all("install" in f.details[0] and "without it" in f.details[1] for f in absent)
    monkeypatch.setattr("sdtalk.cli.doctor.find_spec", lambda name: object())
    *there, weights = examine().libraries
    assert all(f.found for f in there) and len(there[0].details) == 1 and not weights.found


def test_weights_of_face_alignment_are_looked_for_where_it_keeps_them(tmp_path: Path) -> None:
    assert "without it our own landmarks are used" in examine().libraries[-1].details
    place = tmp_path / "torch" / "hub" / "checkpoints" / "2DFAN4-11f355bf06.pth.tar"
    assert str(place) in examine().libraries[-1].details[0]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    assert examine().libraries[-1] == Finding("landmark network of face_alignment", True, (str(place),))


def test_an_import_would_be_an_error(tmp_path: Path) -> None:
    """Optional libraries that break when imported are found all the same."""
    for name in ("gsplat", "tinycudann", "face_alignment", "c2pa", "cryptography"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    check = "import sys; sys.path.insert(0, sys.argv[1]); from sdtalk.cli.doctor import examine; "
    check += "assert all(f.found for f in examine().libraries[:-1])"
    done = subprocess.run([sys.executable, "-c", check, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_libraries_of_every_extra_are_looked_for() -> None:
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    wanted = {
        Requirement(line).name.lower() for lines in extras["optional-dependencies"].values() for line in lines
    }
    named = " ".join(f.name for f in examine().libraries).lower().replace("_", "-")
    named = named.replace("yaml", "pyyaml").replace("c2pa,", "c2pa-python,")
    assert not [name for name in wanted - {"sdtalk"} if name not in named]
    (tinycudann,) = (library for library in LIBRARIES if library.modules == ("tinycudann",))
    assert "no package index has it" in tinycudann.remedy and "git+https://github.com/" in tinycudann.remedy


def test_what_is_missing_of_several_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdtalk.cli.doctor.find_spec", lambda name: None if name == "datasets" else object())
    (training,) = (f for f in examine().libraries if "datasets" in f.name)
    assert not training.found and training.details[0].startswith("datasets: install them: pip install")


def test_versions_are_told() -> None:
    gradio, training, *_ = examine().libraries
    assert gradio.details == (importlib.metadata.version("gradio"),)
    assert training.details[0].endswith(importlib.metadata.version("pyyaml"))
    assert examine().machine[0].details[0].startswith(f"{sdtalk.__version__} on ")


def gpu_rasteriser() -> Finding:
    (found,) = (f for f in examine().machine if f.name.startswith("rasteriser"))
    return found


def test_the_rasteriser_that_a_gpu_would_use_is_named_or_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sdtalk.rendering.triton.lacking", lambda: None)
    monkeypatch.setattr("sdtalk.rendering.triton.c_compiler", lambda: "/usr/bin/gcc")
    assert gpu_rasteriser().found and gpu_rasteriser().details[0].endswith("with /usr/bin/gcc")
    monkeypatch.setattr("sdtalk.rendering.triton.lacking", lambda: Lack("It is off", "Switch it on"))
    assert not gpu_rasteriser().found and gpu_rasteriser().details[0] == "It is off. Switch it on"


def test_the_command_lists_it_for_people(home: Path, toy_home: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.copytree(toy_home / "flame", home / "flame")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert printed.out == as_text(examine()) + "\n" and not printed.err
    lines = printed.out.splitlines()
    titles = [line for line in lines if line and not line.startswith(" ")]
    assert titles == [
        "This machine", "Weights in the package", "Files that cannot come with it", "Optional libraries",
        "Voices for --text", "Models",
    ]  # fmt: skip
    assert any(line.startswith("  found    the FLAME head model") and "[FLAME 2020" in line for line in lines)
    assert f"           {home / 'flame' / 'flame.safetensors'}" in lines
    assert any(line.startswith("  missing  the speech network HuBERT-large") for line in lines)
    assert any("sdtalk assets add hubert FOLDER" in line for line in lines)
    assert f"           {home} (SDTALK_HOME moves it)" in lines
    assert "  found    mini" in lines


def test_a_broken_config_does_not_end_the_examination(home: Path, capsys: pytest.CaptureFixture) -> None:
    folder = home / "models" / "odd"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": "odd"}))
    assert main(["doctor"]) == 0
    assert "  missing  odd" in capsys.readouterr().out.splitlines()
