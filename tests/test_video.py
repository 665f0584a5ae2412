"""Tests of video reading and writing: frame rates, rotation, sound, damage, and processes that end."""

import os
import re
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest
from PIL import Image

from sdtalk.errors import InputError
from sdtalk.speech.audio import frame_count, read_speech
from sdtalk.speech.waveform import Waveform
from sdtalk.video import COMMENT, check_output, has_video, open_writer, probe, read_frames

LEVELS = 10
"""Made-up videos tell their frame number by brightness: frame i is i * 10."""


def ffmpeg(*options: str | Path) -> str:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-y", *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def log_of(path: Path) -> str:
    return ffmpeg("-i", path, "-c", "copy", "-f", "null", "-")


def sound_of(path: Path, rate: int = 16_000) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-map", "0:a", "-f", "f32le", "-ac", "1"]
    return np.frombuffer(subprocess.run([*command, "-ar", str(rate), "-"], capture_output=True).stdout, "<f4")


def make_sound(path: Path, seconds: float, *options: str) -> Path:
    ffmpeg("-f", "lavfi", "-i", f"sine=440:sample_rate=48000:duration={seconds}", *options, path)
    return path


def grey(level: int, width: int = 32, height: int = 24) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def make_video(path: Path, frames: int = 10, fps: int = 25, sound: Path | None = None) -> Path:
    with open_writer(path, (32, 24), fps, sound) as writer:
        for index in range(frames):
            writer.write(grey(index * LEVELS % 250))
    return path


def levels(path: Path, fps: int = 25) -> list[int]:
    return [round(frame.mean() / LEVELS) for frame in read_frames(path, fps)]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second of video at 25 fps with a second of sound."""
    return make_video(tmp_path / "clip.mp4", 25, sound=make_sound(tmp_path / "a.wav", 1.0))


@pytest.fixture(autouse=True)
def no_child_process_stays() -> Iterator[None]:
    before = set(psutil.Process().children())  # other files' tests may have started helpers that stay
    yield
    assert set(psutil.Process().children()) <= before


# Reading


def test_probe(clip: Path) -> None:
    info = probe(clip)
    assert (info.width, info.height, info.fps, info.duration, info.has_sound) == (32, 24, 25.0, 1.0, True)


@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "a.avi", "a.webm", "a.mpg", "a.ts", "a.gif", "a.nut"])
def test_containers(tmp_path: Path, clip: Path, name: str) -> None:
    ffmpeg("-i", clip, tmp_path / name)
    info = probe(tmp_path / name)
    assert (info.width, info.height, info.has_sound) == (32, 24, name != "a.gif")
    frames = levels(tmp_path / name)
    assert abs(len(frames) - 25) <= 1 and abs(info.duration - 1) <= 0.1
    late = frames.count(0) - 1  # AVI has no time stamps to make up for the encoder's delay
    assert late <= (name == "a.avi") and frames[late : late + 10] == list(range(10))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, degrees: int) -> None:
    scene = np.zeros((24, 32, 3), np.uint8)
    scene[:8, :8] = 255  # bright corner, top left
    with open_writer(tmp_path / "a.mp4", (32, 24)) as writer:
        writer.write(scene)
    ffmpeg("-display_rotation", str(degrees), "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "b.mp4")
    frame = next(iter(read_frames(tmp_path / "b.mp4")))
    expected = np.rot90(scene, degrees // 90)  # counter-clockwise, as ffmpeg counts
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 10
    info = probe(tmp_path / "b.mp4")
    assert (info.height, info.width) == expected.shape[:2]


def test_pixels_are_made_square(tmp_path: Path, clip: Path) -> None:
    ffmpeg("-i", clip, "-vf", "setsar=3/2", tmp_path / "a.mp4")
    assert (probe(tmp_path / "a.mp4").width, probe(tmp_path / "a.mp4").height) == (48, 24)
    assert next(iter(read_frames(tmp_path / "a.mp4"))).shape == (24, 48, 3)


@pytest.mark.parametrize("fps", [5, 20, 24, 30, 50, 60])
def test_frame_rate_is_resampled(tmp_path: Path, fps: int) -> None:
    count = min(25, fps)
    found = levels(make_video(tmp_path / "a.mp4", count, fps))
    assert abs(len(found) - count / fps * 25) <= 1
    middles = (np.arange(len(found)) + 0.5) / 25
    assert found == np.floor(middles * fps - 1e-6).clip(max=count - 1).tolist()


def test_pictures_that_start_later_than_the_sound(tmp_path: Path, clip: Path) -> None:
    ffmpeg("-itsoffset", "0.4", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy",
           tmp_path / "a.mkv")  # fmt: skip
    assert levels(tmp_path / "a.mkv")[:14] == [0] * 11 + [1, 2, 3]


def test_duration_that_the_file_does_not_tell(tmp_path: Path, clip: Path) -> None:
    """As browsers record it: written to a pipe, so the header could not be completed."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", clip, "-f", "webm", "-c:v", "vp8", "-an", "pipe:1"]
    (tmp_path / "a.webm").write_bytes(subprocess.run(command, capture_output=True).stdout)
    assert "Duration: N/A" in log_of(tmp_path / "a.webm")
    assert abs(probe(tmp_path / "a.webm").duration - 1) <= 0.05
    assert len(levels(tmp_path / "a.webm")) == 25


def test_frames_may_be_written_to_and_are_apart(clip: Path) -> None:
    first, second, *_ = read_frames(clip)
    first[:] = 7
    assert second.mean() == pytest.approx(LEVELS, abs=2)


@pytest.mark.serial
def test_reading_takes_constant_memory_and_stops_when_told(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=320x240:rate=25:duration=8", tmp_path / "a.mp4")
    tracemalloc.start()
    count = sum(1 for _ in read_frames(tmp_path / "a.mp4"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200 and peak < 4 * 320 * 240 * 3
    frames = read_frames(tmp_path / "a.mp4")
    next(frames)
    frames.close()  # the fixture checks that ffmpeg is gone


@pytest.mark.parametrize("name", ["-i.mp4", "a b's:%03d.mp4", "http:x.mp4", "é漢 🎬.mp4", "concat:a|b.mp4"])
def test_strange_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sound = make_sound(tmp_path / "a.wav", 0.4)
    os.rename(sound, f"{name}.wav")
    make_video(Path(name), sound=Path(f"{name}.wav"))
    assert levels(Path(name)) == list(range(10)) and probe(name).has_sound


def bad_video(kind: str, folder: Path) -> Path:
    path = folder / "a.mp4"
    if kind == "text":
        path.write_text("no video\n" * 1000)
    elif kind == "play list":
        path.write_text(
            "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
        )
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "picture":
        Image.new("RGB", (8, 8)).save(path, "PNG")
    elif kind == "sound":
        make_sound(folder / "a.m4a", 0.2).rename(path)
    elif kind == "cover art":
        Image.new("RGB", (8, 8)).save(folder / "cover.png")
        make_sound(folder / "a.wav", 0.2)
        ffmpeg("-i", folder / "a.wav", "-i", folder / "cover.png", "-map", "0", "-map", "1", "-c:v", "copy",
               "-disposition:v:0", "attached_pic", folder / "a.mp3")  # fmt: skip
        (folder / "a.mp3").rename(path)
    elif kind == "no frames":
        ffmpeg("-f", "lavfi", "-i", "testsrc=size=32x32", "-frames:v", "0", path)
    elif kind == "truncated":  # the index stood at the end
        ffmpeg("-i", make_video(folder / "b.mp4"), "-c", "copy", path)
        os.truncate(path, path.stat().st_size // 2)
    return path


BAD = {
    "missing": "no such file", "empty": "empty", "folder": "not a file", "text": "not a video",
    "play list": "not a video", "picture": "still picture", "sound": "no video stream",
    "cover art": "no video stream", "no frames": "no frame|not a video|no video", "truncated": "not a video",
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_videos_are_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = bad_video(kind, tmp_path)
    readers: list[Callable[[Path], object]] = [probe, lambda path: list(read_frames(path))]
    for read in readers[: 1 if kind == "picture" else 2]:
        with pytest.raises(InputError, match=BAD[kind]) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not has_video(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_video_cut_short_with_its_index_in_front(tmp_path: Path, name: str) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc=rate=25:duration=2", "-movflags", "+faststart", tmp_path / name)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size * 6 // 10)
    with pytest.raises(InputError, match=r"cut short after \d\.\d s"):
        list(read_frames(tmp_path / name))


def test_has_video(clip: Path, tmp_path: Path) -> None:
    assert has_video(clip) and not has_video(tmp_path / "a.wav")


# Writing


def test_what_is_written(clip: Path) -> None:
    log = log_of(clip)
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709", log) and "Audio: aac" in log
    assert COMMENT in log and "AI-generated" in COMMENT
    data = clip.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index stands in front, so a page can start to play"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(clip.stat().st_mode) == 0o666 & ~umask


def test_metadata_of_the_sound_file_is_not_copied(tmp_path: Path) -> None:
    make_sound(tmp_path / "a.m4a", 0.2, "-metadata", "title=private", "-metadata", "location=+51.0+007.0/")
    make_video(tmp_path / "a.mp4", 5, sound=tmp_path / "a.m4a")
    assert "private" not in log_of(tmp_path / "a.mp4") and "+51" not in log_of(tmp_path / "a.mp4")


@pytest.mark.parametrize("colour", [(220, 30, 40), (20, 200, 60), (30, 60, 210), (255, 255, 255), (0, 0, 0)])
def test_colours_come_back(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    with open_writer(tmp_path / "a.mp4", (16, 16)) as writer:
        writer.write(np.full((16, 16, 3), colour, np.uint8))
    (frame,) = read_frames(tmp_path / "a.mp4")
    assert np.abs(frame.astype(int) - colour).max() <= 4


@pytest.mark.parametrize("size", [(1, 1), (65, 43), (64, 43), (65, 44), (3, 200)])
def test_odd_sizes_repeat_the_last_pixels(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    frame = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    with open_writer(tmp_path / "a.mp4", size) as writer:
        writer.write(frame)
    (found,) = read_frames(tmp_path / "a.mp4")
    padded = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    assert found.shape == padded.shape
    assert np.abs(found.astype(int) - padded).mean() < 8


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [(0.04, 16_000), (0.05, 44_100), (1.0, 44_100), (3.013, 8000), (3.013, 44_100), (3.013, 96_000)],
)
def test_video_is_as_long_as_its_sound(tmp_path: Path, seconds: float, rate: int) -> None:
    path = make_sound(tmp_path / "a.wav", seconds, "-ar", str(rate))
    speech = read_speech(path)
    frames = frame_count(speech.samples)
    make_video(tmp_path / "a.mp4", frames, sound=path)
    assert len(levels(tmp_path / "a.mp4")) == frames
    assert abs(len(sound_of(tmp_path / "a.mp4")) - len(speech.samples)) <= 2
    assert 0 <= frames / 25 - len(speech.samples) / 16_000 < 0.04


@pytest.mark.parametrize("frames", [5, 30])
def test_sound_is_cut_or_filled_up_to_promised_frames(tmp_path: Path, frames: int) -> None:
    with open_writer(
        tmp_path / "a.mp4", (8, 8), sound=make_sound(tmp_path / "a.wav", 0.6), frames=frames
    ) as writer:
        for _ in range(frames):
            writer.write(grey(0, 8, 8))
    assert len(sound_of(tmp_path / "a.mp4")) == frames * 640


def test_promised_frames_must_come(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="1 frames came, 2"),
        open_writer(tmp_path / "a.mp4", (8, 8), frames=2) as writer,
    ):
        writer.write(grey(0, 8, 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.mkv", "8 channels.wav"])
def test_sound_of_any_kind(tmp_path: Path, name: str) -> None:
    path = make_sound(tmp_path / name, 1.0, "-ac", "8" if "8" in name else "2")
    make_video(tmp_path / "b.mp4", 25, sound=path)
    assert abs(len(sound_of(tmp_path / "b.mp4")) - len(read_speech(path).samples)) <= 2
    assert "stereo" in log_of(tmp_path / "b.mp4")


@pytest.mark.parametrize("kind", ["file", "late file", "samples"])
def test_sound_stays_in_place(tmp_path: Path, kind: str) -> None:
    """A click stays where `read_speech` found it, also when the file says that its sound starts late."""
    samples = np.zeros(16_000, np.float32)
    samples[8000:8016] = 0.9
    samples.tofile(tmp_path / "a.f32")
    late = ["-itsoffset", "0.5"] if kind == "late file" else []
    ffmpeg(*late, "-f", "f32le", "-ar", "16000", "-ac", "1", "-i", tmp_path / "a.f32", "-c:a", "flac",
           tmp_path / "a.mkv")  # fmt: skip
    heard = read_speech(tmp_path / "a.mkv").samples
    sound = Waveform(samples, 16_000) if kind == "samples" else tmp_path / "a.mkv"
    with open_writer(tmp_path / "a.mp4", (8, 8), sound=sound) as writer:
        for _ in range(25):
            writer.write(grey(0, 8, 8))
    click = np.abs(sound_of(tmp_path / "a.mp4")).argmax()
    assert abs(click - 8008) < 32 and abs(click - heard.abs().argmax().item()) < 32
    assert not list(tmp_path.glob(".sdtalk*"))


@pytest.mark.serial
def test_writing_takes_constant_memory(tmp_path: Path) -> None:
    frame = grey(50, 320, 240)
    tracemalloc.start()
    with open_writer(tmp_path / "a.mp4", (320, 240)) as writer:
        for _ in range(300):
            writer.write(frame)
    assert tracemalloc.get_traced_memory()[1] < 2 * frame.size
    tracemalloc.stop()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    make_video(tmp_path / "new" / "folder" / "a.mp4")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["a.mp4"]


def test_existing_output_is_replaced_only_on_success(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), open_writer(path, (32, 24)) as writer:
        writer.write(grey(0))
        assert path.read_bytes() == before
        raise ZeroDivisionError
    assert path.read_bytes() == before
    make_video(path, 7)
    assert levels(path) == list(range(7)) and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_nothing_stays_after_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    with (
        pytest.raises(error),
        open_writer(
            tmp_path / "new" / "a.mp4", (32, 24), sound=Waveform(np.zeros(16_000, np.float32), 16_000)
        ) as writer,
    ):
        writer.write(grey(0))
        raise error
    assert list(tmp_path.iterdir()) == []


def test_nothing_stays_without_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no frame to write"), open_writer(tmp_path / "a.mp4", (32, 24)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c(tmp_path: Path) -> None:
    """As at a terminal: the signal goes to the whole process group."""
    script = f"""
import numpy as np, sys
from sdtalk.video import open_writer
with open_writer({str(tmp_path / "new" / "a.mp4")!r}, (64, 64)) as writer:
    while True:
        writer.write(np.zeros((64, 64, 3), np.uint8))
        if writer.written == 50:
            print("running", flush=True)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"running\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
    assert list(tmp_path.iterdir()) == []


def write_noise(path: Path, frames: int = 400) -> None:
    random = np.random.default_rng(0)
    with open_writer(path, (128, 128)) as writer:
        for _ in range(frames):
            writer.write(random.integers(0, 256, (128, 128, 3), np.uint8))


@pytest.mark.parametrize(
    "code", ["echo 'encoder exploded' >&2; exit 1", "cat >/dev/null; echo 'encoder exploded' >&2; exit 1"]
)
def test_ffmpeg_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))
    with pytest.raises(InputError, match=r"a\.mp4: ffmpeg could not write the video \(encoder exploded\)"):
        write_noise(tmp_path / "new" / "a.mp4")
    assert list(tmp_path.iterdir()) == [program]


def test_ffmpeg_that_is_killed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no message, exit code -9"):
        with open_writer(tmp_path / "a.mp4", (32, 24)) as writer:
            writer.write(grey(0))
            os.kill(writer._process.pid, signal.SIGKILL)
            for _ in range(1000):
                writer.write(grey(0))
    assert list(tmp_path.iterdir()) == []


def test_sound_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(InputError, match="ffmpeg could not write the video"):
        make_video(tmp_path / "a.mp4", sound=tmp_path / "a.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True)
        if sys.platform == "linux" and os.geteuid() == 0
        else None
    )
    if mounted is None or mounted.returncode != 0:
        pytest.skip("needs the right to mount a tiny disk")
    try:
        with pytest.raises(InputError, match="No space left on device.*Free some disk space"):
            write_noise(disk / "new" / "a.mp4")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "name", ["a.avi", "folder.mp4", "file.txt/a.mp4", f"{'a' * 300}.mp4", "folder/a.mp4/"]
)  # fmt: skip
def test_output_is_checked_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder" / "a.mp4").mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    with pytest.raises(InputError) as caught:
        check_output(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError):
        open_writer(tmp_path / name, (8, 8))


def test_folder_that_takes_no_files(tmp_path: Path) -> None:
    folder = Path("/proc") if sys.platform == "linux" else tmp_path
    if folder == tmp_path:
        folder.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        check_output(folder / "a.mp4")


def test_checking_leaves_nothing(tmp_path: Path) -> None:
    check_output(tmp_path / "new" / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_output_must_not_be_the_sound(clip: Path) -> None:
    with pytest.raises(InputError, match="also an input"):
        open_writer(clip, (8, 8), sound=clip)
