"""Evaluation results: metrics of every clip, means over groups and over all, and reasons for what is missing."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.evaluation.metrics import METRICS

ALL_CLIPS = "all clips"


@dataclass(frozen=True)
class ClipResult:
    """One clip's.

    Attributes:
        name: Of the clip.
        person: Who speaks.
        group: See `EvaluationCase.group`.
        source: Whose picture is animated, where it is another person.
        frames: How many were compared.
        mouth: What moved the mouth, see `EvaluationCase.mouth`.
        metrics: Numbers by names of `METRICS`.
        missing: Reasons, for those without.
        sheet: The contact sheet, a path below the results' folder.
    """

    name: str
    person: str
    group: str
    source: str
    frames: int
    mouth: str
    metrics: dict[str, float]
    missing: dict[str, str]
    sheet: str


@dataclass(frozen=True)
class Means:
    """Means over clips.

    Attributes:
        clips: How many there are.
        metrics: Over the clips that have one; weighted where `Metric.weight` says so.
        counts: How many these are.
        missing: For metrics that no clip has, the most frequent reason.
    """

    clips: int
    metrics: dict[str, float]
    counts: dict[str, int]
    missing: dict[str, str]


@dataclass(frozen=True)
class Results:
    """Everything.

    Attributes:
        about: Command, model, data, protocol, versions.
        clips: By name.
        failed: Clip, and why there is nothing of it.
    """

    about: dict[str, Any]
    clips: list[ClipResult]
    failed: list[tuple[str, str]] = field(default_factory=list)

    def groups(self) -> dict[str, Means]:
        """Means of each group, then of all clips."""
        names = sorted({clip.group for clip in self.clips})
        parts = {name: means([clip for clip in self.clips if clip.group == name]) for name in names}
        return parts | {ALL_CLIPS: means(self.clips)}

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "version": 1,
            **self.about,
            "figures": {name: asdict(metric) for name, metric in METRICS.items()},
            "groups": {name: _stored(part) for name, part in self.groups().items()},
            "clips": [_stored(clip) for clip in self.clips],
            "failed": [{"clip": clip, "reason": reason} for clip, reason in self.failed],
        }


def _stored(part: Means | ClipResult) -> dict[str, Any]:
    """Fields as results.json names them; there metrics are called figures, and files that exist stay readable."""
    return {"figures" if name == "metrics" else name: value for name, value in asdict(part).items()}


def means(clips: Sequence[ClipResult]) -> Means:
    """Means over clips; shares of what clips have many or few of are weighted by how many, see `Metric.weight`."""
    averages, counts, missing = {}, {}, {}
    for name, metric in METRICS.items():
        having = [clip.metrics for clip in clips if name in clip.metrics]
        counts[name] = len(having)
        if having:
            weights = [one.get(metric.weight, 1.0) for one in having]
            averages[name] = float(np.average([one[name] for one in having], weights=weights))
        else:
            reasons = Counter(clip.missing.get(name, "no clip was measured") for clip in clips)
            missing[name] = reasons.most_common(1)[0][0] if reasons else "no clip was measured"
    return Means(len(clips), averages, counts, missing)


def format_metric(name: str, metrics: dict[str, float]) -> str:
    """A number as tables show it; "-" where there is none."""
    value = metrics.get(name)
    return "-" if value is None or not math.isfinite(value) else f"{value:.{METRICS[name].digits}f}"
