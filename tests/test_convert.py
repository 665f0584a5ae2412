"""Tests of the checkpoint conversion: a made-up file of the authors' layout loads; anything else is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from sdtalk.checkpoint import load_model
from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.published.checkpoint import table_edges
from sdtalk.published.convert import convert
from sdtalk.published.keys import our_tensors, published_layout


def test_every_tensor_arrives(published_file: Path, converted: Path, published_model: SDTalk) -> None:
    ours = published_model.state_dict()
    seen = set()
    for key, tensor in torch.load(published_file, mmap=True)["model"].items():
        for name, part in our_tensors(key, tensor).items():
            assert torch.equal(ours[name], part), name
            seen.add(name)
    assert {name for name in ours if name not in seen} == {n for n in ours if n.endswith(".offsets")}
    card = (converted / "README.md").read_text(encoding="utf-8")
    assert "SHA-256" in card and "licence" in card


def test_the_hub_way_of_loading_gives_the_same_model(converted: Path, published_model: SDTalk) -> None:
    loaded = SDTalk.from_pretrained(converted)
    assert loaded.config == published_model.config and not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.parameters(), published_model.parameters(), strict=True)
    )


TINY = {
    key: torch.zeros(()).to(getattr(torch, dtype)).expand(shape)
    for key, (shape, dtype) in published_layout().items()
}


def tampered(path: Path, **changes: object) -> Path:
    """A file of the published layout with some tensors replaced (None: removed); zeros take no room."""
    tensors: dict[str, object] = {k: v for k, v in TINY.items() if changes.get(k, 0) is not None}
    tensors |= {key: edges_or(key, value) for key, value in tensors.items()}
    tensors |= {key: value for key, value in changes.items() if value is not None}
    torch.save({"model": tensors}, path)
    return path


def edges_or(key: str, value: object) -> object:
    return table_edges() if key.endswith(".offsets") else value


class Malicious:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


WRONG = {
    "missing": ({"head_base": None}, "1 of 679 tensors are missing, first 'head_base'"),
    "stage 1": (
        {key: None for key in published_layout() if key.startswith("motion_net_")},
        "looks like a stage-1 model",
    ),
    "extra": ({"head_bas": torch.zeros(1)}, "'head_bas' does not belong there"),
    "shape": ({"head_base": torch.zeros(5023, 255)}, "has the shape (5023, 255) instead of (5023, 256)"),
    "dtype": ({"head_base": torch.zeros(5023, 256).half()}, "is of type float16 instead of float32"),
    "NaN": ({"head_base": torch.full((5023, 256), torch.nan)}, "holds values that are not numbers"),
    "no tensor": ({"head_base": [1.0]}, "'head_base' is no tensor"),
    "tables": ({"motion_net_dense.encoder_xy.offsets": table_edges() + 8}, "hash table sizes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tampered_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    changes, reason = WRONG[case]
    path = tampered(tmp_path / "SDGTalk.pt", **changes)
    with pytest.raises(InputError, match="SDGTalk.pt") as error:
        convert(path, tmp_path / "out")
    assert reason in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["SDGTalk.pt"]


def malicious_pickle(path: Path) -> None:
    torch.save({"model": {"head_base": Malicious()}}, path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Malicious()}))


def cut_short(path: Path) -> None:
    torch.save({"model": {"head_base": torch.zeros(5023, 256)}}, path)
    path.write_bytes(path.read_bytes()[:100_000])


def no_model(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def other_sound(path: Path) -> None:
    tampered(path)
    held = torch.load(path, weights_only=True)
    torch.save({**held, "meta_cfg": {"AUDIO_DRIVE_MODEL": {"AUDIO_EXTRACTOR": "wav2vec2"}}}, path)


REFUSED = {
    malicious_pickle: "could run code",
    plain_pickle: "could run code",
    cut_short: "no complete PyTorch checkpoint",
    no_model: "holds no 'model'",
    other_sound: "'wav2vec2' features",
    lambda path: path.write_text("hello"): "",
    lambda path: None: "no such file",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda m: getattr(m, "__name__", "?"))
def test_files_that_are_something_else_are_refused(
    make, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "SDGTalk.pt"
    make(path)
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(path), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert (
        REFUSED[make] in printed.err
        and printed.err.count("\n") == 1
        and "never be printed" not in printed.out
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "keep.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(tampered(tmp_path / "SDGTalk.pt"), tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        convert(tmp_path / "SDGTalk.pt", tmp_path / "nowhere" / "out")
    assert (tmp_path / "out" / "keep.txt").read_text() == "mine"


def test_a_converted_checkpoint_with_another_config_is_refused(converted: Path, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path / "copy", copy_function=lambda a, b: Path(b).symlink_to(a))
    values = json.loads((converted / "config.json").read_text())
    (tmp_path / "copy" / "config.json").unlink()
    (tmp_path / "copy" / "config.json").write_text(json.dumps(values | {"plane_size": 296, "head_width": 64}))
    with pytest.raises(InputError, match="has the shape"):
        load_model(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(json.dumps(values | {"image_encoder": "vgg"}))
    with pytest.raises(InputError, match="image_encoder = 'vgg' is none of"):
        load_model(tmp_path / "copy")
