"""Output formats: what each writes is decoded and compared; it appears whole or not at all."""

import os
import subprocess
import sys
import tracemalloc
import wave
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from sdtalk.errors import InputError
from sdtalk.speech.waveform import Waveform
from sdtalk.video import COMMENT, check_output, open_writer
from sdtalk.video.formats import FORMATS, WITHOUT_ALPHA

NAMES = ["a.mp4", "a.webm", "a.mov", "a.gif", "a"]
WITH_ALPHA = [name for name in NAMES if Path(name).suffix not in WITHOUT_ALPHA]
WITH_SOUND = [name for name in NAMES if name != "a.gif"]
KINDS = [(name, False) for name in NAMES] + [(name, True) for name in WITH_ALPHA]
COLOURS = [(220, 30, 40), (20, 200, 60), (255, 255, 255)]


def test_every_format_is_tested() -> None:
    assert {Path(name).suffix for name in NAMES} == set(FORMATS)


def ffmpeg(*options: object) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", *map(str, options)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def about(path: Path) -> str:
    """What ffmpeg says of a file."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stderr


def frames_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    """All frames as RGBA, decoded by ffmpeg; by the decoder that knows alpha in VP9."""
    source = ["-framerate", "25", "-i", path / "%06d.png"] if path.is_dir() else ["-i", path]
    decoder = ["-c:v", "libvpx-vp9"] if path.suffix == ".webm" else []
    shown = ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    pixels = ffmpeg(*decoder, *source, "-map", "0:v:0", "-vf", "scale=in_color_matrix=auto", *shown)
    return np.frombuffer(pixels, np.uint8).reshape(-1, size[1], size[0], 4)


def sound_of(path: Path, rate: int) -> np.ndarray:
    """Samples, as ffmpeg decodes them at a rate, one channel."""
    source = path / "speech.wav" if path.is_dir() else path
    return np.frombuffer(
        ffmpeg("-i", source, "-map", "0:a:0", "-ac", "1", "-ar", rate, "-f", "f32le", "-"), "<f4"
    )


def seconds_of(path: Path) -> list[float]:
    """When frames are shown."""
    log = ffmpeg("-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-enc_time_base", "1/10000",
                 "-").decode()  # fmt: skip
    return [int(line.split(",")[2]) / 10_000 for line in log.splitlines() if not line.startswith("#")]


def still(colour: tuple[int, ...], size: tuple[int, int] = (32, 24)) -> np.ndarray:
    return np.full((size[1], size[0], len(colour)), colour, np.uint8)


def moving_square(index: int, alpha: bool) -> np.ndarray:
    """A red square on its way over blue, or over nothing."""
    frame = still((20, 40, 200, 0) if alpha else (20, 40, 200), (64, 48))
    frame[8:40, 2 * index : 2 * index + 16] = (210, 40, 30, 255) if alpha else (210, 40, 30)
    return frame


def write(path: Path, pictures: list[np.ndarray], **options: object) -> Path:
    height, width, channels = pictures[0].shape
    with open_writer(path, (width, height), alpha=channels == 4, **options) as writer:
        for picture in pictures:
            writer.write(picture)
    assert writer.written == len(pictures)
    assert [p.name for p in path.parent.iterdir() if p.name.startswith(".")] == []
    return path


def expected_of(name: str, frames: list[np.ndarray]) -> np.ndarray:
    return np.stack(frames[::2] if name == "a.gif" else frames)


# What comes back


@pytest.mark.parametrize(("name", "alpha"), KINDS)
def test_frames_come_back(tmp_path: Path, name: str, alpha: bool) -> None:
    frames = [moving_square(index, alpha) for index in range(20)]
    found = frames_of(write(tmp_path / name, frames), (64, 48)).astype(int)
    wanted = expected_of(name, frames).astype(int)
    assert len(found) == len(wanted)
    opaque = wanted[..., 3] == 255 if alpha else np.ones(wanted.shape[:3], bool)
    error = np.abs(found[..., :3] - wanted[..., :3])[opaque]
    exact = name in ("a.gif", "a")
    assert error.mean() < (0.1 if exact else 4), "colours where something is seen"
    if alpha:
        error = np.abs(found[..., 3] - wanted[..., 3])
        assert error.max() == 0 if exact else error.mean() < 1 and np.percentile(error, 99) < 24
    else:
        assert (found[..., 3] == 255).all()


@pytest.mark.parametrize("name", [name for name in WITH_ALPHA if name != "a.gif"])
def test_levels_of_alpha_come_back(tmp_path: Path, name: str) -> None:
    frame = still((200, 120, 60, 0), (256, 16))
    frame[..., 3] = np.arange(256)
    (found,) = frames_of(write(tmp_path / name, [frame]), (256, 16)).astype(int)
    error = np.abs(found[..., 3] - frame[..., 3])
    assert error.max() <= {"a.webm": 4, "a.mov": 1, "a": 0}[name]
    assert np.abs(found[..., :3] - frame[..., :3]).max() <= 4, "colours are not multiplied by alpha"


def test_a_gif_has_pixels_or_none(tmp_path: Path) -> None:
    frame = still((200, 120, 60, 0), (256, 16))
    frame[..., 3] = np.arange(256)
    (found,) = frames_of(write(tmp_path / "a.gif", [frame]), (256, 16))
    assert (found[:, :128, 3] == 0).all() and (found[:, 128:, 3] == 255).all()
    assert np.abs(found[:, 128:, :3].astype(int) - (200, 120, 60)).max() <= 4


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", NAMES)
def test_colours_come_back(tmp_path: Path, name: str, colour: tuple[int, int, int]) -> None:
    found = frames_of(write(tmp_path / name, [still(colour)]), (32, 24))
    assert np.abs(found[..., :3].astype(int) - colour).max() <= (4 if name not in ("a.gif", "a") else 1)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (65, 43)])
@pytest.mark.parametrize("name", ["a.webm", "a.mov", "a.gif", "a"])
def test_odd_sizes_stay(tmp_path: Path, name: str, size: tuple[int, int], alpha: bool) -> None:
    colour = (200, 30, 40, 255) if alpha else (200, 30, 40)
    (found,) = frames_of(write(tmp_path / name, [still(colour, size)]), size)
    assert np.abs(found[..., :3].astype(int) - colour[:3]).max() <= 6


@pytest.mark.parametrize("name", NAMES)
def test_imageio_reads_it(tmp_path: Path, name: str) -> None:
    frames = [moving_square(index, False) for index in range(20)]
    path = write(tmp_path / name, frames)
    if path.is_dir():
        assert sorted(p.name for p in path.iterdir()) == [f"{index:06}.png" for index in range(20)]
        found = np.stack([iio.imread(p) for p in sorted(path.iterdir())])
    else:
        found = np.stack(list(iio.imiter(path)))
    wanted = expected_of(name, frames).astype(int)
    assert found.shape == wanted.shape and np.abs(found - wanted).mean() < 5


# Time


@pytest.mark.parametrize("fps", [25, 30])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mov"])
def test_frames_stand_where_they_should(tmp_path: Path, name: str, fps: int) -> None:
    path = write(tmp_path / name, [moving_square(index % 20, False) for index in range(24)], fps=fps)
    np.testing.assert_allclose(seconds_of(path), np.arange(24) / fps, atol=0.0011)


@pytest.mark.parametrize(("fps", "step"), [(5, 1), (25, 2), (30, 2), (50, 4)])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_a_gif_takes_its_time(tmp_path: Path, fps: float, step: int, count: int) -> None:
    path = write(tmp_path / "a.gif", [moving_square(index, True) for index in range(count)], fps=fps)
    delays = []
    with Image.open(path) as gif:
        assert gif.n_frames == -(-count // step)
        for index in range(gif.n_frames):
            gif.seek(index)
            delays.append(gif.info["duration"])
        assert gif.n_frames == 1 or gif.info["loop"] == 0
    assert abs(sum(delays) - 1000 * count / fps) <= 5, "to the hundredth of a second"
    starts = np.cumsum([0, *delays[:-1]])
    assert np.abs(starts - np.arange(len(delays)) * 1000 * step / fps).max() <= 5


@pytest.mark.parametrize("frames", [None, 10, 30])
@pytest.mark.parametrize("name", WITH_SOUND)
def test_sound_is_as_long_as_promised(tmp_path: Path, name: str, frames: int | None) -> None:
    sound = Waveform(np.sin(np.arange(16_000) * 0.1).astype(np.float32), 16_000)
    write(tmp_path / name, [moving_square(0, False)] * (frames or 25), sound=sound, frames=frames)
    assert len(sound_of(tmp_path / name, 16_000)) == (frames or 25) * 640


@pytest.mark.parametrize("kind", ["file", "samples"])
@pytest.mark.parametrize("name", WITH_SOUND)
def test_sound_stays_in_place(tmp_path: Path, name: str, kind: str) -> None:
    samples = np.zeros(44_100, np.float32)
    samples[22_050:22_090] = 0.9
    sound: Waveform | Path = Waveform(samples, 44_100)
    if kind == "file":
        samples.tofile(tmp_path / "a.f32")
        sound = tmp_path / "in.wav"
        ffmpeg("-f", "f32le", "-ar", 44_100, "-ac", 1, "-i", tmp_path / "a.f32", sound)
    write(tmp_path / name, [moving_square(0, False)] * 25, sound=sound)
    heard = np.abs(sound_of(tmp_path / name, 44_100))
    assert abs(heard.argmax() - 22_070) < 60 and heard.max() > 0.3


@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("name", WITH_SOUND)
def test_sound_keeps_its_rate_and_channels(tmp_path: Path, name: str, channels: int) -> None:
    shape = (44_100,) if channels == 1 else (44_100, channels)
    sound = Waveform(np.random.default_rng(0).normal(size=shape).astype(np.float32) * 0.1, 44_100)
    path = write(tmp_path / name, [moving_square(0, False)] * 25, sound=sound)
    said = about(path / "speech.wav" if path.is_dir() else path)
    assert ("48000 Hz" if name == "a.webm" else "44100 Hz") in said, "Opus knows no other"
    assert ("mono" if channels == 1 else "stereo") in said
    codec = {"a.mp4": "aac", "a.webm": "opus"}.get(name, "pcm_s16le")
    assert f"Audio: {codec}" in said


def test_a_gif_leaves_the_sound_out(tmp_path: Path) -> None:
    write(tmp_path / "a.gif", [still((1, 2, 3))], sound=Waveform(np.zeros(640, np.float32), 16_000))
    assert "Audio" not in about(tmp_path / "a.gif")


# What the file says


@pytest.mark.parametrize(("name", "alpha"), KINDS)
def test_codecs(tmp_path: Path, name: str, alpha: bool) -> None:
    path = write(tmp_path / name, [moving_square(0, alpha)] * 3)
    said = about(path / "000000.png" if path.is_dir() else path)
    wanted = {
        "a.mp4": ["h264", "yuv420p(tv, bt709"],
        "a.webm": ["vp9", "yuv420p(tv, bt709,", "alpha_mode      : 1" if alpha else "vp9"],
        "a.mov": ["prores (4444)", "yuva444p" if alpha else "yuv444p", "(tv, bt709,"],
        "a.gif": ["gif", "bgra"],
        "a": ["png", "rgba" if alpha else "rgb24"],
    }[name]
    assert all(word in said for word in wanted), said


@pytest.mark.parametrize("name", NAMES)
def test_everything_says_that_it_was_made(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path / name, [still((9, 9, 9))] * 25, sound=Waveform(np.zeros(16_000, np.float32), 16_000)
    )
    if name == "a.gif":
        assert Image.open(path).info["comment"] == COMMENT.encode()
    elif path.is_dir():
        assert all(Image.open(p).text == {"Comment": COMMENT} for p in path.glob("*.png"))
        assert COMMENT in about(path / "speech.wav")
    else:
        assert COMMENT in about(path)


@pytest.mark.parametrize("name", WITH_SOUND)
def test_metadata_of_the_sound_file_is_not_copied(tmp_path: Path, name: str) -> None:
    sound = tmp_path / "in.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", "-metadata", "title=private", "-metadata",
           "location=+51.0+007.0/", sound)  # fmt: skip
    path = write(tmp_path / name, [still((9, 9, 9))] * 5, sound=sound)
    data = b"".join(p.read_bytes() for p in (path.iterdir() if path.is_dir() else [path]))
    assert b"private" not in data and b"+51" not in data


# Whole or not at all


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_after_an_exception(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    sound = Waveform(np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(error), open_writer(tmp_path / "new" / name, (32, 24), sound=sound) as writer:
        writer.write(still((9, 9, 9)))
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_ctrl_c_while_it_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_writer(tmp_path / "new" / name, (32, 24)) as writer:
        writer.write(still((9, 9, 9)))
        monkeypatch.setattr("subprocess.run" if name == "a.gif" else "pathlib.Path.rename", stopped)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_without_frames(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no frame to write"), open_writer(tmp_path / name, (32, 24)):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WITH_SOUND)
def test_sound_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.wav").write_text("no sound")
    with pytest.raises(InputError, match="ffmpeg could not write the video"):
        write(tmp_path / name, [still((9, 9, 9))] * 5, sound=tmp_path / "in.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize("name", NAMES)
def test_existing_output_is_replaced_only_on_success(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, [still((200, 9, 9))] * 8)
    with pytest.raises(ZeroDivisionError), open_writer(path, (32, 24)) as writer:
        writer.write(still((9, 200, 9)))
        assert frames_of(path, (32, 24))[0, 0, 0, 0] > 150
        raise ZeroDivisionError
    assert len(frames_of(path, (32, 24))) == len(expected_of(name, [still((0,))] * 8))
    write(path, [still((9, 200, 9))] * 2)
    found = frames_of(path, (32, 24))
    assert len(found) == len(expected_of(name, [still((0,))] * 2)) and found[0, 0, 0, 0] < 60
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a", [still((200, 9, 9))])
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if target == path and self.suffix != ".former":
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(InputError, match="Permission denied"):
        write(path, [still((9, 200, 9))])
    assert list(tmp_path.iterdir()) == [path] and iio.imread(path / "000000.png")[0, 0, 0] == 200


@pytest.mark.parametrize("name", ["a.gif", "a"])
def test_full_disk(tmp_path: Path, name: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", disk], capture_output=True)
        if sys.platform == "linux" and os.geteuid() == 0
        else None
    )
    if mounted is None or mounted.returncode != 0:
        pytest.skip("needs the right to mount a tiny disk")
    random = np.random.default_rng(0)
    try:
        with pytest.raises(InputError, match="No space left on device.*Free some disk space"):
            write(disk / "new" / name, [random.integers(0, 256, (128, 128, 3), np.uint8) for _ in range(60)])
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_writing_takes_constant_memory(tmp_path: Path, name: str) -> None:
    frame = moving_square(3, False).repeat(4, 0).repeat(4, 1)
    with open_writer(tmp_path / name, (256, 192)) as writer:
        writer.write(frame)  # what is loaded once
        tracemalloc.start()
        for _ in range(100):
            writer.write(frame)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * frame.size


# Names


@pytest.mark.parametrize("name", NAMES)
def test_upper_case_and_missing_folders(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / name.upper()
    write(path, [still((9, 9, 9))])
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["-i.webm", "a b's:%03d.mov", "é漢 🎬.gif", "%03d", "concat:a|b"])
def test_strange_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), [still((9, 9, 9))], sound=Waveform(np.zeros(640, np.float32), 16_000))
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_alpha_is_refused_before_the_work_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"cannot be transparent. Use \.webm, \.mov, \.gif or a folder of PNG"
    ):
        check_output(tmp_path / "a.mp4", alpha=True)
    with pytest.raises(InputError, match="cannot be transparent"):
        open_writer(tmp_path / "a.mp4", (8, 8), alpha=True)
    for name in WITH_ALPHA:
        check_output(tmp_path / name, alpha=True)
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffixes_name_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.mp4, \.webm, \.mov, \.gif"):
        check_output(tmp_path / "a.avi")


def test_a_folder_of_others_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "theirs").mkdir()
    check_output(tmp_path / "mine")  # empty
    write(tmp_path / "mine", [still((9, 9, 9))])
    check_output(tmp_path / "mine")  # as we leave it
    (tmp_path / "mine" / "letter.txt").touch()
    iio.imwrite(tmp_path / "theirs" / "000000.png", still((9, 9, 9)))
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path / "mine")
    for path in (tmp_path / "mine", tmp_path / "theirs", tmp_path / "file", ".", "..", "../mine"):
        with pytest.raises(InputError, match="cannot be written"):
            check_output(path)


def test_wrong_shapes_are_a_mistake_of_ours(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="not"),
        open_writer(tmp_path / "a.webm", (8, 8), alpha=True) as writer,
    ):
        writer.write(still((1, 2, 3), (8, 8)))
    assert list(tmp_path.iterdir()) == []


def test_speech_of_a_folder_is_a_plain_wav(tmp_path: Path) -> None:
    samples = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)
    write(tmp_path / "a", [still((9, 9, 9))] * 25, sound=Waveform(samples, 32_000))
    with wave.open(str(tmp_path / "a" / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (32_000, 1, 32_000)
        found = np.frombuffer(file.readframes(32_000), "<i2") / 32768
    assert np.abs(found - samples).max() < 2 / 32768
