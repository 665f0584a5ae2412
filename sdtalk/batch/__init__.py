"""Batches: many talking videos from a list of jobs, each photo looked at once, what is finished made once."""

from sdtalk.batch.jobs import Job, read_jobs
from sdtalk.batch.runner import JobResult, batch_results, run_batch

__all__ = ["Job", "JobResult", "batch_results", "read_jobs", "run_batch"]
