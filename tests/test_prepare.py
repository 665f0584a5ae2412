"""Tests of data preparation as a whole: raw videos to a data set, with the real networks on short, small videos."""

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from script_processes import start_process
from test_video import ffmpeg

from sdtalk.image import crop_picture, read_picture
from sdtalk.speech.audio import read_speech
from sdtalk.speech.waveform import Waveform
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import open_writer
from training import prepare
from training.data.dataset import PreparedDataset
from training.preparation import clip_writer
from training.preparation.shots import ShotDetector
from training.prepare import main

ROOT = Path(__file__).parent.parent
SPEECH = ROOT / "examples" / "sense_and_sensibility.wav"
SIZE = 240
PAN_PX, PAN_HZ = 14.0, 0.8
SHORT = ["--set", "shortest_seconds=0.6", "splits.dev=0", "splits.test=0"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Head and shoulders; the face is about 130 px large."""
    whole = read_picture(ROOT / "examples" / "eileen_collins.png").pixels
    crop = Tracker.from_bundled().portrait(whole, "whole").crop
    return crop_picture(whole, crop, SIZE + 2 * round(PAN_PX) + 2)


def pan_px(seconds: float | np.ndarray) -> float | np.ndarray:
    """How far the camera has panned to the right."""
    return PAN_PX * np.sin(2 * np.pi * PAN_HZ * seconds)


def panned(scene: np.ndarray, seconds: float) -> np.ndarray:
    """The scene as a camera sees it that pans to and fro; sub-pixel exact."""
    left = PAN_PX + pan_px(seconds)
    box = (left, PAN_PX, left + SIZE, PAN_PX + SIZE)
    return np.asarray(Image.fromarray(scene).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box))


def film(
    path: Path,
    scene: np.ndarray,
    seconds: float,
    fps: float = 25,
    sound: Path | None = None,
    start: float = 0,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(seconds * fps)
    voice = None
    if sound is not None:
        voice = Waveform(read_speech(sound).samples[: round(seconds * 16_000)].numpy(), 16_000)
    with open_writer(path.with_suffix(".mp4"), (SIZE, SIZE), fps, voice) as writer:
        for i in range(count):
            writer.write(panned(scene, start + i / fps))
    return path.with_suffix(".mp4")


def noise(seconds: float, path: Path) -> Path:
    """A video without a face."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    return film(path, np.tile(picture, (2, 2, 1)), seconds)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    """Ann talks, Bob is silent and shown twice with a cut between, others cannot be used."""
    folder = tmp_path_factory.mktemp("videos")
    film(folder / "ann" / "talk.mp4", scene, 1.2, sound=SPEECH)
    one, other = folder / "one.mp4", folder / "other.mp4"
    film(one, scene, 0.8)
    film(other, np.ascontiguousarray(255 - scene[:, ::-1] // 2), 0.72)
    (folder / "bob").mkdir()
    joined = folder / "list.txt"
    joined.write_text(f"file {one}\nfile {other}\n")
    ffmpeg("-f", "concat", "-safe", "0", "-i", joined, "-c", "copy", folder / "bob" / "cut.mkv")
    for path in (one, other, joined):
        path.unlink()
    (folder / "broken.mp4").write_bytes(b"no video" * 99)
    (folder / "empty.mp4").write_bytes(b"")
    noise(0.2, folder / "nobody.mp4")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """What training reads."""
    files = [*folder.glob("frames/*"), *folder.glob("clips/*"), folder / "index.json", folder / "README.md"]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


@pytest.fixture(scope="module")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("prepared") / "set"
    assert main([str(videos), "-o", str(target), *SHORT]) == 0
    return target


def test_the_data_set_is_complete(prepared: Path) -> None:
    data = PreparedDataset.open(prepared)
    found = {clip.key: clip for clip in data.index.clips}
    assert {"ann__talk_00", "bob__cut_mkv_00"} <= set(found)
    assert found["ann__talk_00"].person == "ann" and found["ann__talk_00"].frames == 30
    assert not (prepared / "work" / "surveys").exists() or not any((prepared / "work" / "surveys").iterdir())
    assert not any((prepared / "work" / "clips").iterdir())


def test_frames_and_tracks_belong_together(prepared: Path) -> None:
    data = PreparedDataset.open(prepared)
    entry = next(clip for clip in data.index.clips if clip.key == "ann__talk_00")
    clip = data.clip(entry)
    assert clip.metadata.start_s == 0 and clip.metadata.video == "talk.mp4" and clip.metadata.source_fps == 25
    track, networks = clip.track, Tracker.from_bundled().networks
    for number in (0, 15, 29):
        (piece,) = [p for p in entry.pieces if p.first <= number < p.first + p.count]
        image, mask = data.piece(piece)[number].decoded()
        assert image.shape == (3, 512, 512) and mask.shape == (1, 512, 512)
        assert mask[0, 256, 256] > 0.9 and mask[0, 5, 5] < 0.02 and image[:, 5, 5].max() < 0.02
        pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0)[None]
        found = networks.find_faces(pixels)[0][0].points[:, :2] + 0.5
        seen = track.camera[number : number + 1].project(track.mesh[number : number + 1])[0]
        assert (found - seen).norm(dim=1).mean() < 4  # px of 512


def test_the_sound_is_the_videos(prepared: Path, videos: Path) -> None:
    data = PreparedDataset.open(prepared)
    by_key = {clip.key: data.clip(clip) for clip in data.index.clips}
    audio = by_key["ann__talk_00"].audio
    wanted = read_speech(videos / "ann" / "talk.mp4").samples[: len(audio)]
    late = round(by_key["ann__talk_00"].metadata.audio_late_ms * 16)
    both = [(audio[: len(audio) - late], wanted[late:])] if late >= 0 else [(audio[-late:], wanted[:late])]
    for one, other in both:
        count = min(len(one), len(other))
        torch.testing.assert_close(one[:count], other[:count], atol=1e-3, rtol=0)
    silent = by_key["bob__cut_mkv_00"]
    assert not silent.audio.any() and not silent.metadata.own_speech and silent.metadata.notes == ["no sound"]


def test_the_report_tells_of_everything(prepared: Path, videos: Path) -> None:
    report = json.loads((prepared / "report" / "report.json").read_text())
    found = {video["video_id"]: video for video in report["videos"]}
    assert set(found) == {"ann__talk", "bob__cut_mkv", "broken", "empty", "nobody"}
    assert "not a video" in found["broken"]["problem"] and "empty" in found["empty"]["problem"]
    assert [p["reason"] for p in found["nobody"]["rejected"]] == ["no_face"]
    bob = sorted(
        found["bob__cut_mkv"]["clips"] + found["bob__cut_mkv"]["rejected"], key=lambda p: p["start_s"]
    )
    assert [part["start_s"] for part in bob] == [0, 0.8] and bob[-1]["end_s"] == 1.52
    text = (prepared / "report" / "report.md").read_text()
    assert "nobody, 0.00 to 0.20 s: no face" in text and "broken" in text
    with Image.open(prepared / "report" / "ann__talk.jpg") as sheet:
        assert sheet.width > 500 and np.asarray(sheet).std() > 20
    assert (prepared / "report" / "nobody.jpg").exists()


def test_a_finished_run_does_nothing(prepared: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(prepared)
    monkeypatch.setattr(prepare, "_make_preparer", lambda *_: pytest.fail("it loads networks"))
    assert main([str(videos), "-o", str(prepared), *SHORT]) == 0
    assert hashes(prepared) == before


def test_other_settings_are_refused(prepared: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(videos), "-o", str(prepared), *SHORT, "limits.yaw_deg=20"]) == 2
    assert "begun with other settings" in capsys.readouterr().err


# Interrupted runs


def wait_for(happened: Callable[[], object], process: BaseProcess, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not happened() and process.is_alive():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_killed_at_any_moment_it_goes_on(prepared: Path, videos: Path, tmp_path: Path) -> None:
    target = tmp_path / "set"
    work = target / "work"
    moments = [
        lambda: any(f.stat().st_size for f in work.glob("surveys/ann__talk/survey.bin")),
        lambda: any(work.glob("clips/ann__talk_00.partial/000018.jpg")),
        lambda: any(work.glob("clips/bob__cut_mkv_00.partial/000003.png")),
        lambda: any(target.glob("frames/*")) or any(target.glob("parts/*")),
    ]
    done: set[str] = set()
    for moment in moments:
        process = start_process(main, [str(videos), "-o", str(target), *SHORT])
        wait_for(moment, process)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        now = {p.name for p in work.glob("clips/*") if not p.name.endswith(".partial")}
        assert done <= now or any(target.glob("frames/*.tar"))
        done = now
    process = start_process(main, [str(videos), "-o", str(target), *SHORT])
    process.join()
    assert process.exitcode == 0
    assert hashes(target) == hashes(prepared)


def main_beside_a_gpu(words: list[str]) -> int:
    """As on a machine with one GPU that this PyTorch could use, and that these processes do not."""
    torch._C._get_accelerator = lambda check=False: torch.device("cuda")
    return main(words)


def test_two_processes_make_the_same_also_beside_a_gpu(prepared: Path, videos: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    target = tmp_path / "set"
    together = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        start_process(
            main_beside_a_gpu,
            [str(videos), "-o", str(target), *SHORT],
            RANK=r,
            LOCAL_RANK=r,
            ACCELERATE_USE_CPU="true",
            **together,
        )
        for r in ("0", "1")
    ]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert hashes(target) == hashes(prepared)


def test_a_run_ends_in_time_and_goes_on(
    prepared: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "set"
    now = iter([0.0, 1.0, 9.0])  # the run begins, so do its first video and what would be its second
    with monkeypatch.context() as patched:
        patched.setattr("training.prepare.time", SimpleNamespace(monotonic=lambda: next(now)))
        assert main([str(videos), "-o", str(target), *SHORT, "--max-seconds", "5"]) == 0
    assert [clip.key for clip in PreparedDataset.open(target).index.clips] == ["ann__talk_00"]
    assert main([str(videos), "-o", str(target), *SHORT]) == 0
    clips = {clip.key for clip in PreparedDataset.open(target).index.clips}
    assert clips == {clip.key for clip in PreparedDataset.open(prepared).index.clips}


def test_new_videos_are_appended(prepared: Path, videos: Path, scene: np.ndarray, tmp_path: Path) -> None:
    target, more = tmp_path / "set", tmp_path / "videos"
    shutil.copytree(prepared, target)
    shutil.copytree(videos, more)
    before = hashes(target)
    film(more / "aaron" / "late.mp4", scene, 0.8)
    film(more / "broken.mp4", scene, 0.8)  # has been repaired
    assert main([str(more), "-o", str(target), *SHORT]) == 0
    after = hashes(target)
    assert all(after[name] == before[name] for name in before if name.endswith(".tar"))
    assert len([name for name in after if name.startswith("frames/")]) == 2
    keys = {clip.key for clip in PreparedDataset.open(target).index.clips}
    assert {"aaron__late_00", "broken_00", "ann__talk_00"} <= keys


def test_a_full_disk(
    prepared: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target, written = tmp_path / "set", []
    write = clip_writer.write_file

    def until_full(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) > 90:  # in the second video
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(clip_writer, "write_file", until_full)
        assert main([str(videos), "-o", str(target), *SHORT]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert {path.name for path in (target / "work" / "clips").iterdir()} == {"ann__talk_00"}
    assert main([str(videos), "-o", str(target), *SHORT]) == 0
    assert hashes(target) == hashes(prepared)


# What users get wrong


def test_nothing_usable(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "set")]) == 2
    assert "no videos were found" in capsys.readouterr().err
    only = tmp_path / "videos"
    only.mkdir()
    for name in ("broken.mp4", "nobody.mp4"):
        (only / name).write_bytes((videos / name).read_bytes())
    assert main([str(only), "-o", str(tmp_path / "set")]) == 2
    told = capsys.readouterr()
    assert "none of its videos could be used" in told.err and "0 of 2 videos" in told.out
    assert (tmp_path / "set" / "report" / "report.md").exists()


def test_wrong_settings_and_outputs(tmp_path: Path, videos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(videos), "-o", str(tmp_path / "file" / "set")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main([str(videos), "-o", str(tmp_path / "set"), "--set", "limits.yaw=3"]) == 2
    assert "there is no such setting" in capsys.readouterr().err
    assert main([str(videos), "-o", str(tmp_path / "set"), "--set", "shortest_seconds=15"]) == 2
    assert "shortest_seconds" in capsys.readouterr().err


def test_missing_assets_are_missed_early(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    for change, name in (("sound=hubert", "ubert"), ("tracker=flame", "FLAME")):
        assert main([str(videos), "-o", str(tmp_path / name), *SHORT, change]) == 2
        assert name in capsys.readouterr().err
        assert not list((tmp_path / name / "report" / "videos").iterdir())


# What videos are like


def test_flame_and_hubert(
    tmp_path: Path, videos: Path, toy_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(toy_home))
    target, only = tmp_path / "set", tmp_path / "videos"
    only.mkdir()
    (only / "talk.mp4").write_bytes((videos / "ann" / "talk.mp4").read_bytes())
    assert main([str(only), "-o", str(target), *SHORT, "tracker=flame", "sound=hubert"]) == 0
    data = PreparedDataset.open(target)
    assert (data.index.tracker, data.index.sound, data.index.token_alignment) == ("flame", "hubert", "ahead")
    clip = data.clip(data.index.clips[0])
    assert clip.flame is not None and torch.isfinite(clip.flame.expression).all()
    assert clip.sound(torch.arange(30)).shape == (30, 16, 32)
    assert clip.track.completion_rows is not None and torch.isfinite(clip.track.completion_points).all()


def centres_px(prepared: PreparedDataset, key: str) -> np.ndarray:
    """Where the middle of the face is in every frame of the video, from a clip's track."""
    entry = next(clip for clip in prepared.index.clips if clip.key == key)
    clip = prepared.clip(entry)
    seen = clip.track.camera.project(clip.track.mesh)[:, :468, 0].mean(1).numpy()
    return clip.metadata.crop["left"] + seen * clip.metadata.crop["side"] / 512


def test_any_frame_rate_container_and_rotation(tmp_path: Path, scene: np.ndarray) -> None:
    folder = tmp_path / "videos"
    rates = {"a": 24000 / 1001, "b": 30000 / 1001, "c": 50, "d": 60}
    for name, fps in rates.items():
        film(folder / f"{name}.mp4", scene, 0.8, fps)
    ffmpeg("-i", folder / "a.mp4", folder / "e.mpg")
    variable = "select='not(mod(n\\,2))+lt(n\\,24)',setpts=PTS"  # 60 a second, then 30
    ffmpeg("-i", folder / "d.mp4", "-vf", variable, "-fps_mode", "vfr", folder / "g.mkv")
    ffmpeg("-i", folder / "c.mp4", "-vf", "transpose=1", tmp_path / "h.mp4")
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "h.mp4", "-c", "copy", folder / "h.mp4")
    assert main([str(folder), "-o", str(tmp_path / "set"), *SHORT]) == 0
    data = PreparedDataset.open(tmp_path / "set")
    centres = {clip.key: centres_px(data, clip.key) for clip in data.index.clips}
    assert len(centres) == 7
    for key, found in centres.items():
        assert abs(len(found) - 20) <= 1
        shown = (np.arange(len(found)) + 0.5) / 25  # a frame stands for what was seen when it began
        moved = -pan_px(shown - 0.5 / rates.get(key[0], 40))
        middle = slice(3, -3)  # smoothing flattens the ends
        apart = (found - found.mean())[middle] - (moved - moved.mean())[middle]
        assert np.abs(apart).max() < 2.5, key  # px; a frame's delay would be up to 2.8


def test_what_lies_before_damage_is_used(tmp_path: Path, scene: np.ndarray) -> None:
    folder = tmp_path / "videos"
    whole = film(tmp_path / "whole.mp4", scene, 2.4, sound=SPEECH)
    ffmpeg("-i", whole, "-c", "copy", tmp_path / "whole.mkv")
    data = (tmp_path / "whole.mkv").read_bytes()
    folder.mkdir()
    (folder / "cut.mkv").write_bytes(data[: len(data) * 2 // 3])
    hurt = bytearray(data)
    at = slice(len(data) * 2 // 3, len(data) * 2 // 3 + 2000)
    hurt[at] = np.random.default_rng(0).integers(0, 256, 2000, np.uint8).tobytes()
    (folder / "hurt.mkv").write_bytes(bytes(hurt))
    assert main([str(folder), "-o", str(tmp_path / "set"), *SHORT]) == 0
    frames = {clip.key: clip.frames for clip in PreparedDataset.open(tmp_path / "set").index.clips}
    assert 25 <= frames["cut_mkv_00"] < 60 and 25 <= frames["hurt_mkv_00"] < 60
    report = json.loads((tmp_path / "set" / "report" / "report.json").read_text())
    problems = [video["problem"] for video in report["videos"]]
    assert "cut short after" in problems[0]
    assert "damaged from" in problems[1] or "its pictures end after" in problems[1]


def test_memory_does_not_grow_with_the_video(scene: np.ndarray) -> None:
    alive = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive
        for _ in range(200):
            frame = np.zeros((64, 64, 3), np.uint8)
            alive += 1
            weakref.finalize(frame, gone)
            yield frame

    def gone() -> None:
        nonlocal alive
        alive -= 1

    most = 0
    for _ in ShotDetector().detect(frames()):
        most = max(most, alive)
    assert most <= 12
