"""Tests of the examples and of the page's gallery: rights, sizes, faces, lengths, and what a click does."""

import asyncio
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import browser, chromium

from sdtalk import SDTalkPipeline
from sdtalk.demo.gallery import FINISHED, PORTRAITS, VOICES
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.demo.service import TalkService
from sdtalk.demo.three_dimensions import Turnable, turnable
from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.inspection import inspect_file
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech, speech_level
from sdtalk.tracking.found_faces import found_faces
from sdtalk.video import probe

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NOTES = EXAMPLES / "ATTRIBUTION.md"
FILES = {path for path in EXAMPLES.iterdir() if path != NOTES}


def test_every_file_is_used_and_has_its_source_told() -> None:
    finished = {result.video for result in FINISHED}
    assert {path.name for path in FILES} == finished | set(PORTRAITS) | set(VOICES)
    told = NOTES.read_text(encoding="utf-8")
    assert not [path.name for path in FILES if f"`{path.name}`" not in told]


def test_they_are_small_and_come_with_the_package() -> None:
    assert sum(path.stat().st_size for path in FILES) < 6e6
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert "examples" in wheel["only-include"] and wheel["sources"]["examples"] == "sdtalk/assets/examples"
    assert all(path.is_file() for path in FILES), "scripts/check_wheel.py looks for names, not for folders"


@pytest.mark.parametrize("name", PORTRAITS)
def test_a_portrait_has_one_face_and_nothing_against_it(name: str) -> None:
    (face,) = found_faces(read_picture(EXAMPLES / name).pixels)
    assert not face.notes


@pytest.mark.parametrize("name", VOICES)
def test_a_recording_is_short_and_spoken(name: str) -> None:
    speech = read_speech(EXAMPLES / name)
    assert 5 < len(speech.samples) / SAMPLE_RATE_HZ < 8
    assert speech_level(speech.samples).any()


def test_every_portrait_and_every_voice_is_heard() -> None:
    assert {result.portrait for result in FINISHED} == set(PORTRAITS)
    assert {result.speech for result in FINISHED} == set(VOICES)


@pytest.mark.parametrize("result", FINISHED, ids=lambda result: result.video)
def test_a_finished_result_is_as_long_as_its_voice_and_says_what_it_is(result) -> None:
    video = probe(EXAMPLES / result.video)
    heard = len(read_speech(EXAMPLES / result.speech).samples) / SAMPLE_RATE_HZ
    assert video.has_sound and video.duration == pytest.approx(heard, abs=0.1)
    assert inspect_file(EXAMPLES / result.video).comment.startswith("AI-generated")


@pytest.fixture(scope="module")
def models() -> ModelCache:
    return ModelCache.of_one(SDTalkPipeline.from_pretrained(device="cpu"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    yield tmp_path


def test_a_head_to_turn_waits_its_turn_and_needs_consent(models: ModelCache, place: Path) -> None:
    service = TalkService(models)
    portrait = str(EXAMPLES / FINISHED[0].portrait)

    async def all_news(*given) -> list:
        return [news async for news in turnable(service, *given)]

    for given, words in (
        ((None, None, True, 0, None), "Portrait"),
        ((portrait, None, False, 0, None), "tick"),
    ):
        with pytest.raises(InputError, match=words):
            asyncio.run(all_news(*given))

    async def after_another() -> list:
        other = service.line.join(3.0)
        task = asyncio.create_task(all_news(portrait, None, True, 0, None))
        await asyncio.sleep(0.3)
        assert not task.done()
        service.line.leave(other)
        return await task

    *lines, made = asyncio.run(after_another())
    assert lines[0].startswith("In line") and not len(service.line)
    assert isinstance(made, Turnable) and made.frame.startswith("<iframe")
    ply, splat = map(Path, made.files)
    assert ply.read_bytes().startswith(b"ply\n") and splat.stat().st_size % 32 == 0
    assert ply.is_relative_to(place), "where the page deletes it"


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_a_visitor_chooses_a_finished_result_and_turns_its_head(models: ModelCache, place: Path) -> None:
    page = build(models)
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    try:
        with browser(place / "profile") as tab:
            tab.open(page.local_url, 390, 844)
            tab.wait(f"document.querySelectorAll('#gallery video').length == {len(FINISHED)}")
            names = "[...document.querySelectorAll('#gallery button')].map(b => b.getAttribute('aria-label'))"
            assert tab.run(names) == [result.caption for result in FINISHED]
            tab.wait("[...document.querySelectorAll('#gallery video')].every(v => v.muted && v.currentTime)")
            assert tab.run("document.documentElement.scrollWidth") == 390
            tab.run("document.querySelectorAll('#gallery button')[1].click()")
            tab.wait("!!document.querySelector('#portrait img')?.src.includes('grace_hopper')")
            tab.wait("!!document.querySelector('#speech .play-pause-button')")
            tab.wait("document.querySelector('#result video')?.src.includes('grace_hopper.mp4')")
            tab.wait("document.querySelector('#result').getBoundingClientRect().top < innerHeight")
            tab.run("document.querySelector('#speech button[aria-label=Clear]').click()")
            tab.run("document.querySelector('input[type=checkbox]').click()")
            tab.run("document.querySelector('#three-dimensions button').click()")
            tab.press("Show the head")
            tab.wait("!!document.querySelector('#viewer iframe')?.contentDocument?.querySelector('canvas')")
            tab.wait("document.body.innerText.includes('Download .splat')")
            assert tab.complaints() == []
            own = (page.local_url, "data:", "blob:", "about:")
            assert not [url for url in tab.requested() if not url.startswith(own)]
    finally:
        page.close()
