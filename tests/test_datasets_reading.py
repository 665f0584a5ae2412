"""Tests of the data set format: the library `datasets` reads what training/prepare.py writes."""

from pathlib import Path

import numpy as np
import pytest
from made_up_data import make_prepared

from training.data.dataset import PreparedDataset

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    folder = tmp_path_factory.mktemp("data") / "set"
    return make_prepared(folder, clips=3, frames=3, splits=("train", "dev"), shard_mb=0.3)


def test_frames_stream_in_order(prepared: PreparedDataset) -> None:
    stream = datasets.load_dataset(prepared.store.source, "frames", split="train", streaming=True)
    samples = list(stream)
    assert [s["__key__"] for s in samples] == [f"train-{c:02d}-{f:06d}" for c in range(3) for f in range(3)]
    assert samples[4]["json"] == {"clip": "train-01", "frame": 1, "person": "person-1"}
    entry = prepared.index.of("train")[1]
    image, mask = prepared.piece(entry.pieces[0])[1].decoded()
    assert np.array_equal(np.array(samples[4]["jpg"]), (image.permute(1, 2, 0) * 255).round().numpy())
    assert np.array_equal(np.array(samples[4]["mask.png"]), (mask[0] * 255).round().numpy())


def test_clips_stream_with_their_arrays(prepared: PreparedDataset) -> None:
    samples = list(datasets.load_dataset(prepared.store.source, "clips", split="dev", streaming=True))
    assert [s["__key__"] for s in samples] == ["dev-00", "dev-01", "dev-02"]
    clip = prepared.clip(prepared.index.of("dev")[2])
    assert np.array_equal(np.array(samples[2]["npz"]["mesh"], np.float32), clip.mesh.numpy())
    assert np.array_equal(np.array(samples[2]["npz"]["mel"], np.float16), clip.features.numpy())
    metadata = samples[2]["json"]
    assert metadata["crop"] == {"left": 3.0, "top": 4.0, "side": 600.0} and metadata["notes"] == []
    assert metadata["quality"] == {"face_px": 200.0, "yaw_deg": [-5.0, 0.0, 5.0]}


def test_sets_are_built_with_all_splits(prepared: PreparedDataset, tmp_path: Path) -> None:
    built = datasets.load_dataset(prepared.store.source, "frames", cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in built.items()} == {"train": 9, "dev": 9}
    built = datasets.load_dataset(prepared.store.source, "clips", cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in built.items()} == {"train": 3, "dev": 3}
    assert "mesh" in built["train"].features["npz"]


def test_shards_are_split_between_nodes(prepared: PreparedDataset) -> None:
    from datasets.distributed import split_dataset_by_node

    stream = datasets.load_dataset(prepared.store.source, "frames", split="train", streaming=True)
    assert stream.num_shards > 1
    parts = [[s["__key__"] for s in split_dataset_by_node(stream, rank, 2)] for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == [s["__key__"] for s in stream] and all(parts)
