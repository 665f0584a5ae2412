"""Work time: how long a video will take on this machine, learnt from those made before, and how that is said."""

import math

FIRST_GUESS = 1.0
"""Seconds of work for a second of speech before anything was made: two server cores without a GPU."""

START_S = 2.0
"""For the photo, and for what else does not depend on the length."""


class WorkTime:
    """An estimate that every finished video makes better."""

    def __init__(self) -> None:
        self.pace = FIRST_GUESS

    def expected(self, speech_seconds: float) -> float:
        """Seconds that a video of so much speech will take."""
        return START_S + self.pace * speech_seconds

    def learn(self, speech_seconds: float, took: float) -> None:
        """Take in how long a video took, in seconds; short ones say little, and weigh little."""
        if speech_seconds > 0:
            weight = min(speech_seconds / 10, 0.7)
            self.pace += weight * (max(took - START_S, 0.0) / speech_seconds - self.pace)


def in_words(seconds: float | int) -> str:
    """A length of time as people say it: "4 s", "50 s", "3 min", "1 h 10 min"."""
    if seconds < 20:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 90:
        return f"{math.ceil(seconds / 5) * 5} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
