"""Tests of watching: what a page hears of a video that is made, its place in line, and what stays when it leaves."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest

from sdtalk.demo.inputs import Given
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.service import TalkService
from sdtalk.demo.shown import Shown
from sdtalk.demo.waiting_line import WaitingLine
from sdtalk.demo.watching import watch
from sdtalk.demo.work_time import WorkTime, in_words
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.weights.assets import example

PORTRAIT, SPEECH = example("eileen_collins.png"), example("sense_and_sensibility.wav")

GIVEN = Given(str(PORTRAIT), str(SPEECH), True, pose="still", blink="none", model="mini")
PICTURES = 6


class Slow(SDTalkPipeline):
    """Makes pieces of a second that are no video, as slowly as it is told to."""

    note = "Made up."

    def __init__(self, seconds: float) -> None:
        """Take so many seconds for a piece."""
        self.seconds = seconds

    def __call__(self, *files, options, progress, **chosen):
        return self

    def save(self, path: Path, progress: Callable, pieces: Path | None) -> None:
        for number in range(PICTURES):
            time.sleep(self.seconds)
            progress("rendering", number + 1, PICTURES)
            if pieces is not None:
                (pieces / f"{number}.ts").write_text(str(number))
                with (pieces / "finished.txt").open("a") as names:
                    names.write(f"{number}.ts\n")
        path.write_text("finished")


def slow_service(seconds: float, longest_s: float | None = None) -> TalkService:
    cache = ModelCache({"mini": ""})
    cache.name, cache.pipeline = "mini", Slow(seconds)
    return TalkService(cache, longest_s)


def visit(service: TalkService, name: str, given: Given = GIVEN) -> AsyncIterator[Shown]:
    return watch(service, given, gr.Request(session_hash=name))


async def everything(service: TalkService, name: str, given: Given = GIVEN) -> list[Shown]:
    news = []
    async for shown in visit(service, name, given):
        pieces = [shown.piece.read_text()] if shown.piece else []  # it is there while it is news
        news.append(replace(shown, line=shown.line or (pieces and pieces[0]) or None))
    return news


def test_every_piece_comes_in_order_and_the_file_last(temporary: Path) -> None:
    news = asyncio.run(everything(slow_service(0.05), "a"))
    pieces = [shown.piece.name for shown in news if shown.piece]
    assert pieces == [f"{number}.ts" for number in range(PICTURES)]
    assert [shown.ended for shown in news] == [False] * (len(news) - 1) + [True]
    assert Path(news[-1].video or "").read_text() == "finished" and news[-1].note == "Made up."
    assert (news[-1].line or "").startswith("Finished: 7 s of video in ")
    assert not list(temporary.iterdir())


def test_those_who_wait_learn_their_place_and_may_leave(temporary: Path) -> None:
    service = slow_service(0.1)

    async def three() -> list[list[Shown]]:
        visits = []
        for name in "abc":
            visits.append(asyncio.create_task(everything(service, name)))
            while len(service.line) < len(visits):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)  # a few looks at the line
        service.stop(gr.Request(session_hash="b"))
        return await asyncio.gather(*visits)

    first, second, third = asyncio.run(three())
    assert first[-1].video and third[-1].video and not second[-1].video
    assert second[-1].line == "Stopped. Nothing was kept." and not any(shown.piece for shown in second)
    said = [shown.line or "" for shown in third]
    two, one = (
        next(i for i, line in enumerate(said) if words in line) for words in ("2 videos are", "one video is")
    )
    assert two < one, "the line moves up"
    assert not len(service.line) and not service.stops and not list(temporary.iterdir())


def test_a_page_that_is_left_stops_its_video_and_keeps_nothing(temporary: Path) -> None:
    service = slow_service(0.2)

    async def leave() -> None:
        async with aclosing(visit(service, "a")) as news:
            async for shown in news:
                if shown.piece:
                    break
        assert len(service.line) == 1, "the place is taken until the work has ended"
        while len(service.line):
            await asyncio.sleep(0.05)

    asyncio.run(leave())
    assert not service.stops and not list(temporary.iterdir())


@pytest.mark.parametrize(
    "change, words",
    [
        ({"speech": None}, "Speech: there is none yet. Please add it."),
        ({"consent": False}, "3. Consent: it has not been given. Please tick"),
        ({}, f"{SPEECH.name}: it is longer than 5 s"),
    ],
)
def test_what_cannot_be_made_is_said_and_takes_no_place(temporary: Path, change: dict, words: str) -> None:
    service = slow_service(0.0, longest_s=5.0)
    news = asyncio.run(everything(service, "a", replace(GIVEN, **change)))
    assert news[-1].problem.startswith(words) and news[-1].ended and "/" not in news[-1].problem
    assert not len(service.line) and not list(temporary.iterdir())


def test_the_time_is_told_before_it_starts_and_gets_better() -> None:
    service = slow_service(0.0)
    assert service.expected(str(SPEECH)) == "7 s of speech: the video takes about 10 s"
    service.line.join(30.0)
    assert service.expected(str(SPEECH)).endswith(", after about 30 s in line")
    with pytest.raises(InputError, match="is longer than 5 s"):
        slow_service(0.0, longest_s=5.0).expected(str(SPEECH))
    time_here = WorkTime()
    for _ in range(20):
        time_here.learn(10.0, 2.0 + 10.0 * 0.3)
    assert time_here.expected(100.0) == pytest.approx(32.0, rel=0.01)


def test_lengths_of_time_in_words_are_never_too_short() -> None:
    assert [in_words(s) for s in (0.2, 7.1, 33, 89, 91, 3601)] == [
        "1 s",
        "8 s",
        "35 s",
        "90 s",
        "2 min",
        "1 h 1 min",
    ]


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_line_serves_in_order_and_has_an_end(at_once: int) -> None:
    line = WaitingLine(at_once, room=4)
    places = [line.join(10.0) for _ in range(at_once + 4)]
    assert [place.ahead for place in places] == [0] * at_once + [1, 2, 3, 4]
    assert places[-1].wait == pytest.approx(10.0 * (at_once + 3) / at_once) and places[0].wait == 0
    with pytest.raises(InputError, match="4 others wait already"):
        line.join(1.0)
    line.leave(places[0])
    line.leave(places[0])
    assert [place.ahead for place in places[1:]] == [0] * at_once + [1, 2, 3]
