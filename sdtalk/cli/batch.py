"""Command `sdtalk batch`: a list of jobs becomes a folder of videos."""

import argparse
import sys
from collections import Counter

from sdtalk.batch import JobResult, batch_results, read_jobs
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.cli.shared import loaded_pipeline, report, shown_progress, sign_as_asked
from sdtalk.progress import ProgressBar


def run(arguments: argparse.Namespace) -> int:
    """Make the videos; the exit code tells whether all are there."""
    sign_as_asked(arguments)
    jobs = read_jobs(arguments.jobs)
    pipeline = loaded_pipeline(arguments)
    outcomes: Counter[str] = Counter()
    with shown_progress(arguments) as progress:
        for result in batch_results(pipeline, jobs, arguments.output, progress):
            outcomes[result.outcome] += 1
            if isinstance(progress, ProgressBar):
                progress.close()  # the result has a line of its own
            _report(arguments, result)
    if not arguments.quiet:
        made, skipped, failed = (outcomes[outcome] for outcome in ("made", "skipped", "failed"))
        print(f"{made} made, {skipped} skipped (finished before), {failed} failed: {arguments.output}")
    return USER_ERROR if outcomes["failed"] else 0


def _report(arguments: argparse.Namespace, result: JobResult) -> None:
    if result.outcome == "failed":
        print(f"sdtalk: {arguments.jobs}, row {result.row}:", " ".join(result.error.split()), file=sys.stderr)
    elif result.outcome == "made" and result.path is not None:
        report(arguments, result.path, result.frames, result.note)
