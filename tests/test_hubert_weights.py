"""Tests of HuBERT's files added by the user: read strictly, stored whole, and heard through as they were."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy import toy_hubert_config
from transformers import HubertForCTC

from sdtalk.errors import InputError
from sdtalk.speech.hubert.weights import add_hubert, read_hubert
from sdtalk.weights.assets import optional_asset

SMALL = {"hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 4}
SMALL |= {"num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 64}
"""As wide as HuBERT-large, and small where it may be."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that does not exist yet, and an empty cache of the Hub."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech recogniser's folder, as the Hub's download makes it; not to be changed."""
    path = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(0)
    HubertForCTC(toy_hubert_config(**SMALL)).save_pretrained(path)
    return path


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def given(
    folder: Path, recogniser: Path, config: object = None, tensors: dict | None = None, old: bool = False
) -> Path:
    """The recogniser's folder with another config or other weights, or weights in the old format."""
    folder.mkdir()
    values = json.loads((recogniser / "config.json").read_text())
    values = values | config if isinstance(config, dict) else config or values
    (folder / "config.json").write_text(json.dumps(values))
    tensors = tensors_of(recogniser) if tensors is None else tensors
    if old:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("prefix", ["", "hubert."])
def test_hubert_is_stored_as_it_was(
    old: bool, prefix: str, recogniser: Path, tmp_path: Path, home: Path
) -> None:
    tensors = {k.replace("hubert.", prefix): v for k, v in tensors_of(recogniser).items()}
    folder = given(tmp_path / "given", recogniser, tensors=tensors, old=old)
    stored = add_hubert(folder)
    assert stored == optional_asset("hubert") == home / "hubert"
    assert {p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()} == {
        "hubert/config.json",
        "hubert/model.safetensors",
    }
    assert (stored / "config.json").read_text() == (folder / "config.json").read_text()
    was, now = read_hubert(recogniser).state_dict(), read_hubert(stored).state_dict()
    assert was.keys() == now.keys() and all(torch.equal(was[name], tensor) for name, tensor in now.items())


@pytest.mark.parametrize(
    "config, problem",
    [
        ({"model_type": "wav2vec2"}, "config.json: it describes 'wav2vec2', not HuBERT"),
        ({"hidden_size": 768}, "its hidden_size is 768 instead of 1024"),
        ({"num_hidden_layers": 24}, "tensors are missing or misshapen, first 'encoder.layers.1."),
        ({"hidden_act": "none"}, "no network can be built from it"),
        ({"num_attention_heads": 3}, "no network can be built from it"),
        (["hubert"], "config.json: it does not describe a HuBERT network"),
    ],
    ids=str,
)
def test_another_network_is_refused(
    config: object, problem: str, recogniser: Path, tmp_path: Path, home: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        add_hubert(given(tmp_path / "given", recogniser, config))
    assert not home.exists()


def test_weights_that_are_not_all_there_are_refused(recogniser: Path, tmp_path: Path, home: Path) -> None:
    """One tensor in the middle: a look at the first and the last layer would not find it."""
    tensors = tensors_of(recogniser)
    del tensors["hubert.feature_projection.layer_norm.bias"]
    problem = "1 of .* tensors are missing or misshapen, first 'feature_projection.layer_norm.bias'"
    with pytest.raises(InputError, match=problem):
        add_hubert(given(tmp_path / "given", recogniser, tensors=tensors))
    assert not home.exists()


def test_damaged_and_dangerous_weights_are_refused(recogniser: Path, tmp_path: Path, home: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    whole = given(tmp_path / "given", recogniser)
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
    with pytest.raises(InputError, match="config.json: it does not describe a HuBERT network"):
        add_hubert(whole)
    with pytest.raises(InputError, match="config.json: there is no such file"):
        add_hubert(tmp_path / "nowhere")
    assert not home.exists() and not (tmp_path / "ran").exists()
