"""Tests of the shard writer and of reading shards: same clips, same bytes; damage is noticed; remote reads."""

import errno
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_data import make_prepared, write_work
from PIL import Image

from sdtalk.errors import InputError
from training.data import packing, shards
from training.data.dataset import PreparedDataset, clip_frames
from training.data.packing import tar_member
from training.data.shards import finish_dataset, plan_shards, write_shards
from training.data.store import tar_members


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("work")
    clips = [write_work(folder / f"one_{n:02d}", "train", 5, seed=n) for n in range(4)]
    return [*clips, write_work(folder / "other_00", "test", 7, own_speech=False, seed=9)]


def pack(clips: list[Path], target: Path, shard_mb: float = 0.5, processes: int = 1) -> list[bool]:
    plans = plan_shards(clips, target, shard_mb)
    written = [
        new for rank in range(processes) for _, new in write_shards(plans, clips, target, 3, rank, processes)
    ]
    finish_dataset(target, "face_mesh", "mel")
    return written


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_shards_are_tars_that_others_read(work: list[Path], tmp_path: Path) -> None:
    pack(work, tmp_path, shard_mb=100)
    with tarfile.open(tmp_path / "frames" / "train-00000.tar") as tar:
        names = tar.getnames()
        assert names[:3] == ["one_00-000000.jpg", "one_00-000000.mask.png", "one_00-000000.json"]
        assert len(names) == 4 * 5 * 3
        first = tar.extractfile(names[3]).read()
        about = json.load(tar.extractfile("one_02-000003.json"))
    assert first == (work[0] / "000001.jpg").read_bytes()
    assert about == {"clip": "one_02", "frame": 3, "person": "person-2"}
    with tarfile.open(tmp_path / "clips" / "test-00000.tar") as tar:
        assert tar.getnames() == ["other_00.json", "other_00.npz"]
        assert np.load(io.BytesIO(tar.extractfile("other_00.npz").read()))["mesh"].shape == (7, 478, 3)


def test_the_index_finds_everything(work: list[Path], tmp_path: Path) -> None:
    pack(work, tmp_path)
    prepared = PreparedDataset.open(tmp_path)
    assert [clip.key for clip in prepared.index.clips] == [folder.name for folder in work]
    for folder, entry in zip(work, prepared.index.clips, strict=True):
        clip = prepared.clip(entry)
        arrays = np.load(folder / "clip.npz")
        assert torch.equal(clip.mesh, torch.from_numpy(arrays["mesh"]))
        assert torch.equal(clip.mouth[:, 0], torch.from_numpy(arrays["mouth"][:, 0]))
        assert clip.mouth[:, 1:].mean(0).abs().max() < 1e-6
        assert clip.entry.own_speech == (entry.split == "train") and clip.metadata.video == "made_up.mp4"
        numbers = []
        for number, image, mask in clip_frames(prepared, entry):
            numbers.append(number)
            with Image.open(folder / f"{number:06d}.jpg") as wanted:
                assert torch.equal(
                    (image * 255).round().byte().permute(1, 2, 0), torch.tensor(np.array(wanted))
                )
            with Image.open(folder / f"{number:06d}.png") as wanted:
                assert torch.equal((mask[0] * 255).round().byte(), torch.tensor(np.array(wanted)))
        assert numbers == list(range(entry.frames))


def test_the_same_clips_give_the_same_bytes(work: list[Path], tmp_path: Path) -> None:
    pack(work, tmp_path / "one" / "set")
    copies = [Path(shutil.copytree(folder, tmp_path / "work" / folder.name)) for folder in work]
    os.utime(copies[0] / "000000.jpg", (0, 0))
    pack(copies[::-1], tmp_path / "two" / "set", processes=3)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert len(list((tmp_path / "one").rglob("train-*.tar"))) >= 4


def test_complete_shards_are_kept_and_the_rest_is_written(
    work: list[Path], tmp_path: Path, monkeypatch
) -> None:
    pack(work, tmp_path / "one" / "set")
    target, append, calls = tmp_path / "two" / "set", shards.append_clip, []

    def stopped(folder: Path, *rest: object) -> object:
        calls.append(folder.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return append(folder, *rest)

    monkeypatch.setattr(shards, "append_clip", stopped)
    with pytest.raises(KeyboardInterrupt):
        pack(work, target)
    kept = {name: data for name, data in files(target).items() if name.startswith("parts/train")}
    assert kept and not (target / "index.json").exists()
    calls.clear()
    calls += [""] * 10
    pack(work, target)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    complete = {key for data in kept.values() for key in [clip["key"] for clip in json.loads(data)["clips"]]}
    assert complete and not complete & set(calls)


def test_clips_that_come_later_get_shards_of_their_own(work: list[Path], tmp_path: Path) -> None:
    pack(work[:2], tmp_path)
    before = files(tmp_path)
    pack(work, tmp_path)
    after = files(tmp_path)
    changing = {"README.md", "index.json", "parts/plan.json"}
    assert all(after[name] == data for name, data in before.items() if name not in changing)
    assert [clip.key for clip in PreparedDataset.open(tmp_path).index.clips] == [
        folder.name for folder in work
    ]


def test_complete_shards_need_no_clips(work: list[Path], tmp_path: Path) -> None:
    pack(work[:2], tmp_path)
    before = files(tmp_path)
    assert pack([], tmp_path) == [False] * len(json.loads((tmp_path / "parts" / "plan.json").read_text()))
    assert files(tmp_path) == before


def test_clips_are_discarded_whole(work: list[Path], tmp_path: Path, monkeypatch) -> None:
    clip = Path(shutil.copytree(work[0], tmp_path / work[0].name))
    with monkeypatch.context() as patched:
        patched.setattr(shards.shutil, "rmtree", lambda *_, **__: None)  # killed before it has begun
        shards.remove_clip_folder(clip)
    assert [path.name for path in tmp_path.iterdir()] == [f"{clip.name}.partial"]
    shards.remove_clip_folder(clip)
    assert not list(tmp_path.iterdir())


def test_changed_clips_do_not_pass_for_what_was_written(work: list[Path], tmp_path: Path) -> None:
    clips = [Path(shutil.copytree(work[0], tmp_path / "work" / work[0].name))]
    pack(clips, tmp_path / "set")
    metadata = json.loads((clips[0] / "clip.json").read_text())
    (clips[0] / "clip.json").write_text(json.dumps(metadata | {"notes": ["changed"]}))
    with pytest.raises(InputError, match="train-00000 have changed"):
        pack(clips, tmp_path / "set")


def test_incomplete_clips_are_refused(work: list[Path], tmp_path: Path) -> None:
    for number, name in enumerate(("clip.json", "clip.npz", "000003.png", "000000.jpg")):
        clip = Path(shutil.copytree(work[0], tmp_path / str(number) / work[0].name))
        (clip / name).unlink()
        with pytest.raises(InputError, match="no finished clip"):
            pack([clip], tmp_path / f"set{number}")


def test_a_person_in_two_splits_is_refused(tmp_path: Path) -> None:
    clips = [write_work(tmp_path / "work" / split, split, 1, seed=5) for split in ("train", "dev")]
    with pytest.raises(InputError, match="'person-5' is in the splits dev and train"):
        pack(clips, tmp_path / "set")


def test_a_full_disk_is_named_and_leaves_nothing_half_done(
    work: list[Path], tmp_path: Path, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(packing, "_span", full)
        with pytest.raises(InputError, match="No space left on device.*Make room"):
            pack(work[:1], tmp_path)
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.tar"))
    assert pack(work[:1], tmp_path) == [True]


def test_damaged_bytes_are_noticed(work: list[Path], tmp_path: Path) -> None:
    pack(work, tmp_path)
    prepared = PreparedDataset.open(tmp_path)
    entry = prepared.index.clips[2]
    for span, read in (
        (entry.record, lambda: prepared.clip(entry)),
        (entry.pieces[1], lambda: prepared.piece(entry.pieces[1])),
    ):
        path = tmp_path / span.shard
        data = bytearray(path.read_bytes())
        data[span.offset + span.size - 600] ^= 255
        path.write_bytes(data)
        with pytest.raises(InputError, match=f"{span.shard}: bytes .* Copy this shard again"):
            read()


def test_a_part_of_a_tar_that_is_none_is_refused() -> None:
    for data in (b"x" * 512, tar_member("a.json", b"x" * 600)[:-512]):
        with pytest.raises(InputError, match="damaged|cut short"):
            list(tar_members(data, "here"))


@pytest.mark.parametrize("kind, step, length", [("mel", 4, 37), ("hubert", 2, 16)])
def test_frames_hear_windows_of_the_rows(kind: str, step: int, length: int, tmp_path: Path) -> None:
    prepared = make_prepared(tmp_path / "set", clips=1, frames=9, sound=kind)
    clip = prepared.clip(prepared.index.clips[0])
    windows = clip.features.float().unfold(0, length, step).transpose(1, 2)
    assert len(windows) == 9 and torch.equal(clip.sound(torch.arange(9)), windows)


def test_sound_is_what_the_audio_module_gives(tmp_path: Path) -> None:
    from sdtalk.speech.audio import speech_windows

    prepared = make_prepared(tmp_path / "set", clips=1, frames=30)
    clip = prepared.clip(prepared.index.clips[0])
    windows = torch.cat(list(speech_windows(clip.audio)))
    assert clip.sound(torch.arange(30)).shape == windows.shape == (30, 37, 80)
    assert torch.allclose(clip.sound(torch.tensor([3, 17])), windows[[3, 17]], atol=0.002)  # float16


def test_a_set_is_read_through_fsspec_by_ranges(work: list[Path], tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    pack(work, tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/remote/set/", recursive=True)
    here, there = PreparedDataset.open(tmp_path), PreparedDataset.open("memory://remote/set")
    assert here.index == there.index
    entry = here.index.clips[1]
    assert here.piece(entry.pieces[1]) == there.piece(entry.pieces[1])
    assert torch.equal(here.clip(entry).mesh, there.clip(entry).mesh)
    memory.rm("/remote/set/frames/train-00000.tar")
    with pytest.raises(InputError, match="this shard is missing"):
        PreparedDataset.open("memory://remote/set")
    with pytest.raises(InputError, match=r"index\.json: there is no such file"):
        PreparedDataset.open("memory://remote/nothing")


def test_a_remote_machine_is_asked_again(work: list[Path], tmp_path: Path, monkeypatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    pack(work[:1], tmp_path)
    monkeypatch.setattr("training.data.store.RETRY_WAITS_S", (0, 0))
    prepared = PreparedDataset.open(f"file://{tmp_path}")
    files_class, failures = type(fsspec.filesystem("file")), [1, 2]
    opened = files_class.open

    def flaky(self: object, *arguments: object, **options: object) -> object:
        if failures:
            raise ConnectionError(failures.pop())
        return opened(self, *arguments, **options)

    monkeypatch.setattr(files_class, "open", flaky)
    piece = prepared.index.clips[0].pieces[0]
    assert prepared.piece(piece) and not failures
    failures += [1, 2, 3]
    with pytest.raises(InputError, match="no answer .*--resume"):
        prepared.piece(piece)


def test_what_the_card_says_of_rights_is_kept(work: list[Path], tmp_path: Path) -> None:
    pack(work[:2], tmp_path)
    card = tmp_path / "README.md"
    text = card.read_text()
    assert "2 clips" in text and "are not ours" in text
    heading = "## Licence and people shown\n"
    card.write_text(text.partition(heading)[0] + heading + "\nAll have agreed.\n")
    pack(work[:3], tmp_path)
    assert "3 clips" in card.read_text() and card.read_text().endswith(heading + "\nAll have agreed.\n")


@pytest.mark.parametrize("data", [b"PK\x03\x04 no archive", b"", b"\x93NUMPY"])
def test_arrays_that_are_none_are_told(work: list[Path], tmp_path: Path, data: bytes) -> None:
    clip = Path(shutil.copytree(work[0], tmp_path / "bad_00"))
    (clip / "clip.json").write_text((clip / "clip.json").read_text().replace("one_00", "bad_00"))
    (clip / "clip.npz").write_bytes(data)
    plans = plan_shards([clip], tmp_path / "set")
    assert [new for _, new in write_shards(plans, [clip], tmp_path / "set")] == [True]
    with pytest.raises(InputError, match="clip bad_00: its arrays cannot be read"):
        finish_dataset(tmp_path / "set", "face_mesh", "mel")
