"""What an evaluation found: per clip, means over the clips of each group and of all, and what is missing and why."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from training.evaluation.figures import FIGURES

ALL = "all clips"


@dataclass(frozen=True)
class ClipResult:
    """One clip's.

    Attributes:
        name: Of the clip.
        person: Who speaks.
        group: See `Recipe.group`.
        source: Whose picture is animated, where it is another person.
        frames: How many were compared.
        mouth: What moved the mouth, see `Recipe.mouth`.
        figures: Numbers by names of `FIGURES`.
        missing: Reasons, for those without.
        sheet: The contact sheet, a path below the results' folder.
    """

    name: str
    person: str
    group: str
    source: str
    frames: int
    mouth: str
    figures: dict[str, float]
    missing: dict[str, str]
    sheet: str


@dataclass(frozen=True)
class Means:
    """Means over clips.

    Attributes:
        clips: How many there are.
        figures: Over the clips that have one.
        counts: How many these are.
        missing: For figures that no clip has, the most frequent reason.
    """

    clips: int
    figures: dict[str, float]
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
        return parts | {ALL: means(self.clips)}

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "version": 1,
            **self.about,
            "figures": {name: asdict(figure) for name, figure in FIGURES.items()},
            "groups": {name: asdict(part) for name, part in self.groups().items()},
            "clips": [asdict(clip) for clip in self.clips],
            "failed": [{"clip": clip, "reason": reason} for clip, reason in self.failed],
        }


def means(clips: Sequence[ClipResult]) -> Means:
    """Means over clips."""
    figures, counts, missing = {}, {}, {}
    for name in FIGURES:
        values = [clip.figures[name] for clip in clips if name in clip.figures]
        counts[name] = len(values)
        if values:
            figures[name] = float(np.mean(values))
        else:
            reasons = Counter(clip.missing.get(name, "no clip was measured") for clip in clips)
            missing[name] = reasons.most_common(1)[0][0] if reasons else "no clip was measured"
    return Means(len(clips), figures, counts, missing)


def shown(name: str, figures: dict[str, float]) -> str:
    """A number as tables show it; "-" where there is none."""
    value = figures.get(name)
    return "-" if value is None or not math.isfinite(value) else f"{value:.{FIGURES[name].digits}f}"
