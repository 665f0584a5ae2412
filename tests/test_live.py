"""Tests of live rendering: each shortcut against the exact way, frames in flight, and frames by a clock."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy import EXAMPLE, save_speech, toy_model

from sdtalk.camera import Camera
from sdtalk.driving import DrivingSignals
from sdtalk.errors import InputError
from sdtalk.frame_maker import has_live_renderer
from sdtalk.head import HeadGaussians, moved_mesh, posed, rest_in_head
from sdtalk.image import read_picture, to_frames
from sdtalk.live.asked import PATCH, asked_gaussians
from sdtalk.live.in_flight import in_flight
from sdtalk.live.renderer import LiveRenderer, composed
from sdtalk.live.shown import shown_gaussians, telling_frames
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.rendering.face_windows import MOUTH
from sdtalk.stream import render_frames, render_on_time
from sdtalk.talk import Talk

SCENE = torch.full((1, 3, 512, 512), 0.5)


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def talk(pipeline) -> Talk:
    return pipeline(EXAMPLE, EXAMPLE.with_name("sense_and_sensibility.wav"))


@pytest.fixture(scope="module")
def head(talk) -> HeadGaussians:
    return talk.head.gaussians


@pytest.fixture(scope="module")
def some(talk) -> DrivingSignals:
    """Four frames far apart; those between are not told what shows in them."""
    return every(talk.signals, 23, 45)[:4]


@pytest.fixture(scope="module")
def live(pipeline, head, talk) -> LiveRenderer:
    return LiveRenderer(pipeline.model, head, talk.signals)


def every(signals: DrivingSignals, first: int, step: int) -> DrivingSignals:
    return signals[first::step]


def frames(*arguments, **options) -> np.ndarray:
    return np.concatenate(list(render_frames(*arguments, **options)))


def test_live_frames_look_like_exact_ones(pipeline, head, talk, some) -> None:
    live_head = frames(pipeline.model, head, talk.signals[20:47], SCENE).astype(int)
    exact = frames(pipeline.model, head, talk.signals[20:47:13], SCENE, exact=True).astype(int)
    off = np.abs(live_head[::13] - exact)
    assert 0 < off.mean() < 0.3 and (off > 8).mean() < 2e-4  # of 255


def test_the_photos_own_state_gives_the_photo_back_as_well_as_the_exact_way(pipeline, head, talk) -> None:
    own = DrivingSignals(head.audio_code, head.eyes, head.rest, SmallMotion.none(1))
    photo = to_frames(talk.head.portrait.image)[0].astype(int)
    inside = talk.head.portrait.mask[0, 0].numpy() > 0.99
    off = [
        np.abs(frames(pipeline.model, head, own, SCENE, exact=exact)[0].astype(int) - photo)[inside].mean()
        for exact in (True, False)
    ]
    assert off[1] < off[0] + 0.15 < 5


def test_only_what_shows_is_kept(pipeline, head, talk, live) -> None:
    shown = shown_gaussians(pipeline.model, head, talk.signals)
    count = head.gaussians.means.shape[1]
    assert count / 5 < len(shown) < count / 2 and (shown.diff() > 0).all()
    assert len(live.head.geometry[0]) == len(shown)


def test_the_telling_frames_are_the_extreme_ones(talk) -> None:
    chosen = telling_frames(talk.signals)
    assert chosen == sorted(set(chosen)) and 1 < len(chosen) <= 6
    assert int(talk.signals.audio_code[:, 0].argmax()) in chosen
    assert int(talk.signals.eyes[:, 0].argmin()) in chosen
    facing = talk.signals.camera.rotation[:, 0, 2]
    assert {int(facing.argmin()), int(facing.argmax())} <= set(chosen)


def test_what_comes_into_the_picture_between_the_telling_frames_is_kept(pipeline, head, talk) -> None:
    """The head faces as before, but everything is drawn 5 px higher and further to the left."""
    signals = talk.signals[::12]
    index = next(i for i in range(len(signals)) if i not in telling_frames(signals))
    intrinsics = signals.camera.intrinsics.clone()
    intrinsics[index, :2, 2] -= 5.0
    moved = replace(signals, camera=Camera(signals.camera.world_to_camera, intrinsics))
    live = frames(pipeline.model, head, moved, SCENE)[index].astype(int)
    exact = frames(pipeline.model, head, moved[index : index + 1], SCENE, exact=True)[0].astype(int)
    border = np.ones((512, 512), bool)
    border[5:-5, 5:-5] = False
    assert np.abs(live - exact)[border].max() < 20


@torch.inference_mode()
def test_some_of_the_gaussians_move_as_they_do_among_all(pipeline, head, some) -> None:
    kept = torch.arange(0, head.gaussians.means.shape[1], 3)
    part = head.only(kept)
    code, eyes, small = some.audio_code, some.eyes, some.small_motion
    everything = pipeline.model.animate(head, code, eyes, small).gaussians
    found = pipeline.model.animate(part, code, eyes, small).gaussians
    for name in ("means", "quats", "scales", "opacities", "features"):
        torch.testing.assert_close(
            getattr(found, name), getattr(everything, name)[:, kept], atol=1e-6, rtol=0
        )


@torch.inference_mode()
def test_placed_gaussians_are_animated_and_posed_ones(pipeline, live, some) -> None:
    person = live.head.person
    animated = pipeline.model.animate(person, some.audio_code, some.eyes, some.small_motion)
    offsets = pipeline.model.offsets(person, some.audio_code, some.eyes).packed
    first = person.completion_canonical.shape[1]
    moved = torch.cat([torch.arange(first), first + person.moving])
    order = torch.cat(
        [moved, torch.tensor(sorted(set(range(person.head_weight.shape[1])) - set(moved.tolist())))]
    )
    for index in range(len(some)):
        one = some[index : index + 1]
        wanted = posed(animated.gaussians[index : index + 1], person, one.camera)
        found = live.head.placed(offsets[index], one.small_motion, rest_in_head(person, one.camera)[0])
        for name, array in zip(("means", "quats", "scales", "opacities"), found, strict=True):
            theirs = getattr(wanted, name)[0, order]
            torch.testing.assert_close(torch.from_numpy(array), theirs, atol=1e-5, rtol=0)


def test_composed_frames_are_those_of_plain_pytorch() -> None:
    torch.manual_seed(0)
    pictures, behind = torch.rand(2, 4, 20, 30) * 1.2 - 0.1, torch.rand(1, 3, 20, 30)
    wanted = to_frames((pictures[:, :3] + (1 - pictures[:, 3:]) * behind).clamp(0, 1)).astype(int)
    found = composed(pictures, behind).astype(int)
    assert (
        np.abs(found - wanted).max() <= 1 and (found != wanted).mean() < 0.01
    )  # halves may round either way


@torch.inference_mode()
def test_windows_painted_in_place_are_those_of_plain_pytorch(pipeline, head, talk, monkeypatch) -> None:
    renderer, part = pipeline.model.neural_renderer, every(talk.signals, 30, 17)[:2]
    mesh = moved_mesh(head, part.audio_code, part.eyes, part.small_motion)
    before = torch.rand(2, 4, 512, 512)
    # one window reaches beyond the frame
    shift = torch.zeros(2, 4, 4)
    shift[1, 0, 3] = 0.75
    camera = Camera(part.camera.world_to_camera + shift, part.camera.intrinsics)
    in_place, plain = before.clone(), before.clone()
    renderer.paint(head.photo, mesh, camera, in_place)
    monkeypatch.setattr("torch.is_grad_enabled", lambda: True)
    renderer.paint(head.photo, mesh, camera, plain)
    assert (in_place != before).any(1).float().mean() * 512**2 > MOUTH.size**2 / 4
    torch.testing.assert_close(in_place, plain, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_windows_of_small_frames_are_means_of_whole_ones(pipeline, head, talk) -> None:
    renderer, part = pipeline.model.neural_renderer, every(talk.signals, 30, 17)[:2]
    mesh = moved_mesh(head, part.audio_code, part.eyes, part.small_motion)
    # smooth, since whole windows may lie 1 px beside the others
    before = F.interpolate(torch.rand(2, 4, 8, 8), (256, 256), mode="bilinear")
    whole, small = F.interpolate(before, scale_factor=2.0), before.clone()
    renderer.paint(head.photo, mesh, part.camera, whole)
    renderer.paint(head.photo, mesh, part.camera, small, zoom=2)
    off = (F.avg_pool2d(whole, 2) - small).abs()
    assert (small != before).any(1).sum() > MOUTH.size**2 / 16
    assert off.mean() * 255 < 0.1 and off.max() * 255 < 24


def test_one_of_a_patch_is_asked() -> None:
    side, first = 10, 7
    torch.manual_seed(0)
    moved = (torch.rand(first + 2 * side**2) > 0.4).nonzero()[:, 0]
    asked, answers = asked_gaussians(moved, first, side)
    completion = int((moved < first).sum())
    assert asked[:completion].tolist() == answers[:completion].tolist() == list(range(completion))
    assert (asked.diff() > 0).all() and len(answers) == len(moved)
    places = torch.stack([(moved - first) % side**2 // side, (moved - first) % side], 1)[completion:]
    answering = torch.stack([(moved - first) % side**2 // side, (moved - first) % side], 1)[asked[answers]]
    assert torch.equal(places // PATCH, answering[completion:] // PATCH)
    assert len(asked) - completion == len(set(map(tuple, (places // PATCH).tolist())))


@torch.inference_mode()
def test_neighbours_move_as_those_asked_do(pipeline, head, talk, some) -> None:
    small = LiveRenderer(pipeline.model, head, talk.signals, 256).head
    person, model = small.person, pipeline.model
    said = small.offsets(model, some) - small.rest_offsets
    exact = model.offsets(person, some.audio_code, some.eyes).packed
    exact -= model.offsets(person, person.audio_code, person.eyes).packed
    assert small.asked.visible_canonical.shape[1] < said.shape[1] / 2
    off, moved = ((x[..., :3]).norm(dim=-1).mean() for x in (said - exact, exact))
    assert 0 < off < 0.1 * moved


def test_the_same_talk_has_the_same_bytes(pipeline, head, talk) -> None:
    once, again = (frames(pipeline.model, head, talk.signals[:9], SCENE, batch=2) for _ in range(2))
    assert len(once) == 9 and np.array_equal(once, again)


def test_exact_is_what_the_model_renders(pipeline, head, talk) -> None:
    part = talk.signals[30:32]
    with torch.inference_mode():
        animated = pipeline.model.animate(head, part.audio_code, part.eyes, part.small_motion)
        wanted = to_frames(pipeline.model.render(head, animated, part.camera).over(SCENE))
    exact = frames(pipeline.model, head, part, SCENE, exact=True)
    assert np.abs(exact.astype(int) - wanted).max() <= 1
    options = TalkOptions(exact=True)
    first = next(
        pipeline.talk(talk.head, EXAMPLE.with_name("sense_and_sensibility.wav"), options=options).frames()
    )
    assert not np.array_equal(first, next(talk.frames()))
    with pytest.raises(InputError, match="exact"):
        TalkOptions.of(exact="yes")


def test_other_models_have_one_way_only(pipeline) -> None:
    assert has_live_renderer(pipeline.model.config, torch.device("cpu"))
    assert not has_live_renderer(pipeline.model.config, torch.device("cuda"))
    assert not has_live_renderer(toy_model().config, torch.device("cpu"))


@pytest.mark.parametrize(
    "changes", [{"fine_field": False}, {"completion_branch": False}, {"still_shoulders": False}], ids=str
)
def test_ablated_models_render_live_too(pipeline, talk, changes: dict[str, bool]) -> None:
    torch.manual_seed(0)
    model = SDTalk(replace(pipeline.model.config, **changes)).eval().requires_grad_(False)
    for field in model.motion_fields:
        torch.nn.init.normal_(field.mlp[-1].weight, std=0.003)
    person, part = talk.head.portrait, every(talk.signals, 30, 40)[:2]
    made = SDTalkPipeline(model, pipeline.tracker, "cpu", pipeline.speech_encoder).reconstruct_tracked(person)
    shown, exact = (frames(model, made, part, SCENE, exact=e).astype(int) for e in (False, True))
    assert 0 < np.abs(shown - exact).mean() < 0.5


def test_transparent_and_resized_frames_come_the_same_way(pipeline, head, talk) -> None:
    part = talk.signals[40:42]
    for size in (96, 256, 300):  # at half the size and below half as many pixels are rasterised
        small, exact = (
            frames(pipeline.model, head, part, SCENE, size, exact=e).astype(int) for e in (False, True)
        )
        assert small.shape == (2, size, size, 3) and np.abs(small - exact).mean() < (
            0.3 if size > 256 else 0.75
        )
        assert (np.abs(small - exact) > 16).mean() < 1e-3
    alone, exact = (frames(pipeline.model, head, part, None, exact=e).astype(int) for e in (False, True))
    assert alone.shape == (2, 512, 512, 4) and np.abs(alone - exact)[..., 3].mean() < 0.3


def test_items_in_flight_come_out_in_order_on_threads_of_one_core() -> None:
    taken: list[int] = []
    meeting = threading.Barrier(2, timeout=10)  # two of them are under way at a time

    def items() -> Iterator[int]:
        for item in range(8):
            taken.append(item)
            yield item

    def make(item: int) -> tuple[int, int]:
        meeting.wait()
        return item, torch.get_num_threads()

    threads = torch.get_num_threads()
    found = in_flight(make, items(), 2)
    assert next(found) == (0, 1) and len(taken) <= 4
    assert list(found) == [(item, 1) for item in range(1, 8)]
    assert torch.get_num_threads() == threads
    fresh: list[int] = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [threads]  # those of the caller's threads that come later, too


def test_what_an_item_in_flight_raises_is_raised_and_the_rest_is_left() -> None:
    made: list[int] = []

    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        made.append(item)
        return item

    found = in_flight(make, range(100), 2)
    with pytest.raises(ValueError, match="three"):
        list(found)
    assert len(made) < 10
    assert list(in_flight(make, [5, 6], 1)) == [5, 6]


class Clock:
    """Counts up by a step whenever it is asked."""

    def __init__(self, step: float) -> None:
        self.seconds, self.step = 0.0, step

    def __call__(self) -> float:
        self.seconds += self.step
        return self.seconds


def test_by_a_slow_clock_no_frame_is_dropped(pipeline, head, talk) -> None:
    part = talk.signals[:6]
    timed = list(render_on_time(pipeline.model, head, part, SCENE, Clock(0.0)))
    assert [(t.number, t.dropped) for t in timed] == [(n, 0) for n in range(6)]
    wanted = frames(pipeline.model, head, part, SCENE, batch=1)
    assert np.array_equal(np.stack([t.picture for t in timed]), wanted)


def test_by_a_fast_clock_frames_are_dropped_and_counted(talk) -> None:
    timed = list(talk.frames_on_time(Clock(0.3)))  # 7.5 frames and more pass from one to the next
    numbers = [t.number for t in timed]
    assert numbers == sorted(set(numbers)) and numbers[-1] < len(talk) and len(timed) < len(talk) / 7
    for place, frame in enumerate(timed):
        assert frame.dropped == frame.number - place


def test_what_is_drawn_beside_others_is_what_is_drawn_alone(pipeline, tmp_path: Path) -> None:
    """With `sdtalk demo --concurrency 2` two threads share a pipeline."""
    mirrored = np.ascontiguousarray(read_picture(EXAMPLE).pixels[:, ::-1])
    portraits = [read_picture(EXAMPLE).pixels, mirrored]
    speech = save_speech(tmp_path / "speech.wav", 0.12)

    def frames(portrait: np.ndarray) -> np.ndarray:
        return np.stack(list(pipeline(portrait, speech, size=128).frames()))

    alone = [frames(portrait) for portrait in portraits]
    with ThreadPoolExecutor(2) as threads:
        beside = list(threads.map(frames, portraits))
    assert (alone[0] != alone[1]).any()
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_array_equal(one, other)
