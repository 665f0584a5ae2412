"""Tests of devices: on a pretended GPU nothing mixes devices, numbers are the CPU's, and per frame nothing waits."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from pretend_gpu import OnGpu, back, pretended_gpu
from torch import Tensor
from toy import EXAMPLE, save_portrait, save_speech, store_toy_assets, toy_base, toy_model

from sdtalk.driving import DrivingSignals
from sdtalk.gpu_frames import GpuFrames
from sdtalk.head import HeadGaussians
from sdtalk.image import read_picture
from sdtalk.model import SDTalk
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.audio import read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import render_frames
from sdtalk.tracking.head_track import Portrait

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
    return pipeline._driving_signals(person, sound, TalkOptions(), lambda *_: None, Stopwatch())


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
