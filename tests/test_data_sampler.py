"""Tests of the frame sampler: every clip and piece has its turn; a sample depends on seed, slot and step only."""

import numpy as np
import pytest

from training.data.entries import ClipEntry, Piece, Span
from training.data.packing import split_evenly
from training.data.sampler import FrameSampler, Sample


def entry(key: str, frames: int, own_speech: bool = True, longest: int = 64) -> ClipEntry:
    pieces = tuple(
        Piece(f"frames/{key}.tar", 0, 512, 0, numbers.start, len(numbers))
        for numbers in split_evenly(frames, longest)
    )
    record = Span(f"clips/{key}.tar", 0, 512, 0)
    return ClipEntry(key, key, "made up", "train", frames, own_speech, record, pieces)


CLIPS = [
    entry("a", 500),
    entry("b", 120, own_speech=False),
    entry("c", 30),
    entry("d", 1, False),
    entry("e", 333),
]


def sampled(sampler: FrameSampler, slot: int, step: int) -> tuple[str, Sample]:
    opened = sampler.open_clip(slot, sampler.clip_number(step))
    return opened.clip.key, sampler.sample(slot, step, opened)


@pytest.mark.parametrize("open_clips, samples", [(1, 1), (1, 7), (4, 32), (8, 3), (5, 4)])
def test_a_clip_stays_open_until_its_last_sample(open_clips: int, samples: int) -> None:
    sampler = FrameSampler(CLIPS, 2, 0, open_clips, samples)
    uses: dict[int, list[int]] = {}
    for step in range(open_clips * samples * 4):
        uses.setdefault(sampler.clip_number(step), []).append(step)
    for number, steps in uses.items():
        if steps[-1] < open_clips * samples * 3:  # the rest may not be over yet
            assert sampler.last_step(number) == steps[-1]
            assert len(steps) == samples or (number < open_clips and len(steps) < samples)
    whole = [number for number in uses if number < 2 * open_clips]
    assert sorted(whole) == list(range(2 * open_clips))  # no number is left out


def test_clips_are_not_all_closed_at_once() -> None:
    sampler = FrameSampler(CLIPS, 1, 0, open_clips=4, samples_per_clip=32)
    closed = [step for step in range(500) if sampler.last_step(sampler.clip_number(step)) == step]
    assert min(np.diff(closed)) > 16


def test_frames_are_of_the_open_pieces() -> None:
    sampler = FrameSampler(CLIPS, 3, 1, 4, 5)
    sources, targets = set(), set()
    for slot in range(3):
        for step in range(300):
            opened = sampler.open_clip(slot, sampler.clip_number(step))
            sample = sampler.sample(slot, step, opened)
            assert opened.target in opened.clip.pieces and opened.source in opened.clip.pieces
            assert 0 <= sample.source - opened.source.first < opened.source.count
            assert 0 <= sample.target - opened.target.first < opened.target.count
            assert all(0 <= w < 1 for w in sample.window_offset)
            sources.add((opened.clip.key, sample.source))
            targets.add((opened.clip.key, sample.target))
    assert len(sources) > 300 and len(targets) > 300


def test_every_clip_is_opened_in_an_epoch_and_as_often_as_it_weighs() -> None:
    sampler = FrameSampler(CLIPS, 1, 2)
    epochs = 20
    counts = dict.fromkeys("abcde", 0)
    pieces: dict[str, set[int]] = {key: set() for key in counts}
    for epoch in range(epochs):
        seen = set()
        for at in range(sampler.epoch_length):
            opened = sampler.open_clip(0, epoch * sampler.epoch_length + at)
            seen.add(opened.clip.key)
            counts[opened.clip.key] += 1
            pieces[opened.clip.key].add(opened.target.first)
        assert seen == set(counts)
    weights = np.array([2 * 500**0.5, 120**0.5, 2 * 30**0.5, 1, 2 * 333**0.5])
    shares = np.array(list(counts.values())) / (epochs * sampler.epoch_length)
    assert np.allclose(shares, weights / weights.sum(), atol=0.002)
    assert all(len(pieces[clip.key]) == len(clip.pieces) for clip in CLIPS)


def test_slots_share_one_sequence() -> None:
    one, three = FrameSampler(CLIPS, 1, 5), FrameSampler(CLIPS, 3, 5)
    alone = [one.open_clip(0, number) for number in range(30)]
    together = [three.open_clip(slot, number) for number in range(10) for slot in range(3)]
    assert [(v.clip.key, v.target.first) for v in alone] == [(v.clip.key, v.target.first) for v in together]


def test_the_seed_decides() -> None:
    first, again, other = (FrameSampler(CLIPS, 2, seed) for seed in (0, 0, 1))
    places = [(slot, step) for slot in range(2) for step in range(50)]
    samples = [[sampled(sampler, *place) for place in places] for sampler in (first, again, other)]
    assert samples[0] == samples[1] != samples[2]


def test_late_steps_cost_nothing() -> None:
    sampler = FrameSampler(CLIPS, 8, 0)
    late = [sampled(sampler, 3, step) for step in range(10**9, 10**9 + 5)]
    assert len(set(late)) == 5


def test_another_attempt_is_another_clip_and_always_the_same() -> None:
    sampler, again = FrameSampler(CLIPS, 2, 0), FrameSampler(CLIPS, 2, 0)
    attempts = [sampler.open_clip(1, 7, attempt) for attempt in range(40)]
    assert attempts == [again.open_clip(1, 7, attempt) for attempt in range(40)]
    assert {opened.clip.key for opened in attempts} >= {"a", "e"}


def test_pieces_are_even_and_cover_the_clip() -> None:
    for frames in (1, 63, 64, 65, 100, 500):
        pieces = split_evenly(frames, 64)
        assert [n for piece in pieces for n in piece] == list(range(frames))
        lengths = {len(piece) for piece in pieces}
        assert max(lengths) <= 64 and max(lengths) - min(lengths) <= 1


def test_a_few_epochs_show_every_frame_piece() -> None:
    clips = [entry(f"clip{n}", 512) for n in range(20)]  # of eight pieces, each opened once an epoch
    sampler = FrameSampler(clips, 1, 0)
    assert sampler.epoch_length == 21
    seen: dict[str, set[int]] = {clip.key: set() for clip in clips}
    for number in range(8 * 21):
        opened = sampler.open_clip(0, number)
        seen[opened.clip.key].add(opened.target.first)
    assert sum(map(len, seen.values())) > 0.95 * 20 * 8
