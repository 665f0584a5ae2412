"""Result cards: the markup of the list of results, of two results side by side, and its words.

result_cards.js    the buttons of the list, and what is compared
comparison.js      two players that go as one
result_cards.css   how both look
"""

import html
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sdtalk.demo.controls import SET_BY_PRESETS, preset_values
from sdtalk.demo.inputs import Given
from sdtalk.demo.languages import translated
from sdtalk.demo.remembered import FILES, Result, as_control_sends, kept_file
from sdtalk.demo.work_time import in_words

WORDS = {
    "title": "Results of this visit",
    "about": "Newest first. This browser keeps the list and your inputs, but never your consent. "
    "The files are deleted within {minutes} minutes.",
    "empty": "What you make is listed here.",
    "name": "Result {number}",
    "portrait": "Portrait",
    "speech": "Speech",
    "preset": "Preset",
    "defaults": "Default options",
    "gone": "Deleted from the server",
    "play": "Play",
    "download": "Download",
    "again": "Use these settings again",
    "compare": "Compare",
    "remove": "Remove",
    "forget": "Forget everything",
    "played": "Result {number} is shown above.",
    "used": "The settings of result {number} are back in the controls.",
    "removed": "Result {number} was removed from the list.",
    "added": "Result {number} was added to the list of results.",
    "some_gone": "Some results have been deleted from the server.",
    "forgotten": "Everything was forgotten.",
    "missing": "No longer on the server, please add again: {names}.",
    "comparison": "Comparison",
    "pause": "Pause",
    "position": "Position in both videos",
    "sound": "Sound of",
    "close": "Close the comparison",
    "photo": "Portrait of result {number}",
    "with_photo": "Result {number} beside its portrait",
    "with_other": "Results {number} and {other} side by side",
    "no_picture": "It cannot be shown",
}

HERE = Path(__file__).parent

SHOWN_ONLY_WITH = {
    "driver": ("pose", "blink", "video"),
    "style": ("pose", "idle"),
    "blink_rate": ("blink", "natural"),
    "frame": ("background", "original"),
    "colour": ("background", "colour"),
    "picture": ("background", "picture"),
    "shape": ("frame", "full"),
}
"""Options that say nothing unless another one (or two) has a value."""


def part(name: str) -> str:
    """One of the scripts, or the style sheet, beside this file."""
    return (HERE / name).read_text(encoding="utf-8")


def list_markup(results: list[Result], controls: dict[str, Any], keep_s: int) -> str:
    """The list of results.

    Args:
        results: Newest first.
        controls: By the names of `Given`'s fields, and the preset's.
        keep_s: For how long files are surely there, seconds.
    """
    cards = "".join(_card(result, controls) for result in results)
    body = f'<ol class="results">{cards}</ol>' if results else f"<p>{_word('empty')}</p>"
    return f'<div data-keep="{keep_s}">{body}</div>'


def heading_markup(minutes: int) -> str:
    """What stands above the list."""
    return (
        f'<h2 id="history-title" tabindex="-1">{_word("title")}</h2>'
        f'<p class="about">{_word("about", minutes=minutes)}</p>'
    )


def comparison_markup() -> str:
    """Where two results are shown side by side; empty and hidden at first."""
    words = {
        name: translated(WORDS[name])
        for name in ("play", "pause", "photo", "name", "with_photo", "with_other")
    }
    side = (
        '<figure><video class="side" playsinline hidden></video><img class="side" alt="" hidden>'
        f"<p hidden>{_word('no_picture')}</p><figcaption></figcaption></figure>"
    )
    return (
        f'<section aria-label="{_word("comparison")}" hidden data-words="{html.escape(json.dumps(words))}">'
        f'<h3>{_word("comparison")}</h3><p role="status"></p><div class="pair">{side}{side}</div>'
        f'<div class="transport"><button class="act toggle">{_word("play")}</button>'
        f'<input type="range" min="0" value="0" step="0.04" aria-label="{_word("position")}">'
        f'<output aria-live="off"></output><fieldset><legend>{_word("sound")}</legend>'
        '<label><input type="radio" name="compared-sound" value="0" checked><span></span></label>'
        '<label><input type="radio" name="compared-sound" value="1"><span></span></label></fieldset>'
        f'<button class="act close">{_word("close")}</button></div></section>'
    )


def differences(given: dict[str, Any], controls: dict[str, Any]) -> list[str]:
    """Options that differ from the defaults, as "label: value"."""
    values = {
        name: given.get(name) if name in FILES else as_control_sends(controls[name], given.get(name))
        for name in Given.names()
        if name in controls and name != "consent"
    }
    preset = matching_preset(values, controls)
    told = (
        [f"{translated(WORDS['preset'])}: {_shown(controls['preset'], preset)}"]
        if preset not in (None, "natural")
        else []
    )
    for name, value in values.items():
        needs = SHOWN_ONLY_WITH.get(name)
        if name in ("portrait", "speech") or (preset and name in SET_BY_PRESETS):
            continue
        if needs and needs[-1] not in [values.get(other) for other in needs[:-1]]:
            continue
        if value is not None and value != controls[name].value:
            told.append(f"{translated(controls[name].label)}: {_shown(controls[name], value)}")
    return told


def matching_preset(values: dict[str, Any], controls: dict[str, Any]) -> str | None:
    """The preset that sets just these values, if there is one."""
    for _, name in controls["preset"].choices:
        if all(values.get(field) == value for field, value in preset_values(name).items()):
            return name
    return None


def _shown(control: Any, value: Any) -> str:
    """What a control calls a value."""
    for title, choice in getattr(control, "choices", None) or ():
        if choice == value:
            return translated(str(title))
    return Path(value).name if isinstance(value, str) else f"{value:g}"


def _card(result: Result, controls: dict[str, Any]) -> str:
    number, video = result.number, result.file()
    portrait = kept_file(result.given.get("portrait"), FILES["portrait"])
    made_of = [
        f"{translated(WORDS[name])}: {Path(result.given[name]).name}"
        for name in ("portrait", "speech")
        if isinstance(result.given.get(name), str)
    ]
    options = differences(result.given, controls) or [translated(WORDS["defaults"])]
    facts = "".join(f"<li>{html.escape(line)}</li>" for line in (*made_of, *options))
    name = _word("name", number=number)
    length = html.escape(translated(in_words(round(result.seconds))))
    at = datetime.fromtimestamp(result.made_at, UTC).isoformat(timespec="seconds")
    player = (
        f'<video class="thumbnail" preload="metadata" muted playsinline tabindex="-1" aria-label="{name}" '
        f'data-path="{html.escape(video)}"></video>'
        if video
        else f'<p class="thumbnail gone">{_word("gone")}</p>'
    )
    actions = ("play", "again", "compare", "remove") if video else ("again", "remove")
    buttons = [_button(action, name) for action in actions]
    if video:
        buttons.insert(
            1,
            f'<a class="act" data-action="download" aria-label="{_word("download")}: {name}" '
            f'download="{html.escape(_download_name(result))}">{_word("download")}</a>',
        )
    return (
        f'<li class="result" data-number="{number}" data-at="{result.made_at:.0f}" '
        f'data-portrait="{html.escape(portrait or "")}">{player}'
        f'<h3><span>{name} · {length}</span><time datetime="{at}"></time></h3>'
        f'<ul class="facts">{facts}</ul><div class="actions">{"".join(buttons)}</div></li>'
    )


def _button(action: str, name: str) -> str:
    pressed, word = (' aria-pressed="false"' if action == "compare" else ""), _word(action)
    named = f'aria-label="{word}: {name}"'
    return f'<button type="button" class="act" data-action="{action}"{pressed} {named}>{word}</button>'


def _download_name(result: Result) -> str:
    who = Path(result.given.get("portrait") or "talking").stem
    return f"{who}_{result.number}.mp4"


def _word(name: str, **values: Any) -> str:
    return html.escape(translated(WORDS[name].format(**values)))
