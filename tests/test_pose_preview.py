"""Tests of stills and of the page's preview: the video's own first frame, drawn once asked, never beside a video."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy import save_portrait, toy_model

from sdtalk.demo import pose_preview
from sdtalk.demo.inputs import Given
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.pose_preview import BUSY, NO_PORTRAIT, PosePreview
from sdtalk.demo.service import TalkService
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.still import StillMaker
from sdtalk.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline(toy_model(neural_renderer="windows"), Tracker.from_bundled())


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_portrait(tmp_path_factory.mktemp("photo") / "ann.png")


@pytest.fixture
def preview(pipeline: SDTalkPipeline) -> PosePreview:
    return PosePreview(TalkService(ModelCache.of_one(pipeline)), 60)


@pytest.fixture
def reconstructed(pipeline: SDTalkPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Photos of which heads were made."""
    made: list[Any] = []
    real = pipeline.reconstruct
    monkeypatch.setattr(
        pipeline, "reconstruct", lambda photo, **place: made.append(photo) or real(photo, **place)
    )
    yield made


def given(portrait: Path | None, **changes: Any) -> list[Any]:
    """What the page would send."""
    values: dict[str, Any] = {
        "portrait": portrait and str(portrait), "speech": None, "consent": False, "pose": "video", "driver": None,
        "blink": "video", "background": "original", "colour": "#ffffff", "picture": None, "mouth": 1,
        "expression": 0.5, "seed": 0, "model": "", "frame": "head",
    } | changes  # fmt: skip
    every = Given(**values)
    return [getattr(every, name) for name in Given.names() if name != "by_program"]


def picture(markup: str) -> np.ndarray:
    assert markup.startswith("<img alt="), markup
    data = markup.partition("base64,")[2].partition('"')[0]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("frame", ["head", "full"])
def test_a_still_is_the_first_frame_of_a_still_video(
    pipeline: SDTalkPipeline, portrait: Path, frame: str
) -> None:
    options = TalkOptions(
        pose="still", frame=frame, yaw=14.0, roll=-6.0, exact=True, mouth=0.0, expression=1.0
    )
    head = pipeline.reconstruct(portrait)
    maker = StillMaker(pipeline, head)
    still = maker.frame(options)
    silence = np.zeros(1600, np.float32)
    first = next(pipeline.talk(head, silence, sampling_rate=16_000, options=options).frames())
    assert still.shape == first.shape and np.abs(still.astype(int) - first).mean() < 1
    upright = maker.frame(TalkOptions(frame=frame))
    assert np.abs(upright.astype(int) - still).max() > 40
    near = maker.near_head(options)
    assert near.shape[0] <= still.shape[0] and (frame == "full" or np.array_equal(near, still))


def test_it_is_drawn_of_one_head_and_only_where_something_is_turned(
    preview: PosePreview, portrait: Path, reconstructed: list[Any]
) -> None:
    assert preview.shown(*given(portrait)) == "" and not reconstructed
    turned = picture(preview.shown(*given(portrait, yaw=15)))
    full = picture(preview.shown(*given(portrait, yaw=15, frame="full")))
    upright = picture(preview.shown(*given(portrait)))
    assert len(reconstructed) == 1, "the head is kept"
    assert turned.shape == upright.shape and np.abs(turned.astype(int) - upright).max() > 40
    assert max(full.shape) <= pose_preview.LONGEST_PX


def test_heads_are_forgotten(preview: PosePreview, portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[tuple] = []

    class Timer:
        daemon = False

        def __init__(self, seconds: float, function: Any, arguments: list[Any]) -> None:
            timers.append((seconds, function, arguments))

        def start(self) -> None:
            assert self.daemon

    monkeypatch.setattr(pose_preview, "Timer", Timer)
    preview.shown(*given(portrait, roll=5))
    ((seconds, forget, arguments),) = timers
    assert seconds == 60 and len(preview._heads) == 1
    forget(*arguments)
    forget(*arguments)
    assert not preview._heads


def test_no_video_is_disturbed_and_what_is_wrong_is_said(
    preview: PosePreview, portrait: Path, tmp_path: Path, reconstructed: list[Any]
) -> None:
    with preview.service.line.joined(1.0):
        assert BUSY in preview.shown(*given(portrait, pitch=5)) and not reconstructed
    assert NO_PORTRAIT in preview.shown(*given(None, pitch=5))
    (tmp_path / "a&b.png").write_text("no picture")
    said = preview.shown(*given(tmp_path / "a&b.png", pitch=5))
    assert "a&amp;b.png: this is not a picture" in said and str(tmp_path) not in said
    assert "yaw 99" in preview.shown(*given(portrait, yaw=99))
