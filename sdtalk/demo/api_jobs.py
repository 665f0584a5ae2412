"""Jobs of the HTTP interface: videos that programs order, how far they are, and for how long they are kept."""

import asyncio
import logging
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread

from sdtalk.demo.api_form import as_json
from sdtalk.demo.service import LOOK_EVERY_S, TalkService
from sdtalk.demo.video_job import Outcome, Stopped, VideoJob
from sdtalk.demo.waiting_line import Place
from sdtalk.errors import InputError

BROKEN = InputError("this server", "something went wrong in it", "Tell whoever runs it; its log says more.")


@dataclass(eq=False)
class ApiJob:
    """A video that a program has ordered.

    Attributes:
        work: What is to be done.
        given: What the program sent; files lie in the folder until the work has ended.
        folder: Of the job.
        place: In the line of everybody who wants a video.
        id: By which the program asks for it; nobody guesses it.
        outcome: What became of it; None: nothing yet.
        ended: When, by `time.monotonic`.
        task: Ends with the work.
    """

    work: VideoJob
    given: dict[str, str | Path]
    folder: "tempfile.TemporaryDirectory[str]"
    place: Place
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    outcome: Outcome | None = None
    ended: float = 0.0
    task: "asyncio.Task[None] | None" = None

    @property
    def video(self) -> Path | None:
        """The finished video, if there is one."""
        made = self.outcome and not self.outcome.stopped and not self.outcome.problem
        return self.work.video if made else None

    def as_json(self, address: str, model_source: str | None) -> dict:
        """How far it is.

        Args:
            address: Of the job.
            model_source: Which nobody learns.
        """
        told: dict = {"id": self.id, "state": "finished", "url": address}
        if self.outcome is None:
            if self.place.ahead:
                wait = {"ahead": self.place.ahead, "seconds": round(self.place.wait)}
                return told | {"state": "waiting"} | wait
            stage, done, total = self.work.told()
            return told | {"state": "working", "stage": stage, "done": done, "total": total}
        if self.outcome.problem:
            return told | {"state": "failed"} | as_json(self.outcome.problem, self.given, model_source)
        if self.outcome.stopped:
            return told | {"state": "stopped"}
        return told | {"video": f"{address}/video", "note": self.outcome.note}


class ApiJobs:
    """All jobs of programs; belongs to one event loop."""

    def __init__(self, service: TalkService, keep_s: float | int) -> None:
        """Begin without any.

        Args:
            service: Makes the videos.
            keep_s: For how many seconds a job is kept after its end.
        """
        self.service, self.keep_s = service, keep_s
        self._jobs: dict[str, ApiJob] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def start(
        self,
        work: VideoJob,
        given: dict[str, str | Path],
        folder: "tempfile.TemporaryDirectory[str]",
    ) -> ApiJob:
        """Put a job into the line.

        Raises:
            LineFull: There is no room.
        """
        place = self.service.line.join(self.service.work_time.expected(work.speech_seconds))
        job = ApiJob(work, given, folder, place)
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._make(job))
        return job

    def get(self, job_id: str) -> ApiJob | None:
        """The job of this name, if it is still there."""
        return self._jobs.get(job_id)

    def drop(self, job: ApiJob) -> None:
        """Stop a job if it has not ended, and delete what is left of it; nothing happens the second time."""
        if self._jobs.pop(job.id, None) is None or job.task is None:
            return
        if job.task.done():
            job.folder.cleanup()
        else:
            job.work.stop.set()
            job.task.add_done_callback(lambda _: job.folder.cleanup())

    def drop_old(self) -> None:
        """Delete what ended long ago."""
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.ended and now - job.ended > self.keep_s]:
            self.drop(job)

    async def keep_clean(self, every_s: float | int) -> None:
        """Delete what ended long ago, now and then, for ever."""
        while True:
            await asyncio.sleep(every_s)
            self.drop_old()

    async def close(self) -> None:
        """Stop and delete everything."""
        jobs = list(self._jobs.values())
        for job in jobs:
            self.drop(job)
        await asyncio.gather(*(job.task for job in jobs if job.task))

    async def _make(self, job: ApiJob) -> None:
        try:
            while job.place.ahead:
                job.work.stop.check()
                await asyncio.sleep(LOOK_EVERY_S)
            job.outcome = await anyio.to_thread.run_sync(self.service.make, job.work, None)
        except Stopped:
            job.outcome = Outcome(stopped=True)
        except Exception:
            logging.getLogger(__name__).exception("a video could not be made")
            job.outcome = Outcome(problem=BROKEN)
        finally:
            self.service.line.leave(job.place)
            job.ended = time.monotonic()
            for value in job.given.values():
                if isinstance(value, Path):
                    shutil.rmtree(value.parent, ignore_errors=True)
