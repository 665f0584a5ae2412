"""Tests of the pieces of a video: one after the other they are the finished file, frames and sound alike."""

import subprocess
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from sdtalk.speech.waveform import Waveform
from sdtalk.video import open_writer
from sdtalk.video.pieces import PIECE_SECONDS, finished_pieces

RATE_HZ = 16_000
AAC_PRIMING = 1024
"""Samples with which AAC begins; an .mp4 says that they are not to be played."""


def decoded(source: str, *options: str) -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", source, *options, "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def frames(source: str) -> np.ndarray:
    raw = decoded(source, *"-map 0:v:0 -fps_mode passthrough -f rawvideo -pix_fmt gray".split())
    return np.frombuffer(raw, np.uint8).reshape(-1, 64, 48)


def sound(source: str) -> np.ndarray:
    return np.frombuffer(decoded(source, *"-map 0:a:0 -f s16le".split()), "<i2").astype(float)


@pytest.mark.parametrize("folder", ["plain", "it's | 100 % [odd]: a\\b"])
def test_one_after_the_other_they_are_the_file(tmp_path: Path, folder: str) -> None:
    place, pieces = tmp_path / folder, tmp_path / "pieces"
    pieces.mkdir()
    assert finished_pieces(pieces) == []
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE_HZ * 3 + 4321) / RATE_HZ).astype(np.float32) / 2
    count = -(-len(tone) * 25 // RATE_HZ)
    with open_writer(place / "a.mp4", (48, 64), sound=Waveform(tone, RATE_HZ), pieces=pieces) as writer:
        for number in range(count):
            picture = np.full((64, 48, 3), 40, np.uint8)
            picture[:, : number % 48] = 200
            writer.write(picture)
    made = finished_pieces(pieces)
    assert [len(frames(str(piece))) for piece in made] == [25 * PIECE_SECONDS] * 3 + [count - 75]
    together = "concat:" + "|".join(map(str, made))
    whole, joined = str(place / "a.mp4"), frames(together)
    assert len(joined) == count and (joined == frames(whole)).all()
    heard, expected = sound(together)[AAC_PRIMING:], sound(whole)
    assert abs(len(heard) - len(expected)) <= AAC_PRIMING
    shared = min(len(heard), len(expected))
    assert (heard[:shared] == expected[:shared]).all()
    steady = heard[2000 : len(tone) - 2000]  # where pieces meet, too: no click in a pure tone
    np.testing.assert_allclose(steady, tone[2000 : 2000 + len(steady)] * 32768, atol=600)


def test_a_piece_is_there_soon_after_its_last_frame(tmp_path: Path) -> None:
    tone = Waveform(np.zeros(RATE_HZ * 4, np.float32), RATE_HZ)
    with (
        pytest.raises(KeyboardInterrupt),
        open_writer(tmp_path / "a.mp4", (48, 64), sound=tone, pieces=tmp_path) as writer,
    ):
        for number in range(25 * PIECE_SECONDS + 11):
            writer.write(np.full((64, 48, 3), 5 * number, np.uint8))
        end = time.monotonic() + 10
        while not finished_pieces(tmp_path):  # without another frame
            assert time.monotonic() < end
            time.sleep(0.02)
        raise KeyboardInterrupt
    assert not (tmp_path / "a.mp4").exists()


def test_a_piece_counts_once_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "finished.txt").write_text("00000.ts\n0000")
    assert finished_pieces(tmp_path) == [tmp_path / "00000.ts"]
