"""Tests of the data loader: batches are what the clips hold, however they are shared, resumed or damaged."""

import itertools
import shutil
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_data import HUBERT_WIDTH, make_prepared, packed, write_work

from sdtalk.errors import InputError
from training.data.dataset import PreparedDataset, flame_model
from training.data.loader import PairLoader, track_from_batch

CLIPS, FRAMES = 3, 9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return make_prepared(tmp_path_factory.mktemp("data") / "set", clips=CLIPS, frames=FRAMES, shard_mb=0.5)


@pytest.fixture
def copied(prepared: PreparedDataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared.store.source, tmp_path / "copied"))


def loader(prepared: PreparedDataset, per_device: int = 2, steps: int = 6, **options) -> PairLoader:
    return PairLoader(prepared, per_device, steps, **{"open_clips": 3, "samples_per_clip": 2} | options)


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def joined(parts: list[dict]) -> dict:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def spoil(prepared: PreparedDataset, folder: Path, keys: set[str], record: bool = False) -> None:
    for clip, span in prepared.index.spans():
        if clip.key in keys and (record or span is not clip.record):
            with (folder / span.shard).open("r+b") as file:
                file.seek(span.offset + span.size // 2)
                byte = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([byte[0] ^ 1]))


def test_a_batch_is_what_the_clip_has(prepared: PreparedDataset) -> None:
    batch = next(iter(loader(prepared, per_device=3)))
    clip_of = {}
    for entry in prepared.index.clips:
        clip = prepared.clip(entry)
        for frame in range(FRAMES):
            clip_of[clip.poses[frame].numpy().tobytes()] = (clip, frame)
    for i in range(3):
        source, first = clip_of[batch["source_pose"][i].numpy().tobytes()]
        target, second = clip_of[batch["target_pose"][i].numpy().tobytes()]
        assert source.entry == target.entry
        for name, frame in (("source", first), ("target", second)):
            assert torch.equal(batch[f"{name}_mesh"][i], target.mesh[frame])
            assert torch.equal(batch[f"{name}_mouth"][i], target.mouth[frame])
            piece = next(p for p in target.entry.pieces if p.first <= frame < p.first + p.count)
            image, mask = prepared.piece(piece)[frame].decoded()
            assert torch.equal(batch[f"{name}_image"][i], image)
            assert torch.equal(batch[f"{name}_mask"][i], mask)
            points = track_from_batch(batch, name).completion_points[i]
            assert torch.allclose(points, target.track.completion_points[frame], atol=1e-5)
        assert torch.equal(batch["target_sound"][i], target.sound(torch.tensor([second]))[0])
        assert batch["target_own_speech"][i] == 1
        left, top, right, bottom = target.known_box
        known = batch["target_known"][i, 0]
        assert known[top:bottom, left:right].all() and known.sum() == (right - left) * (bottom - top)


def test_what_lies_beyond_the_videos_border_is_unknown(prepared: PreparedDataset) -> None:
    clip = prepared.clip(prepared.index.clips[0])
    crop = {"left": -10.0, "top": 20.0, "side": 100.0}
    noted = replace(clip.metadata, crop=crop, source_size=[200, 80])
    assert replace(clip, metadata=noted).known_box == (52, 0, 512, 307)
    assert replace(clip, metadata=replace(noted, source_size=[])).known_box == (0, 0, 512, 512)


def test_resuming_at_any_step_gives_the_same_batches(prepared: PreparedDataset) -> None:
    whole = list(loader(prepared, steps=8, accumulation=2))
    assert len(whole) == 16
    for start in (1, 3, 7):
        rest = loader(prepared, steps=8, accumulation=2, start_step=start)
        assert len(rest) == 16 - 2 * start
        assert all(equal(a, b) for a, b in zip(rest, whole[2 * start :], strict=True))
    assert not equal(whole[0], whole[1])


def test_a_step_is_the_same_however_it_is_shared(prepared: PreparedDataset) -> None:
    wanted = list(loader(prepared, per_device=4, steps=3))
    shared = [
        list(loader(prepared, per_device=1, steps=3, processes=2, accumulation=2, rank=rank))
        for rank in range(2)
    ]
    for step, batch in enumerate(wanted):
        parts = [shared[rank][2 * step + micro] for micro in range(2) for rank in range(2)]
        assert equal(batch, joined(parts))
    accumulated = list(loader(prepared, per_device=2, steps=3, accumulation=2, threads=1, prefetch=0))
    assert all(equal(batch, joined(accumulated[2 * i : 2 * i + 2])) for i, batch in enumerate(wanted))


def test_every_clip_is_shown(prepared: PreparedDataset) -> None:
    meshes = torch.cat([batch["target_mesh"] for batch in loader(prepared, steps=30)])
    for entry in prepared.index.clips:
        clip = prepared.clip(entry)
        assert any(torch.equal(mesh, frame) for mesh in meshes for frame in clip.mesh)


def test_loaded_clips_do_not_pile_up(prepared: PreparedDataset, monkeypatch) -> None:
    pairs = loader(prepared, steps=200, samples_per_clip=1)
    monkeypatch.setattr(pairs, "_decoded", lambda *_: {"window_offset": torch.zeros(2)})
    batches = iter(pairs)
    for _ in itertools.islice(batches, 150):
        pass
    assert len(batches.gi_frame.f_locals["loaded"]) <= 2 * (2 * 3 + 1)
    batches.close()


@pytest.mark.parametrize("record", [False, True])
def test_a_damaged_clip_is_left_out_with_a_warning(
    prepared: PreparedDataset, copied: Path, record: bool
) -> None:
    bad = prepared.index.clips[1]
    spoil(prepared, copied, {bad.key}, record)
    runs = []
    for start in (0, 4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            runs.append(list(loader(PreparedDataset.open(copied), steps=12, start_step=start)))
        ours = [w for w in caught if issubclass(w.category, UserWarning)]  # not what other tests left open
        said = [str(w.message) for w in ours]
        assert said and all(bad.key in text and bad.pieces[0].shard[7:] in text for text in said)
        assert len(said) == len(set(said)) <= (1 if record else len(bad.pieces))
    assert all(equal(a, b) for a, b in zip(runs[0][4:], runs[1], strict=True))
    wanted = list(loader(prepared, steps=12))
    mesh = prepared.clip(bad).mesh
    for batch, whole in zip(runs[0], wanted, strict=True):
        for i in range(2):
            damaged = any(torch.equal(whole["target_mesh"][i], frame) for frame in mesh)
            assert torch.equal(batch["target_image"][i], whole["target_image"][i]) != damaged


def test_a_frame_that_is_no_picture_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    make_prepared(folder, clips=2, frames=4)
    work = tmp_path / "set-work"
    (work / "train-00" / "000001.jpg").write_bytes(b"no picture")
    shutil.rmtree(folder)
    packed(folder, sorted(work.iterdir()))
    runs = []
    for start in (0, 3):
        with pytest.warns(UserWarning, match="train-00, frames .* no picture"):
            runs.append(list(loader(PreparedDataset.open(folder), steps=12, start_step=start)))
    assert all(equal(a, b) for a, b in zip(runs[0][3:], runs[1], strict=True))


def test_a_set_whose_pieces_are_all_damaged_is_refused(prepared: PreparedDataset, copied: Path) -> None:
    spoil(prepared, copied, {clip.key for clip in prepared.index.clips})
    with pytest.warns(UserWarning), pytest.raises(InputError, match="damaged"):
        list(loader(PreparedDataset.open(copied)))


def test_errors_of_threads_reach_the_consumer(prepared: PreparedDataset, monkeypatch) -> None:
    pairs = loader(prepared)
    monkeypatch.setattr(pairs, "_decoded", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(pairs)


def test_leaving_early_stops_the_threads(prepared: PreparedDataset) -> None:
    before = threading.active_count()
    for _ in loader(prepared, steps=1000):
        break
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_split_without_clips_is_refused(prepared: PreparedDataset) -> None:
    with pytest.raises(InputError, match="no clips in the split 'dev'"):
        loader(prepared, split="dev")


def test_a_set_tracked_with_flame_needs_it(tmp_path: Path, monkeypatch) -> None:
    prepared = make_prepared(tmp_path / "set", clips=1, frames=2, tracker="flame")
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "nothing"))
    flame_model.cache_clear()
    with pytest.raises(InputError, match="FLAME"):
        list(loader(prepared))


def test_hubert_and_flame(tmp_path: Path, monkeypatch) -> None:
    from face_like_flame import face_like_flame

    monkeypatch.setattr("training.data.dataset.load_flame", face_like_flame)
    flame_model.cache_clear()
    prepared = make_prepared(tmp_path / "set", clips=1, frames=5, sound="hubert", tracker="flame")
    batch = next(iter(loader(prepared)))
    assert batch["target_sound"].shape == (2, 16, HUBERT_WIDTH)
    assert batch["target_vertices"].shape == (2, len(face_like_flame().template), 3)
    track = track_from_batch(batch, "target")
    points = batch["target_vertices"][:, track.completion_rows]
    assert torch.allclose(track.completion_points, points, atol=1e-6)
    clip = prepared.clip(prepared.index.clips[0])
    assert torch.allclose(
        clip.track.completion_points, clip.vertices(torch.arange(5))[:, track.completion_rows], atol=1e-6
    )
    flame_model.cache_clear()


def test_without_sound(prepared: PreparedDataset) -> None:
    assert "target_sound" not in next(iter(loader(prepared, with_sound=False)))


def test_only_clips_with_their_own_voice_on_request(tmp_path: Path) -> None:
    spoken = {"a": False, "b": True, "c": False}
    work = [
        write_work(tmp_path / "work" / key, frames=2, seed=seed, own_speech=own)
        for seed, (key, own) in enumerate(spoken.items())
    ]
    prepared = packed(tmp_path / "set", work)
    said = torch.cat([batch["target_own_speech"] for batch in loader(prepared, steps=10)])
    assert said.unique().tolist() == [0, 1]
    said = torch.cat([batch["target_own_speech"] for batch in loader(prepared, own_speech_only=True)])
    assert said.unique().tolist() == [1]
    with pytest.raises(InputError, match="with their own voice"):
        loader(packed(tmp_path / "silent", work[:1]), own_speech_only=True)
