"""Stage of the page: the button that begins, the video that is seen as it comes, what is said about it, the result.

While a video is made a second player takes the place of the result, so that the last good one comes back, with its
Download, where the new one is stopped or cannot be made.
"""

import html
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

import anyio.to_thread
import gradio as gr

from sdtalk.demo.inputs import Given, error_message
from sdtalk.demo.languages import translated
from sdtalk.demo.service import TalkService
from sdtalk.demo.shown import Shown
from sdtalk.demo.streamed_video import streamed_video
from sdtalk.demo.watching import watch
from sdtalk.errors import InputError

STAGE_CSS = """
#status, #message, :is(#status, #message) > * {padding: 0 !important}
#status .line {min-height: 1.5em; margin: 0 0 .3em; font-variant-numeric: tabular-nums}
#status progress {appearance: none; display: block; width: 100%; height: .5rem; border: 0}
#status progress, #status ::-webkit-progress-bar {background: var(--border-color-primary); border-radius: 4px}
#status ::-webkit-progress-value {background: var(--color-accent); border-radius: 4px}
#status ::-moz-progress-bar {background: var(--color-accent); border-radius: 4px}
#status progress:not([value]) {visibility: hidden}
#message:not(:has(p)) {display: none}
#message p {margin: 0; padding: .6em .8em; border: 2px solid var(--error-border-color); overflow-wrap: anywhere}
#message p {background: var(--error-background-fill); color: var(--error-text-color); border-radius: 6px}
@media (max-width: 640px) {:is(#result, #growing) {height: auto !important; min-height: 300px}}
"""

LISTENED_TO = """
() => {
  const status = document.querySelector("#status");
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
}
"""
"""Gradio writes the status anew each time; a screen reader reads what changes in an element that stays."""

CARRY_ON = """
<script>
// The finished video goes on where the growing one was, as loud or silent as that.
(() => {
  let seen = null;
  document.addEventListener("timeupdate", ({target}) => {
    if (target.closest("#growing")) seen = {
      at: target.currentTime, paused: target.paused, muted: target.muted, volume: target.volume,
    };
  }, true);
  document.addEventListener("loadedmetadata", ({target}) => {
    if (!target.closest("#result") || !seen) return;
    target.muted = seen.muted;
    target.volume = seen.volume;
    if (seen.at < target.duration - 0.1) {
      target.currentTime = seen.at;
      if (seen.paused) target.addEventListener("play", () => target.pause(), {once: true});
    }
    seen = null;
  }, true);
})();
</script>
"""


@dataclass
class Stage:
    """The controls of the right half; `News` of a video become updates of them.

    `made` is the last finished video, as `sdtalk.demo.remembered.Result` has it, without a number.
    """

    start: gr.Button
    stop: gr.Button
    message: gr.HTML
    status: gr.HTML
    growing: gr.Video
    result: gr.Video
    note: gr.Markdown
    download: gr.DownloadButton
    made: gr.State

    @classmethod
    def laid_out(cls) -> "Stage":
        """Lay the controls out where the page is just being built."""
        with gr.Row():
            start = gr.Button("4. Generate", variant="primary", scale=3)
            stop = gr.Button("Stop", variant="stop", scale=1, visible=False)
        message = gr.HTML("", elem_id="message", padding=False)
        status = gr.HTML(said(""), elem_id="status", padding=False)
        player: dict[str, Any] = {"interactive": False, "autoplay": True, "height": 440, "buttons": []}
        growing = streamed_video(label="Being made", elem_id="growing", visible=False, **player)
        result = gr.Video(label="Result", elem_id="result", **player)
        return cls(
            *(start, stop, message, status, growing, result, gr.Markdown()),
            *(gr.DownloadButton(visible=False), gr.State()),
        )

    def connect(self, service: TalkService, page: gr.Blocks, inputs: list[gr.components.Component]) -> None:
        """Let the buttons do what they say.

        Args:
            service: Makes the videos.
            page: Where this is laid out.
            inputs: In the order of `TalkService.generate`'s arguments.
        """
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        async def perform(request: gr.Request, last: str | None, *given: Any) -> AsyncIterator[dict]:
            try:
                async with aclosing(self._performed(service, request, last, given)) as updates:
                    async for update in updates:
                        yield update
            finally:
                # Gradio would keep all pieces in memory until the visitor leaves
                page.pending_streams.pop(request.session_hash, None)

        run = self.start.click(
            perform,
            [self.result, *inputs],
            self._outputs,
            concurrency_limit=None,  # the service has a line of its own, which tells everybody their place
            **quiet,
        )
        run.failure(lambda: self._idle(True), None, self._outputs, queue=False, **quiet)
        self.stop.click(service.stop, queue=False, **quiet)
        page.load(None, js=LISTENED_TO, api_visibility="private")

    def tells_of(self, service: TalkService, speech: gr.Audio) -> None:
        """Say of a recording, as soon as it is there, how long its video takes, or what is wrong with it."""

        async def about(path: str | None) -> tuple[str, str | dict]:
            if not path:
                return said(""), gr.update()
            try:
                return said(await anyio.to_thread.run_sync(service.expected, path)), gr.update()
            except InputError as error:
                return said(""), wrong(error_message(error, path))

        told: list[gr.components.Component] = [self.status, self.message]
        at_once: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        # by the browser: a busy server would clear what a video has been refused for since
        speech.change(None, None, self.message, js="() => ''", **at_once)
        speech.change(about, speech, told, **at_once)

    @property
    def _outputs(self) -> list[gr.components.Component]:
        return [
            *(self.start, self.stop, self.message, self.status),
            *(self.growing, self.result, self.note, self.download, self.made),
        ]

    async def _performed(
        self, service: TalkService, request: gr.Request, last: str | None, given: tuple[Any, ...]
    ) -> AsyncGenerator[dict, None]:
        """Make a video; what the page shows meanwhile."""
        yield self._busy()
        asked = self.asked(service, given)
        async with aclosing(watch(service, asked, request)) as news:
            async for shown in news:
                updates = self._updates(shown, last)
                if shown.video is not None:
                    made = {"video": shown.video, "made_at": time.time(), "seconds": shown.seconds}
                    updates[self.made] = made | {"given": asdict(asked)}
                yield updates

    def asked(self, service: TalkService, given: tuple[Any, ...]) -> Given:
        """What the visitor gave."""
        asked = Given(*given)
        return replace(asked, model=asked.model or service.models.names[0])

    def _busy(self) -> dict:
        return {
            self.start: gr.update(interactive=False),
            self.stop: gr.update(visible=True),
            self.message: "",
            self.growing: gr.update(visible=True, value=None),
            self.result: gr.update(visible=False),
            self.note: gr.update(visible=False),
            self.download: gr.update(visible=False),
        }

    def _idle(self, kept: bool) -> dict:
        return {
            self.start: gr.update(interactive=True),
            self.stop: gr.update(visible=False),
            self.growing: gr.update(visible=False, value=None),
            self.result: gr.update(visible=True),
            self.note: gr.update(visible=True),
            self.download: gr.update(visible=kept),
        }

    def _updates(self, shown: Shown, last: str | None) -> dict:
        """News as updates of the controls."""
        updates = self._idle(last is not None) if shown.ended else {}
        if shown.line is not None:
            updates[self.status] = said(shown.line, shown.done, shown.total)
        if shown.problem:
            updates[self.message] = wrong(shown.problem)
        if shown.piece is not None:
            updates[self.growing] = str(shown.piece)
        if shown.video is not None:
            updates[self.result] = gr.update(visible=True, value=shown.video)
            updates[self.note] = gr.update(visible=True, value=translated(shown.note))
            updates[self.download] = gr.update(visible=True, value=shown.video)
        return updates


def said(line: str, done: int = 0, total: int = 0) -> str:
    """A line of the status, and a bar where there is something to count."""
    count = f' value="{done}" max="{total}"' if total else ""
    bar = f'<progress aria-hidden="true"{count}></progress>'  # keeps its room where there is nothing to count
    return f'<p class="line">{html.escape(translated(line))}</p>{bar}'


def wrong(problem: str) -> str:
    """What went wrong, for people and screen readers."""
    return f'<p role="alert">{html.escape(translated(problem), quote=False)}</p>'
