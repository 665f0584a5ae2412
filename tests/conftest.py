"""Shared pytest configuration: settings made before PyTorch is imported, and fixtures made once for all test files."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import parallel
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub_stand_in import HubStandIn

    from sdtalk.model import SDTalk

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the programs do, see sdtalk/process.py


def pytest_configure(config: pytest.Config) -> None:
    """Let the plugin in parallel.py share the tests out over processes; let programs under test be interrupted."""
    config.pluginmanager.register(parallel)
    import torch  # after the settings above

    if not torch.cuda.is_available():
        os.environ.setdefault("TRITON_INTERPRET", "1")  # read when a kernel is declared
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a script's background; children inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def memory_is_handed_back() -> "Iterator[None]":
    """Give the system what a file's tests no longer use: commands that they call make glibc keep it."""
    yield
    from sdtalk.process import hand_back_memory

    hand_back_memory()


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's data folder for SDTALK_HOME, with a made-up FLAME and a narrow HuBERT; not to be changed."""
    from toy import store_toy_assets

    home = tmp_path_factory.mktemp("home")
    store_toy_assets(home)
    return home


@pytest.fixture(scope="session")
def published_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as the authors' trainer writes it, by the parity rule; 764 MB, not to be changed."""
    import torch
    from published import SETTINGS, rule_checkpoint

    path = tmp_path_factory.mktemp("published") / "SDGTalk.pt"
    torch.save({"meta_cfg": SETTINGS, "model": rule_checkpoint()}, path)
    return path


@pytest.fixture(scope="session")
def converted(published_file: Path) -> Path:
    """The folder that `sdtalk convert` makes of it."""
    from sdtalk.cli.main import main

    folder = published_file.parent / "converted"
    assert main(["convert", str(published_file), str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def published_model(converted: Path) -> "SDTalk":
    """The model in that folder; not to be changed."""
    from sdtalk.checkpoint import load_model

    return load_model(converted)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[HubStandIn]":
    """A stand-in for the Hugging Face Hub that the client of this process talks to, with an empty cache."""
    from hub_stand_in import HubStandIn

    with HubStandIn() as stand_in:
        stand_in.point_to(monkeypatch, tmp_path / "hub-home")
        yield stand_in


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; what Gradio keeps goes beside it."""
    import tempfile

    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    return kept
