"""Photo report: what was measured of photos, as photos.json, photos.md and index.html."""

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from training.data.atomic import write_atomically
from training.evaluation.html_report import EMBEDDED_SHEETS, html_figure, html_page, html_table
from training.evaluation.photo_metrics import PHOTO_METRICS
from training.evaluation.tables import Table, markdown_table

SHOWS = "the photo, its own state, the middle of a blink, the head turned to either side"


@dataclass(frozen=True)
class PhotoResult:
    """One photo's.

    Attributes:
        name: The file's.
        metrics: Numbers by names of `PHOTO_METRICS`.
        missing: Reasons, for those without.
        sheet: The contact sheet, a path below the results' folder.
    """

    name: str
    metrics: dict[str, float]
    missing: dict[str, str]
    sheet: str


@dataclass(frozen=True)
class PhotoResults:
    """Everything.

    Attributes:
        command: What was run.
        model: Which model.
        data: Which photos.
        photos: In order.
        failed: Photo, and why there is nothing of it.
    """

    command: str
    model: str
    data: str
    photos: list[PhotoResult]
    failed: list[tuple[str, str]]

    def summary(self) -> dict[str, dict[str, float]]:
        """For every metric that a photo has: mean, median and the worst value, and how many photos have one."""
        found = {}
        for name, metric in PHOTO_METRICS.items():
            values = [photo.metrics[name] for photo in self.photos if name in photo.metrics]
            if values:
                worst = {
                    True: min,
                    False: max,
                    None: lambda v: max(v, key=lambda x: abs(np.log(max(x, 1e-6)))),
                }
                found[name] = {
                    "mean": float(np.mean(values)),
                    "median": float(np.median(values)),
                    "worst": float(worst[metric.higher](values)),  # type: ignore[operator]
                    "photos": float(len(values)),
                }
        return found

    def as_json(self) -> dict[str, Any]:
        """For photos.json; figures are called as in results.json."""
        return {
            "version": 1,
            "command": self.command,
            "model": self.model,
            "data": self.data,
            "figures": {name: asdict(metric) for name, metric in PHOTO_METRICS.items()},
            "summary": self.summary(),
            "photos": [
                {"name": p.name, "figures": p.metrics, "missing": p.missing, "sheet": p.sheet}
                for p in self.photos
            ],
            "failed": [{"photo": photo, "reason": reason} for photo, reason in self.failed],
        }


def _table(results: PhotoResults) -> Table:
    summary = results.summary()
    rows = [
        [what, *(_cell(name, summary[name][what]) for name in summary)]
        for what in ("mean", "median", "worst")
    ]
    ours = frozenset(range(len(rows)))
    rows += [[p.name[:48], *(_cell(name, p.metrics.get(name)) for name in summary)] for p in results.photos]
    return Table("Photos", ["photo", *(PHOTO_METRICS[name].title for name in summary)], rows, ours)


def _cell(name: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{PHOTO_METRICS[name].digits}f}"


def _notes(results: PhotoResults) -> list[str]:
    """What is missing, then what the figures mean."""
    missing = [
        f"{p.name}: {PHOTO_METRICS[n].title}: {why}" for p in results.photos for n, why in p.missing.items()
    ]
    missing += [f"{name}: {reason}" for name, reason in results.failed]
    return missing + [f"{metric.title}: {metric.meaning}." for metric in PHOTO_METRICS.values()]


def as_markdown(results: PhotoResults) -> str:
    """The text of photos.md."""
    head = [f"# Photo checks of {results.model}", "", f"`{results.command}`", ""]
    return (
        "\n".join([*head, *markdown_table(_table(results)), "", *(f"- {n}" for n in _notes(results))]) + "\n"
    )


def _as_html(results: PhotoResults, folder: Path) -> str:
    title = f"Photo checks of {results.model}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p><code>{escape(results.command)}</code></p>",
        html_table(_table(results)),
    ]
    parts.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in _notes(results))}</ul>")
    for number, photo in enumerate(results.photos):
        inside = number < EMBEDDED_SHEETS
        parts.append(
            html_figure(folder, photo.sheet, inside, f"{photo.name}: {SHOWS}", f"{photo.name}: {SHOWS}")
        )
    return html_page(title, parts)


def write_photo_results(folder: Path, results: PhotoResults) -> None:
    """Write the three files; the contact sheets are there already.

    Raises:
        InputError: They cannot be written.
    """
    texts = {
        "photos.json": json.dumps(results.as_json(), indent=1, allow_nan=False) + "\n",
        "photos.md": as_markdown(results),
        "index.html": _as_html(results, folder),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
