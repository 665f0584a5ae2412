"""Tests of the page that dubs: what it asks for, what it hands on, and texts that become recordings there."""

import asyncio
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from toy import save_speech

from sdtalk.demo import speech_text
from sdtalk.demo.dubbing import DubGiven, DubJob, DubService
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import build
from sdtalk.demo.service import TalkService
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.synthesis import Voice
from sdtalk.video import open_writer
from sdtalk.video.label import AI_GENERATED


@pytest.fixture(scope="module")
def service() -> DubService:
    pipeline = SDTalkPipeline.from_pretrained("mini", device="cpu")
    return DubService(TalkService(ModelCache.of_one(pipeline), 1.0))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A clip of nobody, and a word."""
    with open_writer(tmp_path / "clip.mp4", (64, 64)) as writer:
        writer.write_all(np.full((2, 64, 64, 3), 99, np.uint8))
    return str(tmp_path / "clip.mp4"), str(save_speech(tmp_path / "speech.wav", 0.1))


def given(service: DubService, clip: str | None, speech: str | None, consent: bool = True) -> DubGiven:
    return DubGiven(clip, speech, consent, "hold", 2, 1.2, service.models.names[0])


def test_a_visitor_orders_a_dub(service: DubService, files: tuple[str, str], tmp_path: Path) -> None:
    job = service.job(given(service, *files), tmp_path, True)
    assert isinstance(job, DubJob) and job.watched and 0 < job.speech_seconds < 0.2
    assert (job.dubbed.loop, job.dubbed.face, job.dubbed.mouth) == ("hold", 2, 1.2)
    assert job.dubbed.label == AI_GENERATED and job.dubbed.mark


def test_what_is_missing_is_told_before_the_work(
    service: DubService, files: tuple[str, str], tmp_path: Path
) -> None:
    clip, speech = files
    long = str(save_speech(tmp_path / "long.wav", 2.0))
    for asked, told in (
        (given(service, None, speech), "Video: there is none yet"),
        (given(service, clip, None), "Speech: there is none yet"),
        (given(service, clip, speech, consent=False), "3. Consent: it has not been given"),
        (given(service, speech, speech), "it has no video stream"),
        (given(service, clip, long), "it is longer than"),
    ):
        with pytest.raises(InputError) as error:
            service.job(asked, tmp_path)
        assert told in service.told(str(error.value), asked)
        assert str(tmp_path) not in service.told(str(error.value), asked)


def test_the_service_makes_dubs(service: DubService, files: tuple[str, str], tmp_path: Path) -> None:
    outcome = service.make(service.job(given(service, *files), tmp_path), None)
    assert "never shows so many" in str(outcome.problem)  # the pipeline was asked, about face 2


def test_a_text_becomes_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = (16000, np.ones(8000, np.int16))
    monkeypatch.setattr(speech_text, "find_voices", lambda: [Voice("piper", "one"), Voice("piper", "two")])
    monkeypatch.setattr(speech_text, "synthesise", lambda text, voice: (sound, text, voice.name))
    spoken, message = asyncio.run(speech_text._spoken("Hello", "piper:two"))
    assert spoken == (sound, "Hello", "two") and message["visible"] is False
    _, message = asyncio.run(speech_text._spoken("Hello", "/etc/voice.onnx"))
    assert message["visible"] is True and "no such voice" in message["value"]


def test_texts_are_offered_only_where_there_is_a_voice(
    service: DubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for voices, offered in (([], 0), ([Voice("piper", "one", "en_US")], 2)):
        monkeypatch.setattr(speech_text, "find_voices", lambda voices=voices: voices)
        page = build(service.models)
        assert sum(isinstance(b, gr.Textbox) and b.label == "Text" for b in page.blocks.values()) == offered
