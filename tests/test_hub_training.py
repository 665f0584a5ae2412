"""Tests of training runs shared on the Hub stand-in: uploaded, interrupted and resumed from there."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from hub_stand_in import OWNER, READER, HubStandIn
from huggingface_hub import ModelCard
from toy_training import prepared_for, settings_file, weights

from sdtalk.checkpoint import load_model, locate
from training import run_outputs, train

REPO = f"{OWNER}/head"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_for(tmp_path_factory.mktemp("prepared") / "mini", "mini", splits=("train", "dev"))


def trained(path: Path, *options: str) -> Path:
    assert train.main([str(path), *options]) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return path.parent / "run"


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without the Hub."""
    return trained(settings_file(tmp_path_factory.mktemp("straight"), data))


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    AcceleratorState._reset_state(reset_partial_state=True)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_is_shared_and_goes_on_from_the_hub(
    data: Path, straight: Path, tmp_path: Path, hub: HubStandIn
) -> None:
    sharing = {"every": 2, "state": True}
    path = settings_file(tmp_path / "here", data, hub=sharing)
    trained(path, "--push-to-hub", REPO, "--stop-at", "2")
    assert hub.model().private and load_model(REPO).config.template == "face_mesh"
    assert same(weights(path.parent / "run" / "model"), weights(locate(REPO)))
    assert json.loads(hub.model().head.files["training/training.json"].content)["step"] == 2
    card = ModelCard.load(REPO)
    assert "2 of 4 steps" in card.text and "Not measured yet" in card.text

    there = settings_file(tmp_path / "there", data, hub=sharing)
    trained(there, "--push-to-hub", REPO, "--resume", REPO)
    assert same(weights(there.parent / "run" / "model"), weights(straight / "model"))
    assert same(weights(locate(REPO)), weights(straight / "model"))
    assert json.loads(hub.model().head.files["training/training.json"].content)["step"] == 4
    titles = [commit.title for commit in hub.model().commits[1:]]
    assert titles == ["Step 2 of 4", "State of step 2", "Step 4 of 4", "State of step 4"]


def test_a_hub_that_goes_away_changes_nothing_of_the_training(
    data: Path,
    straight: Path,
    tmp_path: Path,
    hub: HubStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr(run_outputs, "UPLOAD_SECONDS", 1.0)
    path = settings_file(tmp_path / "here", data, hub={"every": 1})
    hub.fail("POST .*/commit/", status=500, times=-1)
    run = trained(path, "--push-to-hub", REPO)
    assert same(weights(run / "model"), weights(straight / "model"))
    out = capsys.readouterr()
    assert f"'Step 4 of 4' is not on {REPO} (500 injected)" in out.out + out.err
    assert len(hub.model().commits) == 1 and f"hf upload {REPO} {run / 'model'} ." in out.out + out.err


def test_a_hub_that_refuses_is_told_before_training(
    data: Path,
    tmp_path: Path,
    hub: HubStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    path = settings_file(tmp_path / "here", data)
    monkeypatch.setenv("HF_TOKEN", READER)
    assert train.main([str(path), "--push-to-hub", REPO]) == 2
    assert "may not write there" in capsys.readouterr().err
    assert not list((path.parent / "run").glob("checkpoint-*"))


def test_nothing_to_go_on_from(
    data: Path, tmp_path: Path, hub: HubStandIn, capsys: pytest.CaptureFixture
) -> None:
    path = settings_file(tmp_path / "here", data, hub={"every": 2}, steps=2)
    trained(path, "--push-to-hub", REPO)
    there = settings_file(tmp_path / "there", data)
    assert train.main([str(there), "--resume", REPO]) == 2
    assert "it has no folder training/, the state of a training that goes on" in capsys.readouterr().err
