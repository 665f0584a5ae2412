"""History of the page: results of this visit side by side, and inputs that are back after a reload.

All of it is kept by the browser (`gr.BrowserState`): values of controls, and names of files that the server deletes
when it would anyway. What comes back is checked (`sdtalk.demo.remembered`) before anything is done with it.
"""

import html
import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from sdtalk.demo.face_choice import AT_ONCE, as_status
from sdtalk.demo.inputs import ON_THE_PAGE
from sdtalk.demo.remembered import (
    FILES,
    REMEMBERED,
    Result,
    as_control_sends,
    kept_file,
    read_inputs,
    read_results,
    written,
)
from sdtalk.demo.result_cards import (
    WORDS,
    comparison_markup,
    heading_markup,
    list_markup,
    matching_preset,
    part,
)
from sdtalk.demo.service import TalkService
from sdtalk.demo.stage import Stage, said

SCRAMBLED_BY = "sdtalk"
"""Gradio asks for a key; one that everybody's page brings along keeps nothing secret, and outlasts the server."""

SAVE = """
(saved, ...values) => window.sdtalkRestored
  ? Object.fromEntries(NAMES.map((name, i) => [name, values[i]?.path ?? values[i]?.video?.path ?? values[i]]))
  : saved
"""
"""Inputs as they are kept; nothing before those of the last time are back, which defaults would overwrite."""

RESTORED = "() => { window.sdtalkRestored = true; }"

LISTENED_TO = """
() => {
  const status = document.querySelector("#history-status");
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
}
"""


@dataclass
class History:
    """The controls of the list of results, and what the browser keeps."""

    inputs: gr.BrowserState
    results: gr.BrowserState
    missing: gr.HTML
    heading: gr.HTML
    cards: gr.HTML
    comparison: gr.HTML
    status: gr.HTML
    forget: gr.Button
    keep_s: int
    minutes: int

    @classmethod
    def laid_out(cls, missing: gr.HTML, keep_s: int, minutes: int) -> "History":
        """Lay the list out where the page is just being built.

        Args:
            missing: Where is told which remembered files are gone; see `lay_out_missing`.
            keep_s: For how long files are surely there, seconds.
            minutes: After how many they are surely gone.
        """
        kept: dict[str, Any] = {"secret": SCRAMBLED_BY}
        with gr.Column(elem_id="history"):
            heading = gr.HTML(heading_markup(minutes), padding=False)
            status = gr.HTML(_line(""), elem_id="history-status", padding=False)
            cards = gr.HTML("", padding=False, js_on_load=part("result_cards.js"))
            comparing = part("comparison.js")
            comparison = gr.HTML(
                comparison_markup(), elem_id="comparison", padding=False, js_on_load=comparing
            )
            forget = gr.Button(WORDS["forget"], size="sm", elem_id="forget", elem_classes="act")
        inputs = gr.BrowserState({}, storage_key="sdtalk-inputs", **kept)
        results = gr.BrowserState([], storage_key="sdtalk-results", **kept)
        return cls(inputs, results, missing, heading, cards, comparison, status, forget, keep_s, minutes)

    def connect(self, service: TalkService, page: gr.Blocks, stage: Stage, controls: dict[str, Any]) -> None:
        """Keep, show and give back.

        Args:
            service: Makes the videos.
            page: Where this is laid out.
            stage: Where they are seen.
            controls: By the names of `Given`'s fields; also "preset", and "wanted_face" (see `lay_out_face`).
        """
        kept = [controls[name] for name in REMEMBERED]
        given_back = [*kept, controls["preset"], controls["wanted_face"]]
        shown: list[Any] = [self.results, self.cards, self.status]
        seen: list[Any] = [stage.result, stage.note, stage.download]

        def restored(inputs: Any, results: Any) -> dict:
            values, lost = self.back(inputs, controls)
            # what somebody quick has set meanwhile is not set back to what it was at first
            values = {part: value for part, value in values.items() if value != part.value}
            # with the words of this visitor, whom the page did not know when it was laid out
            frame = {self.heading: heading_markup(self.minutes), self.comparison: comparison_markup()}
            return (
                values
                | frame
                | self._list(read_results(results, time.time()), controls)
                | {self.missing: lost}
            )

        def added(made: dict[str, Any] | None, results: Any) -> dict:
            return self.added(made, results, controls)

        def asked(results: Any, event: gr.EventData) -> dict:
            return self.asked(event._data, results, stage, controls)

        def forgotten(request: gr.Request) -> dict:
            service.stop(request)
            return self.forgotten(stage, controls)

        loaded: list[Any] = [*given_back, *shown, self.missing, self.heading, self.comparison]
        load = page.load(restored, [self.inputs, self.results], loaded, **AT_ONCE)
        load.then(None, js=RESTORED, api_visibility="private")
        page.load(None, js=LISTENED_TO, api_visibility="private")
        names = str(list(REMEMBERED))
        changes = [control.change for control in kept]
        save = SAVE.replace("NAMES", names)
        each: dict[str, Any] = {"trigger_mode": "multiple", "api_visibility": "private"}
        gr.on(changes, None, [self.inputs, *kept], self.inputs, js=save, **each)
        stage.made.change(added, [stage.made, self.results], shown, **AT_ONCE)
        self.cards.click(asked, self.results, [*shown, *seen, *given_back, self.missing], **AT_ONCE)
        everything = [
            *shown,
            *seen,
            *given_back,
            self.missing,
            self.inputs,
            controls["consent"],
            stage.status,
        ]
        self.forget.click(forgotten, None, everything, **AT_ONCE)

    def added(self, made: dict[str, Any] | None, results: Any, controls: dict[str, Any]) -> dict:
        """A new result, in front of the others; as updates of controls.

        Args:
            made: See `Stage.made`.
            results: What the browser kept.
            controls: See `connect`.
        """
        if made is None:
            return {}
        before = read_results(results, time.time())
        number = 1 + max((one.number for one in before), default=0)
        given = read_inputs(made["given"])
        new = Result(number, made["video"], made["made_at"], made["seconds"], given)
        return self._list([new, *before], controls, WORDS["added"].format(number=number))

    def asked(self, wish: Any, results: Any, stage: Stage, controls: dict[str, Any]) -> dict:
        """What a click on the list brings; as updates of controls.

        Args:
            wish: Action and number of the result, from the browser: perhaps something else.
            results: What the browser kept: the same.
            stage: Where results are played.
            controls: See `connect`.
        """
        wish = wish if isinstance(wish, dict) else {}
        action, listed = wish.get("action"), read_results(results, time.time())
        if action == "check":
            there = sum(one.file() is not None for one in listed)
            return {} if there == wish.get("shown") else self._list(listed, controls, WORDS["some_gone"])
        chosen = next((one for one in listed if one.number == wish.get("number")), None)
        if chosen is None:
            return {}
        if action == "remove":
            rest = [one for one in listed if one is not chosen]
            return self._list(rest, controls, WORDS["removed"].format(number=chosen.number))
        if action == "again":
            values, lost = self.back(chosen.given, controls)
            return values | {self.missing: lost, self.status: _told("used", chosen)}
        if action != "play":
            return {}
        if (video := chosen.file()) is None:
            return self._list(listed, controls, WORDS["some_gone"])
        player = gr.update(value=video, visible=True)
        note = gr.update(value="", visible=True)
        return {
            stage.result: player,
            stage.note: note,
            stage.download: player,
            self.status: _told("played", chosen),
        }

    def back(self, given: Any, controls: dict[str, Any]) -> tuple[dict, dict]:
        """Inputs that were kept, as updates of their controls, and what is said of files that are gone.

        Args:
            given: What the browser kept.
            controls: See `connect`.
        """
        given = read_inputs(given)
        values = {name: as_control_sends(controls[name], given.get(name)) for name in REMEMBERED}
        values |= {name: kept_file(given.get(name), kinds) for name, kinds in FILES.items()}
        lost = [ON_THE_PAGE[name] for name in FILES if given.get(name) and values[name] is None]
        updates: dict = {controls[name]: value for name, value in values.items()}
        updates[controls["preset"]] = matching_preset(values, controls)
        updates[controls["wanted_face"]] = (values["portrait"], values["face"])
        told = [WORDS["missing"].format(names=", ".join(lost))] if lost else []
        return updates, as_status(told)

    def forgotten(self, stage: Stage, controls: dict[str, Any]) -> dict:
        """The page as it was before anybody gave anything; as updates of controls."""
        values, _ = self.back({}, controls)
        empty = {stage.result: None, stage.note: "", stage.download: gr.update(value=None, visible=False)}
        own = {
            self.inputs: {},
            self.missing: as_status([]),
            controls["consent"]: False,
            stage.status: said(""),
        }
        return values | empty | own | self._list([], controls, WORDS["forgotten"])

    def _list(self, results: list[Result], controls: dict[str, Any], told: str = "") -> dict:
        """The list, and what the browser keeps of it."""
        results = read_results(written(results), time.time())
        updates: dict = {
            self.results: written(results),
            self.cards: list_markup(results, controls, self.keep_s),
            self.status: _line(told),
        }
        return updates


def lay_out_missing() -> gr.HTML:
    """Lay out where is told that remembered files are gone: above the inputs."""
    return gr.HTML(visible=False, elem_id="missing")


def _told(word: str, result: Result) -> str:
    return _line(WORDS[word].format(number=result.number))


def _line(told: str) -> str:
    return f"<p>{html.escape(told, quote=False)}</p>"
