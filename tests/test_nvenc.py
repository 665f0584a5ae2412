"""Tests of NVENC: it is tried, once a size, taken only for frames of a GPU, and x264 does the rest."""

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from sdtalk.video import open_writer, probe, read_frames
from sdtalk.video.ffmpeg import FfmpegWriter
from sdtalk.video.nvenc import NVENC, nvenc_works


@pytest.fixture(autouse=True)
def nothing_tried() -> None:
    nvenc_works.cache_clear()


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> Path:
    """An ffmpeg that notes what it is asked for and ends with a code; the note."""
    script, note = folder / "ffmpeg", folder / "note"
    script.write_text(f'#!/bin/sh\necho "$@" >> {note}\nexit {code}\n')
    script.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(script))
    return note


@pytest.mark.parametrize("code", [0, 1])
def test_it_is_tried_once_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    note = stand_in(tmp_path, monkeypatch, code)
    assert [nvenc_works(512, 512) for _ in range(3)] == [code == 0] * 3
    nvenc_works(64, 64)
    lines = note.read_text().splitlines()
    assert len(lines) == 2 and "512x512" in lines[0] and "64x64" in lines[1]
    assert all("h264_nvenc" in line and "-f null" in line for line in lines)


def test_an_ffmpeg_that_is_not_there_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: "/nowhere/ffmpeg")
    assert not nvenc_works(512, 512)


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_only_mp4_of_frames_from_a_gpu_is_encoded_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool, on_gpu: bool, name: str
) -> None:
    monkeypatch.setattr("sdtalk.video.ffmpeg.nvenc_works", lambda *size: works and size == (66, 64))
    writer = open_writer(tmp_path / name, (65, 64) if name == "a.mp4" else (66, 64), on_gpu=on_gpu)
    assert isinstance(writer, FfmpegWriter)
    writer._temporary = tmp_path / "work"
    command = " ".join(writer._command())
    assert (NVENC in command) == (works and on_gpu and name == "a.mp4")
    assert ("libx264" in command) == (not (works and on_gpu) and name == "a.mp4")


def test_where_it_does_not_work_a_video_is_written_all_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sdtalk.video.ffmpeg.nvenc_works", lambda *_: False)
    frames = np.full((3, 64, 64, 3), 90, np.uint8)
    with open_writer(tmp_path / "a.mp4", (64, 64), on_gpu=True) as writer:
        writer.write_all(frames)
    assert probe(tmp_path / "a.mp4").width == 64 and len(list(read_frames(tmp_path / "a.mp4"))) == 3


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webm", "pictures"])
@pytest.mark.parametrize("size", [(32, 24), (33, 25)])
def test_frames_written_at_once_are_those_written_one_by_one(tmp_path: Path, name: str, size: tuple) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (size[1] + 9, *size[:1], 3), np.uint8)
    frames = np.stack([rows[i : i + size[1]] for i in range(9)])
    for folder, all_at_once in (("one", False), ("all", True)):
        with open_writer(tmp_path / folder / name, size) as writer:
            if all_at_once:
                writer.write_all(frames[:4])
                writer.write_all(frames[::-1][4::-1])  # not contiguous
            else:
                for frame in frames:
                    writer.write(frame)
            assert writer.written == 9
    one, together = tmp_path / "one" / name, tmp_path / "all" / name
    if name == "pictures":
        assert [p.read_bytes() for p in sorted(one.iterdir())] == [
            p.read_bytes() for p in sorted(together.iterdir())
        ]
    else:
        pairs = zip(read_frames(one), read_frames(together), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
