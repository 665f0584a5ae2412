import numpy as np
import pytest

from training.data.entries import ClipEntry, Piece, Span
from training.data.packing import even_pieces
from training.data.sampler import Draw, SamplingPlan


def entry(key: str, frames: int, own_speech: bool = True, longest: int = 64) -> ClipEntry:
    pieces = tuple(
        Piece(f"frames/{key}.tar", 0, 512, 0, numbers.start, len(numbers))
        for numbers in even_pieces(frames, longest)
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


def drawn(plan: SamplingPlan, lane: int, step: int) -> tuple[str, Draw]:
    visit = plan.visit(lane, plan.visit_number(step))
    return visit.clip.key, plan.draw(lane, step, visit)


@pytest.mark.parametrize("pool, draws", [(1, 1), (1, 7), (4, 32), (8, 3), (5, 4)])
def test_a_visit_is_the_same_until_its_last_draw(pool: int, draws: int) -> None:
    plan = SamplingPlan(CLIPS, 2, 0, pool, draws)
    uses: dict[int, list[int]] = {}
    for step in range(pool * draws * 4):
        uses.setdefault(plan.visit_number(step), []).append(step)
    for visit, steps in uses.items():
        if steps[-1] < pool * draws * 3:  # the rest may not be over yet
            assert plan.last_draw(visit) == steps[-1]
            assert len(steps) == draws or (visit < pool and len(steps) < draws)
    whole = [v for v in uses if v < 2 * pool]
    assert sorted(whole) == list(range(2 * pool))  # no number is left out


def test_visits_are_not_all_left_at_once() -> None:
    plan = SamplingPlan(CLIPS, 1, 0, pool=4, draws=32)
    left = [step for step in range(500) if plan.last_draw(plan.visit_number(step)) == step]
    assert min(np.diff(left)) > 16


def test_frames_are_of_the_visits_pieces() -> None:
    plan = SamplingPlan(CLIPS, 3, 1, 4, 5)
    sources, targets = set(), set()
    for lane in range(3):
        for step in range(300):
            visit = plan.visit(lane, plan.visit_number(step))
            draw = plan.draw(lane, step, visit)
            assert visit.target in visit.clip.pieces and visit.source in visit.clip.pieces
            assert 0 <= draw.source - visit.source.first < visit.source.count
            assert 0 <= draw.target - visit.target.first < visit.target.count
            assert all(0 <= w < 1 for w in draw.window)
            sources.add((visit.clip.key, draw.source))
            targets.add((visit.clip.key, draw.target))
    assert len(sources) > 300 and len(targets) > 300


def test_every_clip_is_visited_in_an_epoch_and_as_often_as_it_weighs() -> None:
    plan = SamplingPlan(CLIPS, 1, 2)
    epochs = 20
    counts = dict.fromkeys("abcde", 0)
    pieces: dict[str, set[int]] = {key: set() for key in counts}
    for epoch in range(epochs):
        seen = set()
        for at in range(plan.epoch_length):
            visit = plan.visit(0, epoch * plan.epoch_length + at)
            seen.add(visit.clip.key)
            counts[visit.clip.key] += 1
            pieces[visit.clip.key].add(visit.target.first)
        assert seen == set(counts)
    weights = np.array([2 * 500**0.5, 120**0.5, 2 * 30**0.5, 1, 2 * 333**0.5])
    shares = np.array(list(counts.values())) / (epochs * plan.epoch_length)
    assert np.allclose(shares, weights / weights.sum(), atol=0.002)
    assert all(len(pieces[clip.key]) == len(clip.pieces) for clip in CLIPS)


def test_lanes_share_one_sequence() -> None:
    one, three = SamplingPlan(CLIPS, 1, 5), SamplingPlan(CLIPS, 3, 5)
    alone = [one.visit(0, number) for number in range(30)]
    together = [three.visit(lane, number) for number in range(10) for lane in range(3)]
    assert [(v.clip.key, v.target.first) for v in alone] == [(v.clip.key, v.target.first) for v in together]


def test_the_seed_decides() -> None:
    first, again, other = (SamplingPlan(CLIPS, 2, seed) for seed in (0, 0, 1))
    numbers = [(lane, step) for lane in range(2) for step in range(50)]
    draws = [[drawn(plan, *n) for n in numbers] for plan in (first, again, other)]
    assert draws[0] == draws[1] != draws[2]


def test_late_steps_cost_nothing() -> None:
    plan = SamplingPlan(CLIPS, 8, 0)
    late = [drawn(plan, 3, step) for step in range(10**9, 10**9 + 5)]
    assert len(set(late)) == 5


def test_another_attempt_is_another_visit_and_always_the_same() -> None:
    plan, again = SamplingPlan(CLIPS, 2, 0), SamplingPlan(CLIPS, 2, 0)
    attempts = [plan.visit(1, 7, attempt) for attempt in range(40)]
    assert attempts == [again.visit(1, 7, attempt) for attempt in range(40)]
    assert {visit.clip.key for visit in attempts} >= {"a", "e"}


def test_pieces_are_even_and_cover_the_clip() -> None:
    for frames in (1, 63, 64, 65, 100, 500):
        pieces = even_pieces(frames, 64)
        assert [n for piece in pieces for n in piece] == list(range(frames))
        lengths = {len(piece) for piece in pieces}
        assert max(lengths) <= 64 and max(lengths) - min(lengths) <= 1


def test_a_few_epochs_show_every_frame_piece() -> None:
    clips = [entry(f"clip{n}", 512) for n in range(20)]  # of eight pieces and one visit an epoch
    plan = SamplingPlan(clips, 1, 0)
    assert plan.epoch_length == 21
    seen: dict[str, set[int]] = {clip.key: set() for clip in clips}
    for number in range(8 * 21):
        visit = plan.visit(0, number)
        seen[visit.clip.key].add(visit.target.first)
    assert sum(map(len, seen.values())) > 0.95 * 20 * 8
