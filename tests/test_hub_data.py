"""Tests of prepared data sets on the Hub stand-in: read by ranges, and streamed by the library `datasets`."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_stand_in import OWNER, HubStandIn
from huggingface_hub import HfApi
from made_up_data import make_prepared
from PIL import Image

from sdtalk.errors import InputError
from training.data import store
from training.data.dataset import PreparedDataset, clip_frames
from training.data.entries import Span

REPO = f"{OWNER}/talkers"
SOURCE = f"hf://datasets/{REPO}"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return make_prepared(tmp_path_factory.mktemp("sets") / "talkers", clips=3, frames=6, shard_mb=0.4)


def shared(prepared: PreparedDataset, hub: HubStandIn) -> str:
    """Upload it; its commit."""
    api = HfApi()
    api.create_repo(REPO, repo_type="dataset", private=True, exist_ok=True)
    api.upload_folder(repo_id=REPO, repo_type="dataset", folder_path=prepared.store.source)
    return hub.store.repository("dataset", REPO).head.sha


@pytest.fixture
def far(
    prepared: PreparedDataset, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PreparedDataset]:
    monkeypatch.setattr(store, "RETRY_WAITS_S", (0, 0))
    shared(prepared, hub)
    yield PreparedDataset.open(SOURCE)


def read_bytes(hub: HubStandIn) -> int:
    ends = [re.fullmatch(r"bytes=(\d+)-(\d+)", text) for text in hub.ranges]
    return sum(int(end[2]) - int(end[1]) + 1 for end in ends if end)


def test_a_set_on_the_hub_is_the_set_it_was(
    prepared: PreparedDataset, far: PreparedDataset, hub: HubStandIn
) -> None:
    assert far.index == prepared.index
    shards = {span.shard for _, span in prepared.index.spans()}
    assert len([s for s in shards if s.startswith("frames/")]) > 1
    hub.ranges.clear()
    expected = 0
    for entry in far.index.clips:
        there, here = far.clip(entry), prepared.clip(entry)
        assert there.metadata == here.metadata
        frames = torch.arange(entry.frames)
        assert torch.equal(there.sound(frames), here.sound(frames))
        assert torch.equal(there.mesh, here.mesh) and torch.equal(there.audio, here.audio)
        for (number, *there_frame), (same, *here_frame) in zip(
            clip_frames(far, entry), clip_frames(prepared, entry), strict=True
        ):
            assert number == same
            assert all(torch.equal(a, b) for a, b in zip(there_frame, here_frame, strict=True))
        expected += sum(span.size for span in (entry.record, *entry.pieces))
    assert read_bytes(hub) == expected  # and not a byte beside what was asked for


def test_one_piece_costs_its_bytes_only(far: PreparedDataset, hub: HubStandIn) -> None:
    piece = far.index.clips[0].pieces[-1]
    hub.ranges.clear()
    frames = far.piece(piece)
    assert list(frames) == list(range(piece.first, piece.first + piece.count))
    assert hub.ranges == [f"bytes={piece.offset}-{piece.offset + piece.size - 1}"]


FAULTS = {
    "an error": {"status": 503, "times": 2},
    "a broken connection": {"reset_after_bytes": 0, "times": 2},
    "half an answer": {"truncate_bytes": 700, "times": 2},
    "more errors than the client takes": {"status": 500, "times": 8},
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_between_are_got_over(
    name: str, prepared: PreparedDataset, far: PreparedDataset, hub: HubStandIn
) -> None:
    hub.fail("GET /large", **FAULTS[name])
    for here, there in zip(prepared.index.clips, far.index.clips, strict=True):
        assert prepared.piece(here.pieces[0]) == far.piece(there.pieces[0])


def test_a_hub_that_stays_away_is_told(far: PreparedDataset, hub: HubStandIn) -> None:
    hub.down()
    with pytest.raises(InputError, match=r"hf://datasets/.*no answer"):
        far.piece(far.index.clips[0].pieces[0])
    hub.up()


@pytest.mark.parametrize("source", ["hf://datasets/somebody/nothing", f"{SOURCE}@nowhere"])
def test_sets_that_are_not_there(source: str, far: PreparedDataset) -> None:
    with pytest.raises(InputError, match="there is no such file, or no access"):
        PreparedDataset.open(source)


def test_an_earlier_revision_stays_readable(
    far: PreparedDataset, prepared: PreparedDataset, hub: HubStandIn, tmp_path: Path
) -> None:
    earlier = hub.store.repository("dataset", REPO).head.sha
    later = shared(make_prepared(tmp_path / "talkers", clips=1, frames=4, seed=5), hub)
    assert PreparedDataset.open(f"{SOURCE}@{earlier}").index == prepared.index
    newest = PreparedDataset.open(f"{SOURCE}@{later}")
    assert len(newest.index.clips) == 1
    assert newest.piece(newest.index.clips[0].pieces[0])


def test_a_shard_that_was_cut_short_on_the_way_up(far: PreparedDataset, hub: HubStandIn) -> None:
    shard = far.index.clips[0].record.shard
    HfApi().upload_file(path_or_fileobj=b"x" * 512, path_in_repo=shard, repo_id=REPO, repo_type="dataset")
    commit = hub.store.repository("dataset", REPO).head.sha
    with pytest.raises(InputError, match="this shard is cut short"):
        PreparedDataset.open(f"{SOURCE}@{commit}")
    span = far.index.clips[0].record
    with pytest.raises(InputError, match="not what was written there"):
        far.store.span(Span(span.shard, 0, 512, span.crc32))


def test_datasets_streams_it(
    prepared: PreparedDataset, far: PreparedDataset, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", False)  # it asks elsewhere
    hub.requests.clear()
    stream = datasets.load_dataset(REPO, "frames", split="train", streaming=True)
    entry = prepared.index.clips[0]
    samples = {s["json"]["frame"]: s for s in stream if s["json"]["clip"] == entry.key}
    assert sorted(samples) == list(range(entry.frames))
    encoded = prepared.piece(entry.pieces[0])[0]
    with Image.open(io.BytesIO(encoded.jpg)) as here:
        assert samples[0]["jpg"].tobytes() == here.tobytes()
    clips = list(datasets.load_dataset(REPO, "clips", split="train", streaming=True))
    assert [c["json"]["key"] for c in clips] == [c.key for c in prepared.index.clips]
    assert any(r.startswith("GET /large") for r in hub.requests)
