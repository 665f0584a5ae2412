"""Tests of a prepared data set's index: written and read back; damaged ones are refused by name."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from made_up_data import make_prepared

from sdtalk.errors import InputError
from training.data.dataset import PreparedDataset
from training.data.entries import ClipMetadata
from training.data.index import Index


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "set"
    make_prepared(folder, clips=2, frames=3, splits=("train", "dev"))
    return folder


def changed(folder: Path, **changes: object) -> str:
    return json.dumps(json.loads((folder / "index.json").read_text()) | changes)


def test_an_index_survives_being_written(folder: Path) -> None:
    index = PreparedDataset.open(folder).index
    assert Index.from_json(index.to_json(), "here") == index
    assert [clip.key for clip in index.of("dev")] == ["dev-00", "dev-01"]


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"version": 2}, "of version 2, and this program reads version 1"),
        ({"tracker": "eyes"}, "'eyes' is none of face_mesh, flame"),
        ({"sound": 3}, "3 is none of mel, hubert"),
        ({"clips": []}, "names no clips"),
        ({"clips": [{}]}, "damaged"),
        ({"clips": 5}, "damaged"),
        ({"sound_width": "80"}, "sound_width is '80'"),
    ],
)
def test_a_damaged_index_is_refused(folder: Path, changes: dict, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)):
        Index.from_json(changed(folder, **changes), "index.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}"])
def test_what_is_no_index_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="damaged"):
        Index.from_json(text, "index.json")


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"key": "a.b"}, "no key of a clip"),
        ({"key": "dev-00"}, "two clips are called 'dev-00'"),
        ({"split": "all"}, "none of the splits"),
        ({"frames": 4}, "its pieces have 3"),
        ({"frames": 0}, "frames"),
        ({"own_speech": 1}, "own_speech"),
        ({"person": ""}, "person"),
        ({"shard": "../x.tar"}, "no name of a shard"),
        ({"record": [0, 1]}, "not 3 whole numbers"),
        ({"pieces": [[0, 1, 2, 1, 2]]}, "not all of its frames in order"),
        ({"pieces": [[0, -1, 2, 0, 3]]}, "not 5 whole numbers"),
    ],
)
def test_a_damaged_clip_is_refused(folder: Path, changes: dict, problem: str) -> None:
    clips = json.loads((folder / "index.json").read_text())["clips"]
    assert clips[3]["key"] == "train-01"
    clips[3] |= changes
    with pytest.raises(InputError, match=problem):
        Index.from_json(changed(folder, clips=clips), "index.json")


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = PreparedDataset.open(folder).index
    sizes = {"clips/train-00000.tar": 10**9, "frames/train-00000.tar": 10**9, "clips/dev-00000.tar": 10**9}
    with pytest.raises(InputError, match=r"set/frames/dev-00000\.tar: this shard is missing"):
        index.check_shards(sizes.get, "set")


def test_a_shard_that_is_cut_short_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    copied = shutil.copytree(folder, tmp_path / "copied")
    shard = copied / "frames" / "train-00000.tar"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)
    with pytest.raises(
        InputError, match=r"frames/train-00000\.tar: this shard is cut short.*Copy this shard"
    ):
        PreparedDataset.open(copied)


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"no folder|no such folder"):
        PreparedDataset.open(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"index\.json: there is no such file"):
        PreparedDataset.open(tmp_path)


def test_facts_are_read_strictly(folder: Path) -> None:
    metadata = PreparedDataset.open(folder).clip(PreparedDataset.open(folder).index.clips[0]).metadata
    text = json.dumps(dataclasses.asdict(metadata))
    assert ClipMetadata.from_json(text.encode(), "here") == metadata
    for wrong in (
        "{",
        "[]",
        '{"key": "a"}',
        text.replace('"video"', '"vidoe"'),
        text.replace('"dev"', '"all"'),
    ):
        with pytest.raises(InputError, match="here"):
            ClipMetadata.from_json(wrong.encode(), "here")
