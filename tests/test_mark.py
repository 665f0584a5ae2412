"""Tests of the invisible mark: it outlives encoders, scaling and cutting, is not seen, not found where it is not."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sdtalk.provenance import detection
from sdtalk.provenance.detection import MarkSearch, find_mark
from sdtalk.provenance.mark import DeviceMark, add_mark, marked, version_number, version_of
from sdtalk.provenance.pattern import HIGHEST, PILOT, TILE, code_words, pattern, tile, tile_times
from sdtalk.video import open_writer, read_frames
from sdtalk.video.ffmpeg import ENCODINGS, FfmpegWriter
from sdtalk.weights.assets import example

NUMBER = 0xB5C9


def photo(height: int, width: int) -> np.ndarray:
    with Image.open(example("eileen_collins.png")) as image:
        return np.array(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def moved_photo(count: int, size: int = 512) -> np.ndarray:
    """A photo in whose middle a head sways by some pixels before what stays as it is, as in our videos."""
    wide = photo(size + 16, size + 16).astype(np.float32)
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    head = np.clip(4 - 12 * np.hypot(rows, columns), 0, 1)[..., None]
    frames = []
    for number in range(count):
        y, x = 8 + round(4 * math.sin(number / 5)), 8 + round(4 * math.cos(number / 7))
        moved, still = wide[y : y + size, x : x + size], wide[8 : 8 + size, 8 : 8 + size]
        frames.append((still + head * (moved - still)).round().astype(np.uint8))
    return np.stack(frames)


@pytest.fixture(scope="module")
def bare() -> np.ndarray:
    return moved_photo(25)


@pytest.fixture(scope="module")
def with_mark(bare: np.ndarray) -> np.ndarray:
    frames = bare.copy()
    add_mark(frames, NUMBER)
    return frames


def encoded(frames: np.ndarray, path: Path, crf: int, filters: str, monkeypatch) -> list[np.ndarray]:
    """Through the writer of all videos, told to compress more."""
    mp4 = ENCODINGS[".mp4"]
    coarse = replace(mp4, video=mp4.video.replace("-crf 17", f"-crf {crf}"), filters=filters + mp4.filters)
    assert coarse.video != mp4.video
    monkeypatch.setattr(FfmpegWriter, "encodings", {".mp4": coarse})
    with open_writer(path, frames.shape[2:0:-1]) as writer:
        writer.write_all(frames)
    return list(read_frames(path, 5))


@pytest.mark.parametrize(
    ("crf", "filters", "scale"),
    [
        (28, "", 1.0),
        (23, "scale=iw/2:ih/2,", 0.5),
        (23, "scale=iw/2:ih/2,scale=2*iw:2*ih,", 1.0),
    ],
    ids=["crf 28", "half", "half and back"],
)
def test_encoders_scaling_and_cutting_leave_the_mark(
    with_mark: np.ndarray, crf: int, filters: str, scale: float, tmp_path: Path, monkeypatch
) -> None:
    frames = encoded(with_mark, tmp_path / "a.mp4", crf, filters, monkeypatch)
    for some in (frames, frames[3:]):  # whole, or its end
        found = find_mark(some, everywhere=False)
        assert found is not None and found.number == NUMBER and found.false_alarm <= 1e-6
        assert found.scale == pytest.approx(scale)


def test_a_part_of_the_frame_mirrored_and_of_an_odd_size_is_enough(
    with_mark: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    # all scales take seconds, and many under type checks
    monkeypatch.setattr(detection, "SMALLEST_SCALE", 0.87)
    monkeypatch.setattr(detection, "LARGEST_SCALE", 0.9)
    filters = "crop=400:400:87:33,hflip,scale=354:354,"
    frames = encoded(with_mark, tmp_path / "a.mp4", 20, filters, monkeypatch)
    found = find_mark(frames)
    assert found is not None and (found.number, found.mirrored) == (NUMBER, True)
    assert found.scale == pytest.approx(354 / 400, rel=0.01)


def test_large_frames_have_a_large_mark_that_survives_what_their_small_copies_do() -> None:
    assert [tile_times(side) for side in (64, 512, 720, 1080, 2160)] == [1, 1, 1, 2, 4]
    large = photo(1024, 1100)[None].copy()
    add_mark(large, NUMBER)
    small = np.array(Image.fromarray(large[0]).resize((550, 512), Image.Resampling.BOX))
    for frame, scale in ((large[0], 2), (small, 1)):
        found = find_mark([frame], everywhere=False)
        assert found is not None and found.number == NUMBER and found.scale == pytest.approx(scale)


def test_nothing_is_found_where_nothing_is(bare: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(detection, "SMALLEST_SCALE", 0.99)
    monkeypatch.setattr(detection, "LARGEST_SCALE", 1.01)
    assert find_mark(bare[::5]) is None
    assert find_mark([np.full((64, 64, 3), 255, np.uint8)], everywhere=False) is None
    assert find_mark([], everywhere=False) is None


def test_without_a_mark_the_pilots_fit_is_distributed_as_the_threshold_assumes(bare: np.ndarray) -> None:
    search = MarkSearch()
    search.add(bare[0])
    deviation = math.sqrt((pattern().owner == PILOT).sum() / 2)
    scales = np.geomspace(0.5, 2, 12)
    fits = [detection._pilot_fit(detection._phases(detection._spectrum(search._sum, s))) for s in scales]
    z = np.stack(fits) / deviation
    assert abs(z.mean()) < 0.05 and abs(z.std() - 1) < 0.05 and z.max() < 6
    beyond = {limit: math.erfc(limit / math.sqrt(2)) / 2 for limit in (2, 3)}
    assert all(0.7 < (z > limit).mean() / share < 1.3 for limit, share in beyond.items())


@pytest.mark.parametrize("shape", [(2, 512, 512, 3), (1, 101, 67, 3), (1, 64, 64, 3), (1, 1100, 1024, 3)])
def test_the_mark_is_weak_and_mostly_where_texture_hides_it(shape: tuple[int, ...]) -> None:
    before = np.stack([photo(*shape[1:3])] * shape[0])
    before[0] = np.random.default_rng(0).integers(0, 256, shape[1:], np.uint8)  # as textured as can be
    after = before.copy()
    add_mark(after, NUMBER)
    error = ((after.astype(float) - before) ** 2).mean((1, 2, 3))
    assert (error > 0).all() and (10 * np.log10(255**2 / error) >= 45).all()
    flat = np.full((1, 64, 64, 3), 128, np.uint8)
    add_mark(flat, NUMBER)
    assert 0 < np.abs(flat.astype(int) - 128).max() <= 4 and (flat[..., 0] == flat[..., 2]).all()


@pytest.mark.parametrize("shape", [(2, 512, 512, 3), (1, 101, 67, 3), (2, 131, 250, 4), (1, 1030, 1100, 3)])
def test_a_device_makes_the_same_bytes(shape: tuple[int, ...]) -> None:
    frames = np.zeros(shape, np.uint8)
    frames[..., :3] = photo(*shape[1:3])
    frames[..., 3:] = np.random.default_rng(0).choice([0, 1, 255], shape[1:3])[..., None]
    there = torch.from_numpy(frames.copy())
    DeviceMark(*shape[1:], torch.device("cpu"), NUMBER).draw(there)
    add_mark(frames, NUMBER)
    assert (there.numpy() == frames).all()


def test_only_what_can_be_seen_of_a_transparent_frame_is_marked() -> None:
    frames = np.dstack([photo(256, 256), np.zeros((256, 256), np.uint8)])[None]
    frames[:, 50:200, 60:, 3] = np.random.default_rng(0).integers(1, 256, (150, 196))
    before = frames.copy()
    add_mark(frames)
    assert (frames[..., 3] == before[..., 3]).all()
    changed = (frames[..., :3] != before[..., :3]).any(-1)
    assert changed[before[..., 3] > 0].mean() > 0.3 and not changed[before[..., 3] == 0].any()


def test_batches_are_marked_one_by_one(bare: np.ndarray, with_mark: np.ndarray) -> None:
    batches = list(marked(iter([bare[:3].copy(), bare[3:5].copy()])))
    wanted = bare[:5].copy()
    add_mark(wanted)
    assert [len(batch) for batch in batches] == [3, 2] and (np.concatenate(batches) == wanted).all()
    assert (wanted != with_mark[:5]).any(), "another number is another pattern"


def test_numbers_are_far_apart_and_tell_versions() -> None:
    words = code_words()
    assert (words[1:] != words[0]).sum(1).min() == 8  # of a linear code, the distance of any two
    for version in ("0.2.0", "3.41.7"):
        assert version_of(version_number(version)) == version
    assert version_of(version_number("3.41.7.dev2")) == "3.41.7"
    assert version_of(version_number("99.99.99")) == "31.63.31"


def test_the_tile_has_the_spectrum_that_is_looked_for() -> None:
    found = detection._phases(
        np.fft.fft2(tile(NUMBER, 1))[np.arange(-HIGHEST, HIGHEST + 1)][:, : HIGHEST + 1]
    )
    signs = np.append(code_words()[NUMBER], [0, 1])[pattern().owner]
    used = pattern().used
    assert np.allclose(found[used], signs[used], atol=1e-3) and used.sum() > 1000


def test_fast_spectra_and_fits_are_those_of_their_definitions() -> None:
    total = np.random.default_rng(0).standard_normal((TILE, TILE)).astype(np.float32)
    rows, columns = detection.frequencies()
    wanted = np.fft.fft2(total)[rows, columns] * np.exp(-1j * np.pi * (rows + columns) / TILE)
    assert np.allclose(detection._spectrum(total, 1.0), wanted, atol=0.02)
    phases = detection._phases(wanted.astype(np.complex64))
    fit = detection._pilot_fit(phases)
    for down, across in ((0, 0), (3, 100), (127, 64)):
        step = TILE / detection.GRID
        slow = detection._moved(phases, down * step, across * step)[pattern().owner == PILOT].sum()
        assert fit[down, across] == pytest.approx(float(slow), abs=0.01)
