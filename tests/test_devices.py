"""Tests of devices: on a pretended GPU nothing mixes devices, numbers are the CPU's, and per frame nothing waits."""

import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import OnGpu, back, pretended_gpu
from torch import Tensor
from toy import save_portrait, save_speech, store_toy_assets, toy_base, toy_model

from sdtalk.driving import DrivingSignals
from sdtalk.errors import InputError
from sdtalk.gpu_frames import LARGEST_BATCH, GpuFrames
from sdtalk.head import HeadGaussians
from sdtalk.image import read_picture
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.audio import read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import render_frames, render_on_time
from sdtalk.tracking.head_track import Portrait

pretended = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one")
needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SCENE = torch.full((1, 3, 512, 512), 0.5)
FRAMES = 5


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A toy of base, a portrait and a recording."""
    folder = tmp_path_factory.mktemp("inputs")
    store_toy_assets(folder / "home")
    toy_base(renderer_noise="fresh").save_pretrained(folder / "base")
    toy_model(neural_renderer="residual").save_pretrained(folder / "residual")
    toy_model(neural_renderer="windows").save_pretrained(folder / "windows")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav", FRAMES / 25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDTALK_HOME", str(folder / "home"))
        yield folder


def load(files: Path, name: str) -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained(files / name, "cpu", "float32")


def tracked(pipeline: SDTalkPipeline, files: Path) -> Portrait:
    return pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")


def signals_for(pipeline: SDTalkPipeline, person: Portrait, files: Path) -> DrivingSignals:
    sound = read_speech(files / "speech.wav")
    return pipeline.signals(person, sound, TalkOptions(), lambda *_: None, Stopwatch())


def moved(pipeline: SDTalkPipeline) -> SDTalkPipeline:
    """To the pretended GPU; `to` would ask PyTorch whether there is a real one."""
    pipeline.model.to("cuda")
    pipeline.tracker.to("cuda")
    pipeline.speech_encoder.to("cuda")
    pipeline.device = torch.device("cuda")
    return pipeline


def assert_alike(found: object, wanted: object, atol: float) -> None:
    for field in fields(wanted):
        a, b = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(b, Tensor):
            torch.testing.assert_close(
                back(a), b, atol=atol, rtol=1e-3, msg=lambda m, n=field.name: f"{n}: {m}"
            )
        elif hasattr(b, "__dataclass_fields__"):
            assert_alike(a, b, atol)


@pretended
def test_the_pretended_gpu_refuses_what_cuda_refuses_and_notes_what_waits() -> None:
    with pretended_gpu() as gpu:
        x = torch.arange(6.0).to("cuda")
        assert x.device.type == "cuda" and x.is_cuda and isinstance(x + 1, OnGpu)
        for mixed in (lambda: x + torch.ones(6), lambda: x.numpy(), lambda: torch.cat([x, torch.ones(2)])):
            with pytest.raises((RuntimeError, TypeError), match="cuda"):
                mixed()
        gpu.waits.clear()
        y = x * 2 + torch.zeros(6, device=x.device) + torch.tensor(1.0)
        y[1:3] = y[2:4] + 1
        assert gpu.waits == []
        waiting = [
            lambda: x.sum().item(), lambda: bool(x[0] > 1), lambda: x[x > 1], lambda: x.nonzero(), lambda: x.cpu(),
            lambda: x[[0, 1]], lambda: x.tolist(), lambda: x.new_tensor([1.0]), lambda: torch.ones(2).to(x),
        ]  # fmt: skip
        for number, wait in enumerate(waiting):
            wait()
            assert len(gpu.waits) == number + 1, gpu.waits
        assert torch.equal(back(y), torch.tensor([1.0, 6.0, 8.0, 7.0, 9.0, 11.0]))


@pretended
@pytest.mark.parametrize("name", ["residual", "windows", "base"])
def test_heads_are_made_on_a_gpu_as_on_the_cpu(files: Path, name: str) -> None:
    here, there = load(files, name), load(files, name)
    person = tracked(here, files)
    wanted, signals = here.reconstruct_tracked(person), signals_for(here, person, files)
    with pretended_gpu():
        moved(there)
        found = there.reconstruct_tracked(person)
        assert_alike(tracked(there, files), person, 1e-3)
        assert_alike(signals_for(there, person, files), signals, 1e-4)
        assert isinstance(found.gaussians.means, OnGpu)
        assert_alike(found, wanted, 1e-4)


@pretended
def test_a_picture_without_a_face_is_refused_there_too(files: Path) -> None:
    tracker = load(files, "residual").tracker
    with pretended_gpu(), pytest.raises(InputError, match="no face"):
        tracker.to("cuda").portrait(np.full((300, 400, 3), 127, np.uint8), "wall.png")


def recorded(files: Path, name: str) -> tuple[SDTalkPipeline, HeadGaussians, DrivingSignals]:
    pipeline = load(files, name)
    person = tracked(pipeline, files)
    return pipeline, pipeline.reconstruct_tracked(person), signals_for(pipeline, person, files)


def standing_still(signals: DrivingSignals, frames: int) -> DrivingSignals:
    """The first frame, many times."""
    first = torch.zeros(frames, dtype=torch.long)
    small = signals.small_motion
    if small is not None:
        small = SmallMotion(small.gaze[first], small.brows[first], small.breath[first])
    return DrivingSignals(signals.audio_code[first], signals.eyes[first], signals.camera[first], small)


def on_gpu(thing: Any) -> Any:
    """A head as it would be on a GPU, inside of `pretended_gpu`."""
    if isinstance(thing, Tensor):
        return thing.to("cuda")
    if not hasattr(thing, "__dataclass_fields__"):
        return thing
    return replace(thing, **{f.name: on_gpu(getattr(thing, f.name)) for f in fields(thing)})


@pretended
@pytest.mark.parametrize("scene", [SCENE, None], ids=["over a scene", "transparent"])
@pytest.mark.parametrize(
    "name", ["residual", "base"]
)  # windows are painted by kernels, see the tests of Triton
def test_frames_of_a_gpu_are_those_of_the_cpu(files: Path, name: str, scene: Tensor | None) -> None:
    pipeline, head, signals = recorded(files, name)
    if name == "base":
        pipeline.model.neural_renderer.noise = "stored"  # fresh noise differs from frame to frame anyway
    model, size = pipeline.model, 512 if scene is None else 200
    how = {"size": size, "exact": True, "label": "AI-generated", "mark": True}
    wanted = np.concatenate(list(render_frames(model, head, signals, scene, **how)))
    with pretended_gpu():
        model.to("cuda")
        found = np.concatenate(list(render_frames(model, on_gpu(head), signals, scene, **how)))
    assert found.shape == wanted.shape == (FRAMES, size, size, 3 if scene is not None else 4)
    off = np.abs(found.astype(int) - wanted)
    assert off.mean() < 0.01 and (off > 1).mean() < 1e-3


@pretended
@pytest.mark.parametrize("name", ["residual", "base"])
@pytest.mark.parametrize("scene", [SCENE, None], ids=["over a scene", "transparent"])
def test_nothing_waits_while_frames_are_made(files: Path, name: str, scene: Tensor | None) -> None:
    pipeline, head, signals = recorded(files, name)
    with pretended_gpu() as gpu:
        pipeline.model.to("cuda")
        maker = GpuFrames(pipeline.model, on_gpu(head), signals, scene, 200, Stopwatch(), 0, False, "made")
        next(maker.frames([range(1)]))  # what is moved there once
        gpu.waits.clear()
        frames = list(maker.frames([range(2), range(2, FRAMES)]))
    assert [len(f) for f in frames] == [2, FRAMES - 2]
    assert gpu.waits == []


def test_painters_of_their_own_precision_leave_the_model_as_it_is(files: Path) -> None:
    pipeline, head, signals = recorded(files, "windows")
    model, part = pipeline.model, signals[:2]
    fast = model.painting_in(torch.bfloat16)
    assert {p.dtype for p in fast.neural_renderer.parameters()} == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert fast.coarse_field is model.coarse_field and fast.config is model.config
    with torch.inference_mode():
        pictures = [
            m.render(head, m.animate(head, part.audio_code, part.eyes, part.small_motion), part.camera).over(
                SCENE
            )
            for m in (model, fast)
        ]
    assert 0 < (pictures[0] - pictures[1]).abs().mean() < 1e-3


def test_fresh_noise_does_not_depend_on_how_many_frames_are_made_at_once(files: Path) -> None:
    pipeline, head, signals = recorded(files, "base")
    still = standing_still(signals, FRAMES)
    assert pipeline.model.neural_renderer.noise == "fresh"

    def frames(parts: list[range], seed: int = 0) -> np.ndarray:
        maker = GpuFrames(pipeline.model, head, still, SCENE, 512, Stopwatch(), seed, False)
        return np.concatenate(list(maker.frames(parts)))

    one_by_one = frames([range(i, i + 1) for i in range(FRAMES)])
    together = frames([range(FRAMES)])
    assert np.abs(one_by_one.astype(int) - together).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).max() > 1
    assert np.abs(together.astype(int) - frames([range(FRAMES)], seed=1)).max() > 1


class TooMany:
    """A model that fits a number of frames into memory; the rest is up to another."""

    def __init__(self, model: SDTalk, most: int) -> None:
        self.model, self.most, self.made = model, most, []

    def __call__(self, head: HeadGaussians, code: Tensor, *rest: Any) -> Any:
        self.made.append(len(code))
        if len(code) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return SDTalk.animate(self.model, head, code, *rest)


def test_batches_become_smaller_where_memory_is_short_and_it_is_said_once(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, head, signals = recorded(files, "residual")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def maker(most: int) -> tuple[GpuFrames, TooMany]:
        made = GpuFrames(pipeline.model, head, signals, SCENE, 64, Stopwatch(), 0, False)
        animate = TooMany(pipeline.model, most)
        monkeypatch.setattr(pipeline.model, "animate", animate)
        return made, animate

    wide, _ = maker(99)
    (wanted,) = wide.frames([range(FRAMES)])
    short, animate = maker(1)
    with pytest.warns(UserWarning, match="smaller batches") as told:
        found = list(short.frames([range(FRAMES - 1), range(FRAMES - 1, FRAMES)]))
    assert len(told) == 1 and animate.made == [4, 2, 1, 1, 1, 1, 1]
    assert np.array_equal(np.concatenate(found), wanted)
    none, _ = maker(0)
    with pytest.raises(InputError, match="device cpu.*too little free memory"):
        list(none.frames([range(1)]))


def test_other_errors_stay_what_they_are(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, head, signals = recorded(files, "residual")

    def broken(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    maker = GpuFrames(pipeline.model, head, signals, SCENE, 64, Stopwatch(), 0, False)
    monkeypatch.setattr(pipeline.model, "animate", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        list(maker.frames([range(2)]))


@pretended
@pytest.mark.parametrize(("free", "batch"), [(2**40, LARGEST_BATCH), (2**32, 5), (2**20, 1)])
def test_batches_are_as_large_as_half_of_the_memory_takes(files: Path, free: int, batch: int) -> None:
    pipeline, head, signals = recorded(files, "residual")
    with pretended_gpu(free):
        pipeline.model.to("cuda")
        maker = GpuFrames(pipeline.model, on_gpu(head), signals, SCENE, 64, Stopwatch(), 0, False)
        assert batch <= maker.batch <= batch + 3 and maker.batch <= LARGEST_BATCH


@pretended
def test_the_first_frames_come_soon_and_by_a_clock_each_by_itself(files: Path) -> None:
    pipeline, head, signals = recorded(files, "residual")
    long = standing_still(signals, 20)
    lengths: list[int] = []
    with pretended_gpu():
        pipeline.model.to("cuda")
        there = on_gpu(head)
        for some in render_frames(pipeline.model, there, long, SCENE, 64):
            lengths.append(len(some))
        timed = list(render_on_time(pipeline.model, there, long[:3], SCENE, lambda: 0.0, 64))
    assert lengths == [4, 16] and [t.number for t in timed] == [0, 1, 2]


def on_cuda(files: Path, name: str) -> tuple[SDTalk, HeadGaussians, DrivingSignals, np.ndarray]:
    """A head on a real GPU, and its frames as the CPU makes them."""
    here, head, signals = recorded(files, name)
    here.model.neural_renderer.noise = "stored"  # fresh noise is another on every device
    wanted = np.concatenate(list(render_frames(here.model, head, signals, SCENE, exact=True)))
    there = SDTalkPipeline.from_pretrained(files / name, "cuda", "float32")
    there.model.neural_renderer.noise = "stored"
    return there.model, there.reconstruct_tracked(tracked(there, files)), signals, wanted


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("name", ["residual", "windows", "base"])
def test_frames_of_a_real_gpu_are_those_of_the_cpu(files: Path, name: str) -> None:
    model, head, signals, wanted = on_cuda(files, name)
    for exact, most in ((True, 0.1), (False, 0.5)):
        found = np.concatenate(list(render_frames(model, head, signals, SCENE, exact=exact)))
        off = np.abs(found.astype(int) - wanted)
        assert off.mean() < most and (off > 16).mean() < 1e-3, (exact, off.mean(), off.max())
    again = np.concatenate(list(render_frames(model, head, signals, SCENE)))
    assert np.array_equal(found, again), "the same talk has the same bytes"


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("name", ["residual", "windows", "base"])
def test_a_real_gpu_is_waited_for_once_a_batch(files: Path, name: str) -> None:
    model, head, signals, _ = on_cuda(files, name)
    maker = GpuFrames(model, head, signals, SCENE, 200, Stopwatch(), 0, False, "made")
    list(maker.frames([range(2)]))  # what is compiled or moved there once
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            maker._made(range(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    assert len(waits) <= 1, [
        f"{w.filename}:{w.lineno}" for w in waits
    ]  # the rasteriser's lists have to have a length


@pytest.mark.gpu
@needs_a_gpu
def test_a_real_gpu_with_little_memory_makes_smaller_batches(files: Path) -> None:
    model, head, signals, _ = on_cuda(files, "residual")
    long = standing_still(signals, 64)
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**29) / total)
    try:
        maker = GpuFrames(model, head, long, SCENE, 512, Stopwatch(), 0, False)
        maker.batch = 64
        with pytest.warns(UserWarning, match="smaller batches"):
            (frames,) = maker.frames([range(64)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert maker.batch < 64 and len(frames) == 64 and np.abs(frames[0].astype(int) - frames[-1]).max() <= 1


@pytest.mark.gpu
@needs_a_gpu
def test_a_stopwatch_adds_up_what_a_real_gpu_did(files: Path) -> None:
    model, head, signals, _ = on_cuda(files, "residual")
    watch = Stopwatch()
    list(render_frames(model, head, signals, SCENE, watch=watch))
    assert set(watch.seconds) == {"preparing", "motion", "rendering", "finishing"}
    assert all(0 < seconds < 600 for seconds in watch.seconds.values())
