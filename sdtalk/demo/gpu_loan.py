"""GPU loan: how long a lent GPU is asked for to make a video, and what is too long for it."""

import math

from sdtalk.demo.video_job import VideoJob
from sdtalk.errors import InputError

START_S = 20.0
"""Lent before the first frame: CUDA starts, Triton compiles its kernels the first time, the photo is looked at."""
SECONDS_A_SECOND = 0.5
"""Lent for a second of sound. Hearing, rendering and encoding at twice the speed of speech is what we count on."""
FOLLOWING_A_SECOND = 0.4
"""Lent besides where a head, or its eyes, are followed through a video."""
LONGEST_LOAN_S = 120.0
"""What is asked for at most. Visitors without an account have two minutes a day, and longer loans wait longer."""
VISITORS_AT_ONCE = 4
"""Visitors whose videos are made at the same time, each on a GPU of their own; more would share the few cores."""


def loan_seconds(job: VideoJob, *_: object) -> int:
    """How long a GPU is needed for a video, from the length of its sound: whole seconds, START_S to LONGEST_LOAN_S."""
    return math.ceil(min(START_S + _pace(job) * job.speech_seconds, LONGEST_LOAN_S))


def check_loan(job: VideoJob) -> None:
    """Refuse sound that needs a GPU for longer than it is lent.

    Raises:
        InputError: It is too long.
    """
    longest = (LONGEST_LOAN_S - START_S) / _pace(job)
    if job.speech_seconds > longest:
        problem = (
            f"it lasts {job.speech_seconds:.0f} s, and this page's GPU is lent for {longest:.0f} s of sound"
        )
        raise InputError(job.speech, problem, "Cut it into parts, or run SDTalk on a machine of yours.")


def _pace(job: VideoJob) -> float:
    """Seconds of GPU for a second of sound."""
    follows = job.options.pose not in ("idle", "still") or job.options.blink not in ("natural", "none")
    return SECONDS_A_SECOND + FOLLOWING_A_SECOND * follows
