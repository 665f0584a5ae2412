"""Watching: a video that is made for a page is seen while it grows, and how far it is, is said in words.

What is yielded are news, whatever the page makes of them. Somebody who waits, or watches, takes no thread.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import anyio.to_thread
import gradio as gr

from sdtalk.demo.inputs import Given
from sdtalk.demo.service import LOOK_EVERY_S, TalkService, kept
from sdtalk.demo.shown import DOING, Shown, far, finished, waiting
from sdtalk.demo.video_job import Outcome, Stopped, VideoJob
from sdtalk.demo.waiting_line import Place
from sdtalk.errors import InputError
from sdtalk.video.pieces import finished_pieces

SAY_EVERY_S = 1.0
"""How often it is said how far the work is; a screen reader reads every line aloud."""


async def watch(service: TalkService, given: Given, request: gr.Request) -> AsyncGenerator[Shown, None]:
    """Make a talking video that is watched meanwhile.

    Args:
        service: Makes it.
        given: What it is made of.
        request: Who asks.

    Yields:
        News, until the video is finished, stopped, or cannot be made.
    """
    folder, stop = service.visit(request)
    place: Place | None = None
    making: asyncio.Task[Outcome] | None = None

    def tidy(*_: object) -> None:
        if place is not None:
            service.line.leave(place)
        service.left(request, folder, stop)

    try:
        yield Shown(line=f"{DOING['preparing']} …")
        job = await anyio.to_thread.run_sync(service.job, given, Path(folder.name), True)
        job.pieces.mkdir()
        place = service.line.join(service.work_time.expected(job.speech_seconds))
        while place.ahead:
            stop.check()
            yield Shown(line=waiting(place))
            await asyncio.sleep(LOOK_EVERY_S)
        began = time.monotonic()
        making = asyncio.create_task(_made(service, job))
        async for shown in _growing(job, making):
            yield shown
        yield _ended(service, job, given, await making, time.monotonic() - began)
    except Stopped:
        yield Shown(line="Stopped. Nothing was kept.", ended=True)
    except InputError as error:
        yield Shown(line="", problem=service.told(error, given), ended=True)
    finally:
        if making is None or making.done():
            tidy()
        else:  # the page is gone, and Gradio waits for us here: the work ends when it next looks at its flag
            stop.set()
            making.add_done_callback(tidy)


async def _made(service: TalkService, job: VideoJob) -> Outcome:
    return await anyio.to_thread.run_sync(service.make, job, None)


async def _growing(job: VideoJob, making: "asyncio.Task[Outcome]") -> AsyncIterator[Shown]:
    """Yield pieces as they come, and now and then how far the work is."""
    seen, said = 0, 0.0
    first: tuple[float, int] | None = None  # when frames began to come, and how many were done then
    while True:
        over = making.done()  # before looking, so that nothing is missed
        stage, done, total = job.told()
        now = time.monotonic()
        if stage == "rendering" and done and first is None:
            first = now, done
        pace = (done - first[1]) / (now - first[0]) if first and now > first[0] else 0.0
        line = None
        if now - said > SAY_EVERY_S:
            line, said = far(stage, done, total, (total - done) / pace if pace else None), now
        pieces = finished_pieces(job.pieces)
        for piece in pieces[seen:]:
            yield Shown(line, done, total, piece)
        if line is not None and seen == len(pieces):
            yield Shown(line, done, total)
        seen = len(pieces)
        if over:
            return
        await asyncio.sleep(LOOK_EVERY_S)


def _ended(service: TalkService, job: VideoJob, given: Given, outcome: Outcome, took_s: float) -> Shown:
    """The last news."""
    if outcome.stopped:
        raise Stopped
    if outcome.problem:
        return Shown(line="", problem=service.told(outcome.problem, given), ended=True)
    return Shown(
        line=finished(job.speech_seconds, took_s),
        video=kept(job),
        seconds=job.speech_seconds,
        note=outcome.note,
        ended=True,
    )
