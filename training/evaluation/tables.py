"""Result tables, also as Markdown: beside the paper's, by group, clip by clip, and what is missing."""

from collections import Counter
from dataclasses import dataclass

from training.evaluation.metrics import METRICS
from training.evaluation.results import ALL_CLIPS, Means, Results, format_metric

PAPER_COLUMNS = ("psnr", "lpips", "ssim", "lmd_fan", "sync_c", "fps")
PAPER = {
    "HDTF": {
        "Wav2Lip": ("-", "-", "-", "2.40", "8.58", "23"),
        "EAT": ("19.22", ".31", ".55", "10.83", "7.91", "8"),
        "Real3DPortrait": ("21.51", ".21", ".72", "4.61", "6.70", "7"),
        "NeRFFaceSpeech": ("19.15", ".26", ".61", "18.68", "3.46", "1"),
        "MimicTalk": ("22.43", ".14", ".75", "4.38", "5.45", "19"),
        "SDTalk (paper)": ("24.03", ".13", ".80", "3.47", "6.85", "45"),
        "- without completion branch": ("22.99", ".15", ".78", "3.31", "5.79", "-"),
        "- without fine motion field": ("23.81", ".13", ".80", "3.52", "6.48", "-"),
    },
    "MEAD, frontal": {
        "NeRFFaceSpeech": ("26.26", ".13", ".80", "5.01", "4.83", "-"),
        "EAT": ("25.59", ".19", ".77", "4.33", "7.72", "-"),
        "Real3DPortrait": ("26.43", ".13", ".85", "2.68", "7.62", "-"),
        "SDTalk (paper)": ("27.78", ".08", ".90", "3.34", "6.81", "-"),
    },
    "MEAD, other poses": {
        "NeRFFaceSpeech": ("14.65", ".37", ".56", "26.61", "5.27", "-"),
        "EAT": ("19.85", ".28", ".63", "9.61", "7.19", "-"),
        "Real3DPortrait": ("19.91", ".29", ".68", "3.25", "6.78", "-"),
        "SDTalk (paper)": ("21.17", ".20", ".75", "2.83", "5.41", "-"),
    },
}
"""The paper's tables 1 and 2, by data set and method, in the order of `PAPER_COLUMNS`; rates on an RTX 4090."""

CAVEAT = (
    "The paper's rows are quoted. They were measured on other clips, with other crops and backgrounds and on other "
    "hardware, and by what definition of LMD it does not say: read them as orders of magnitude, not as a contest."
)
PEOPLE = "Means of few clips say little: with the clips of ten people, a tenth of a dB is chance."


WORSE_DB = 0.3
"""What a prediction may be below the frozen first frame, whose face stands still."""


@dataclass(frozen=True)
class Table:
    """A table, as text.

    Attributes:
        title: What it shows.
        head: Headings.
        rows: Cells.
        ours: Numbers of the rows that were measured here, among quoted ones.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    ours: frozenset[int] = frozenset()


def tables(results: Results) -> list[Table]:
    """Beside the paper; for each topic the means of every group; for each the clips."""
    topics = _topics(results)
    parts = [_by_group(results, topic, names) for topic, names in topics.items()]
    return [_beside_paper(results), *parts, *(_by_clip(results, t, names) for t, names in topics.items())]


def _beside_paper(results: Results) -> Table:
    groups, model = results.groups(), str(results.about.get("model", "ours"))
    rows: list[list[str]] = []
    ours = set()
    for data, methods in PAPER.items():
        if data != "HDTF" and data not in groups:  # MEAD only where it was measured
            continue
        rows += [[data, method, *cells] for method, cells in methods.items()]
        if data in groups:
            ours.add(len(rows))
            rows.append([data, model, *_ours(groups[data])])
    others = [name for name in groups if name not in PAPER and (name != ALL_CLIPS or len(groups) > 2)]
    for name in others:
        ours.add(len(rows))
        rows.append([name, model, *_ours(groups[name])])
    head = ["data", "method", *(METRICS[name].title for name in PAPER_COLUMNS)]
    head[head.index("LMD (face-alignment)")] = "LMD"
    return Table("Beside the paper", head, rows, frozenset(ours))


def _ours(part: Means) -> list[str]:
    """Our numbers in the paper's columns; LMD by the mesh where face-alignment is not there, and named so."""
    cells = [format_metric(name, part.metrics) for name in PAPER_COLUMNS]
    if "lmd_fan" not in part.metrics and "lmd_mesh" in part.metrics:
        cells[PAPER_COLUMNS.index("lmd_fan")] = f"{format_metric('lmd_mesh', part.metrics)} (mesh)"
    return cells


def _topics(results: Results) -> dict[str, list[str]]:
    """By topic the columns that any clip has a number for; the others are listed with their reasons."""
    topics: dict[str, list[str]] = {}
    for name, metric in METRICS.items():
        if any(name in clip.metrics for clip in results.clips):
            topics.setdefault(metric.topic, []).append(name)
    return topics


def _by_group(results: Results, topic: str, names: list[str]) -> Table:
    rows = []
    for group, part in results.groups().items():
        cells = []
        for name in names:
            few = "" if part.counts[name] in (0, part.clips) else f" ({part.counts[name]})"
            cells.append(format_metric(name, part.metrics) + few)
        rows.append([group, str(part.clips), *cells])
    head = ["data", "clips", *(METRICS[name].title for name in names)]
    title = f"Means, {topic}; in brackets the clips that have a number, where not all have"
    return Table(title, head, rows)


def _by_clip(results: Results, topic: str, names: list[str]) -> Table:
    rows = []
    for clip in results.clips:
        shown_from = f" from {clip.source}" if clip.source else ""
        cells = [format_metric(name, clip.metrics) for name in names]
        rows.append(
            [clip.name[:48] + shown_from[:48], clip.group, str(clip.frames), clip.mouth or "-", *cells]
        )
    head = ["clip", "data", "frames", "mouth from", *(METRICS[name].title for name in names)]
    return Table(f"Clip by clip, {topic}", head, rows)


def missing_lines(results: Results) -> list[str]:
    """Every metric that some clip lacks, with the reason, and every clip that nothing is known of."""
    titles: dict[tuple[str, int], list[str]] = {}
    for name, metric in METRICS.items():
        reasons = Counter(clip.missing[name] for clip in results.clips if name in clip.missing)
        for reason in reasons.items():
            titles.setdefault(reason, []).append(metric.title)
    lines, clips = [], len(results.clips)
    for (reason, count), names in titles.items():
        which = "" if count == clips else f" ({count} of {clips} clips)"
        lines.append(f"{', '.join(names)}{which}: {reason}")
    return lines + [f"{clip}: {reason}" for clip, reason in results.failed]


def conditions(results: Results) -> str:
    """How it was rendered, in words."""
    codes = results.about.get("codes", "")
    return f"protocol {results.about['protocol']}{codes and f', mouth codes {codes}'}"


def frozen_line(results: Results) -> str:
    """Which clips are worse than their frozen first frame, by PSNR of the whole picture; "" where none has it."""
    gains = {
        clip.name: clip.metrics["psnr"] - clip.metrics["psnr_frozen"]
        for clip in results.clips
        if {"psnr", "psnr_frozen"} <= clip.metrics.keys()
    }
    worse = [f"{name} ({gain:+.2f})" for name, gain in gains.items() if gain < -WORSE_DB]
    if not gains:
        return ""
    listed = f": {', '.join(worse)}" if worse else ""
    return (
        f"Worse than the frozen first frame by over {WORSE_DB} dB of PSNR: "
        f"{len(worse)} of {len(gains)} clips{listed}."
    )


def as_markdown(results: Results) -> str:
    """The text of results.md."""
    about = results.about
    lines = [f"# Evaluation of {about.get('model', 'predictions')}", "", f"`{about['command']}`", ""]
    lines += [f"{about['data']}, {conditions(results)}.", ""]
    beside, *others = tables(results)
    lines += [f"## {beside.title}", "", *markdown_table(beside), "", CAVEAT, PEOPLE, ""]
    if frozen := frozen_line(results):
        lines += [frozen, ""]
    for table in others:
        lines += [f"## {table.title}", "", *markdown_table(table), ""]
    missing = missing_lines(results)
    if missing:
        lines += ["## Not computed", "", *(f"- {line}" for line in missing), ""]
    lines += ["## What the figures mean", ""]
    lines += [f"- {metric.title}: {metric.meaning}." for metric in METRICS.values()]
    return "\n".join(lines) + "\n"


def markdown_table(table: Table) -> list[str]:
    """The lines of a table."""

    def line(cells: list[str], bold: bool = False) -> str:
        cells = [c.replace("|", "\\|") for c in cells]
        return "| " + " | ".join(f"**{c}**" if bold and c != "-" else c for c in cells) + " |"

    rows = [line(row, number in table.ours) for number, row in enumerate(table.rows)]
    return [line(table.head), "|" + "---|" * len(table.head), *rows]
