"""Batch runner: makes the videos of many jobs, photo by photo, and reports those that cannot be made.

jobs ─► plan_batch ─► by photo ─► SDTalkPipeline.reconstruct ─► Head ─► SDTalkPipeline.talk ─► video, BatchRecord
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from sdtalk.batch.jobs import Job, read_jobs
from sdtalk.batch.plan import PlannedJob, plan_batch
from sdtalk.batch.record import BatchRecord, JobDigest
from sdtalk.errors import InputError
from sdtalk.head import Head
from sdtalk.model import SDTalk
from sdtalk.progress import Progress, no_progress
from sdtalk.talk import Talk, showing


@runtime_checkable
class TalkMaker(Protocol):
    """What is asked of a pipeline (`sdtalk.pipeline.SDTalkPipeline`, which stands behind this in the flow)."""

    model: SDTalk

    def reconstruct(self, portrait: Any, *, face: int, turn: int) -> Head:
        """Make a head of a photo."""
        ...

    def talk(self, head: Head, speech: Any, output: Any, options: Any, *, progress: Any) -> Talk:
        """Make a head speak, and write the video."""
        ...


@dataclass(frozen=True)
class JobResult:
    """What became of a job.

    Attributes:
        row: Which job.
        outcome: "made"; "skipped", since the same video was there already; or "failed".
        path: The video; None where it failed.
        frames: Length of a video that was made, in frames of 1/25 s.
        note: What the user should know of it, or "".
        error: Why it failed, in a line, or "".
    """

    row: int
    outcome: Literal["made", "skipped", "failed"]
    path: Path | None = None
    frames: int = 0
    note: str = ""
    error: str = ""


def run_batch(
    pipeline: TalkMaker,
    jobs: Iterable[Job] | str | Path,
    folder: str | Path,
    progress: Progress | Literal[True] | None = None,
) -> list[JobResult]:
    """Make the videos of many jobs.

    Every photo is looked at once. A job that cannot be made does not stop the others. What was made before, of the same
    files, options and model, is skipped; after an interruption the same call goes on.

    Args:
        pipeline: Makes the videos.
        jobs: Jobs, or the path of a file of them, see `read_jobs`.
        folder: Where the videos go; made where it is missing. A file `batch.jsonl` in it records what is finished.
        progress: Called with "number/count stage", frames done and their number; True shows a bar.

    Returns:
        What became of every job, in order.

    Raises:
        InputError: The file of jobs or the folder cannot be used.

    Examples:
        >>> results = run_batch(pipeline, [Job("ann.jpg", "hello.wav"), Job("bob.jpg", "hello.wav")], "videos")
        >>> [result.outcome for result in results]
        ['made', 'made']
    """
    jobs = read_jobs(jobs) if isinstance(jobs, str | Path) else list(jobs)
    with showing(progress) as show:
        return sorted(batch_results(pipeline, jobs, folder, show), key=lambda result: result.row)


def batch_results(
    pipeline: TalkMaker, jobs: Iterable[Job], folder: str | Path, progress: Progress = no_progress
) -> Iterator[JobResult]:
    """Make the videos of many jobs, and tell of each when it is done: as `run_batch`, in the order of the work.

    Raises:
        InputError: The folder cannot be used.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(str(folder), "it is not a folder", "Give the folder for the videos.")
    progress("checking", 0, 0)
    record, digest = BatchRecord(folder), JobDigest(pipeline.model)
    numbered = [replace(job, row=job.row or number) for number, job in enumerate(jobs, 1)]
    plan, problems = plan_batch(numbered, record, digest)
    for job, problem in problems:
        yield JobResult(job.row, "failed", error=problem)
    waiting: defaultdict[str, list[PlannedJob]] = defaultdict(list)
    for planned in plan:
        if planned.finished:
            yield JobResult(planned.job.row, "skipped", planned.path)
        else:
            waiting[planned.photo].append(planned)
    done, count = 0, sum(map(len, waiting.values()))
    for same_photo in waiting.values():
        yield from _make(pipeline, same_photo, record, done, count, progress)
        done += len(same_photo)


def _make(
    pipeline: TalkMaker,
    same_photo: list[PlannedJob],
    record: BatchRecord,
    done: int,
    count: int,
    progress: Progress,
) -> Iterator[JobResult]:
    """Make the videos of one photo; its head lives no longer, since a large model's heads fill a GPU."""
    head: Head | InputError | None = None
    for number, planned in enumerate(same_photo, done + 1):

        def show(stage: str, frame: int, frames: int, number: int = number) -> None:
            progress(f"{number}/{count} {stage}", frame, frames)

        row, job = planned.job.row, planned.job
        try:
            if head is None:
                show("preparing", 0, 0)
                head = _head(pipeline, job)
            if isinstance(head, InputError):
                raise head
            talk = pipeline.talk(head, job.speech, planned.path, job.options, progress=show)
            record.add(planned.entry)
            result = JobResult(row, "made", planned.path, len(talk), talk.note)
        except InputError as error:
            result = JobResult(row, "failed", error=str(error))
        yield result


def _head(pipeline: TalkMaker, job: Job) -> Head | InputError:
    try:
        return pipeline.reconstruct(job.portrait, face=job.face, turn=job.turn)
    except InputError as error:
        return error
