"""Batch plan: where the video of every job goes, and which videos are there already."""

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from sdtalk.batch.jobs import Job
from sdtalk.batch.record import BatchRecord, Entry, JobDigest
from sdtalk.errors import InputError
from sdtalk.video.naming import default_name


@dataclass(frozen=True)
class PlannedJob:
    """A job whose files are there.

    Attributes:
        job: What is to be made.
        path: The video.
        entry: What the record will hold of it.
        photo: Which face of which picture, turned how: jobs that share it share a head.
        finished: Whether the video is there already.
    """

    job: Job
    path: Path
    entry: Entry
    photo: str
    finished: bool


def plan_batch(
    jobs: list[Job], record: BatchRecord, digest: JobDigest
) -> tuple[list[PlannedJob], list[tuple[Job, str]]]:
    """Find a name for every job's video.

    A job that was finished keeps its name, wherever it stands in the list now. One that was changed is made again under
    its old name. A name that is not asked for is never one that was made of other files.

    Returns:
        The jobs that can be tried, and the others with what is wrong with them; both in order.
    """
    names = _Names(record, jobs)
    digests: dict[int, str] = {}  # by place in the list
    paths: dict[int, Path] = {}
    problems: list[tuple[Job, str]] = []
    for place, job in enumerate(jobs):
        if job.problem:
            problems.append((job, job.problem))
            continue
        try:
            its_digest = digest(job)
            if job.output is not None:
                paths[place] = names.given(job)
            digests[place] = its_digest
        except InputError as error:
            problems.append((job, str(error)))
    unnamed = [place for place in digests if place not in paths]
    for place in unnamed:
        if path := names.recorded(jobs[place], digests[place]):
            paths[place] = path
    for place in unnamed:
        if place not in paths:
            paths[place] = names.free(jobs[place])
    finished = {(entry.output, entry.digest) for entry in record.entries()}
    plan = []
    for place, its_digest in digests.items():
        job, path = jobs[place], paths[place]
        entry = Entry.of(record.folder, path, its_digest, job)
        photo = f"{digest.of_file(job.portrait, 'picture')} {job.face} {job.turn}"
        plan.append(PlannedJob(job, path, entry, photo, (entry.output, its_digest) in finished))
    return plan, problems


class _Names:
    """Hands out paths in a folder, each once."""

    def __init__(self, record: BatchRecord, jobs: list[Job]) -> None:
        self.folder = record.folder
        self.rows: dict[str, int] = {}  # who took a name
        self.made_before: defaultdict[str, list[Path]] = defaultdict(list)  # by digest
        self.owners: dict[Path, tuple[str, str]] = {}
        for entry in record.entries():
            path = self.folder / entry.output
            self.made_before[entry.digest].append(path)
            self.owners[path] = (entry.portrait, entry.speech)
        inputs = (p for job in jobs for p in (job.portrait, job.speech, *vars(job.options).values()))
        self.inputs = {Path(path).resolve() for path in inputs if isinstance(path, str | Path)}

    def given(self, job: Job) -> Path:
        """The path that a job asks for.

        Raises:
            InputError: It is not in the folder, is another job's, or is an input.
        """
        assert job.output is not None
        name = Path(job.output)
        if job.output.endswith("/"):
            name /= default_name(job.portrait, job.speech, alpha=job.options.transparent)
        subject, remedy = f"output {job.output}", "Give another name."
        if name.is_absolute() or ".." in name.parts or name == Path():
            raise InputError(subject, f"it is no name in the folder {self.folder}", remedy)
        path = self.folder / name
        if path.resolve() in self.inputs:
            raise InputError(subject, "it is also an input", remedy)
        if not self._take(path, job):
            raise InputError(subject, f"row {self.rows[self._key(path)]} writes it, too", remedy)
        return path

    def recorded(self, job: Job, digest: str) -> Path | None:
        """Where the same video was made before; None: nowhere, or others have taken it."""
        return next((path for path in self.made_before[digest] if self._take(path, job)), None)

    def free(self, job: Job) -> Path:
        """A name made of portrait and speech that belongs to nothing else."""
        plain = self.folder / default_name(job.portrait, job.speech, alpha=job.options.transparent)
        for number in count(1):
            path = plain if number == 1 else plain.with_stem(f"{plain.stem}_{number}")
            own = Entry.of(self.folder, path, "", job)
            ours = self.owners.get(path, (own.portrait, own.speech)) == (own.portrait, own.speech)
            if ours and path.resolve() not in self.inputs and self._take(path, job):
                break
        return path

    def _take(self, path: Path, job: Job) -> bool:
        if self._key(path) in self.rows:
            return False
        self.rows[self._key(path)] = job.row
        return True

    def _key(self, path: Path) -> str:
        """Without case, since videos may be copied to where it does not count."""
        return path.relative_to(self.folder).as_posix().casefold()
