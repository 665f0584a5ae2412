"""HTML report: the results as one self-contained page with tables, reasons and contact sheets."""

import base64
from html import escape
from pathlib import Path

from training.evaluation.metrics import METRICS
from training.evaluation.results import ClipResult, Results, format_metric
from training.evaluation.tables import CAVEAT, PEOPLE, Table, conditions, frozen_line, missing_lines, tables

EMBEDDED_SHEETS = 24
"""So many contact sheets are part of the page; further ones are files beside it."""

CAPTION_METRICS = ("psnr", "ssim", "mouth_correlation")
"""Metrics named under a contact sheet."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d9dee5; --ground: #fff; --ours: #eaf3ff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b1; --line: #343b45; --ground: #14171b; --ours: #1b2b40; }
}
body { margin: 2rem auto; padding: 0 1rem; max-width: 76rem; color: var(--ink); background: var(--ground);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code { overflow-wrap: anywhere; } p, li { color: var(--soft); max-width: 60rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } .text { text-align: left; }
tr.ours { background: var(--ours); font-weight: 600; }
figure { margin: 1.5rem 0; } figure img { width: 100%; height: auto; border-radius: 6px; background: #000; }
figcaption { color: var(--soft); margin-top: .3rem; }
"""


def as_html(results: Results, folder: Path) -> str:
    """The text of index.html.

    Args:
        results: What was found.
        folder: Where the contact sheets lie.
    """
    about = results.about
    beside, *others = tables(results)
    title = f"Evaluation of {about.get('model', 'predictions')}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(str(about['data']))}, {escape(conditions(results))}.</p>",
        f"<p><code>{escape(str(about['command']))}</code></p>",
        html_table(beside),
        f"<p>{escape(CAVEAT)} {escape(PEOPLE)}</p>",
        f"<p>{escape(frozen_line(results))}</p>",
        *(html_table(table) for table in others),
    ]
    missing = missing_lines(results)
    if missing:
        parts += ["<h2>Not computed</h2><ul>", *(f"<li>{escape(line)}</li>" for line in missing), "</ul>"]
    parts.append("<h2>Real above predicted frames</h2>")
    parts += [
        _figure(clip, folder, number < EMBEDDED_SHEETS)
        for number, clip in enumerate(results.clips)
        if clip.sheet
    ]
    parts += ["<h2>What the figures mean</h2><ul>"]
    parts += [f"<li>{escape(f.title)}: {escape(f.meaning)}.</li>" for f in METRICS.values()]
    parts += ["</ul>"]
    return html_page(title, parts)


def html_page(title: str, parts: list[str]) -> str:
    """A self-contained page of finished parts."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head><body>\n{body}\n</body></html>\n'


def html_table(table: Table) -> str:
    """A table below its title."""

    def cells(kind: str, row: list[str]) -> str:
        return "".join(f"<{kind}{_side(table, i)}>{escape(c)}</{kind}>" for i, c in enumerate(row))

    rows = [
        f"<tr{' class=ours' if number in table.ours else ''}>{cells('td', row)}</tr>"
        for number, row in enumerate(table.rows)
    ]
    return (
        f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{cells("th", table.head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _side(table: Table, column: int) -> str:
    """Words stand at the left, numbers at the right."""
    words = table.head[column] in ("data", "method", "clip", "mouth from", "photo")
    return ' class="text"' if words else ""


def _figure(clip: ClipResult, folder: Path, inside: bool) -> str:
    caption_metrics = [
        f"{METRICS[n].title} {format_metric(n, clip.metrics)}" for n in CAPTION_METRICS if n in clip.metrics
    ]
    name = f"{clip.name}, shown by {clip.source}" if clip.source else clip.name
    caption = ", ".join([name, *caption_metrics])
    return html_figure(folder, clip.sheet, inside, f"{name}: real frames above predicted ones", caption)


def html_figure(folder: Path, sheet: str, inside: bool, shows: str, caption: str) -> str:
    """A picture with a caption.

    Args:
        folder: Where the page lies.
        sheet: The picture, a path below it.
        inside: Whether the page holds the picture, or names it.
        shows: For those who do not see it.
        caption: Below it.
    """
    source = sheet
    if inside:
        source = f"data:image/jpeg;base64,{base64.b64encode((folder / sheet).read_bytes()).decode()}"
    return (
        f'<figure><img src="{escape(source)}" alt="{escape(shows)}" loading="lazy">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
