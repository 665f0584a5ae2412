"""Three dimensions: the part of the page that shows a head from the sides, and gives it to other programs as files."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from sdtalk.demo.inputs import CONSENT, Given
from sdtalk.demo.languages import translated
from sdtalk.demo.service import LOOK_EVERY_S, TalkService
from sdtalk.demo.shown import waiting
from sdtalk.demo.stage import said, wrong
from sdtalk.errors import InputError
from sdtalk.export import MISSING, export_head, viewer_frame
from sdtalk.process import hand_back_memory
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech

SPOKEN_S = 20.0
"""Longest recording that the viewer plays: with its motion and sound a page grows by 0.3 MB a second."""

TAKES_S = 8.0
"""What others in line are told to expect of it."""

ABOUT = f"""
The head of the portrait as 3D Gaussians: turn it with the mouse, a finger or the arrow keys. With a recording of at
most {SPOKEN_S:.0f} s it speaks. {MISSING}
"""


@dataclass(frozen=True)
class Turnable:
    """A head that can be turned.

    Attributes:
        frame: HTML that shows it.
        files: Where the page serves it from for a while: .ply, .splat.
    """

    frame: str
    files: tuple[str, str]


@dataclass(frozen=True)
class ThreeDimensions:
    """The controls of this part."""

    show: gr.Button
    status: gr.HTML
    viewer: gr.HTML
    ply: gr.DownloadButton
    splat: gr.DownloadButton

    @classmethod
    def laid_out(cls) -> "ThreeDimensions":
        """Lay the controls out, folded, where the page is just being built."""
        with gr.Accordion("In three dimensions", open=False, elem_id="three-dimensions"):
            gr.Markdown(ABOUT)
            show = gr.Button("Show the head")
            status = gr.HTML("", elem_id="turnable-status", padding=False)
            viewer = gr.HTML(visible=False, elem_id="viewer", padding=False)
            with gr.Row():
                ply = gr.DownloadButton("Download .ply", visible=False)
                splat = gr.DownloadButton("Download .splat", visible=False)
        return cls(show, status, viewer, ply, splat)

    def connect(self, service: TalkService, inputs: list[gr.components.Component]) -> None:
        """Let the button do what it says.

        Args:
            service: Has the models, the thread on which they work, and the line before it.
            inputs: Portrait, speech, consent, face and model.
        """
        outputs: list[Any] = [self.show, self.status, self.viewer, self.ply, self.splat]

        async def show(*given: Any) -> AsyncIterator[dict]:
            yield {self.show: gr.update(interactive=False), self.status: said("Making the head …")}
            ended: dict = {self.show: gr.update(interactive=True), self.status: ""}
            try:
                async for news in turnable(service, *given):
                    if isinstance(news, str):
                        yield {self.status: said(news)}
                        continue
                    ended[self.viewer] = gr.update(visible=True, value=news.frame)
                    for button, path in zip((self.ply, self.splat), news.files, strict=True):
                        ended[button] = gr.update(visible=True, value=path)
            except InputError as error:
                asked = given_for(service, *given)
                ended[self.status] = wrong(service.told(str(error), asked))
            yield ended

        self.show.click(
            show, inputs, outputs, concurrency_limit=None, show_progress="hidden", api_visibility="private"
        )


def given_for(
    service: TalkService,
    portrait: str | None,
    speech: str | None,
    consent: bool,
    face: int,
    model: str | None,
) -> Given:
    """What was given, with the page's defaults for what this part does not ask."""
    return Given(portrait, speech, consent, model=model or service.models.names[0], face=face)


async def turnable(service: TalkService, *given: Any) -> AsyncIterator[str | Turnable]:
    """Make a head that can be turned, when it is this visitor's turn.

    Args:
        service: Has the models, the thread on which they work, and the line before it.
        given: Portrait, speech, consent, face and model.

    Yields:
        What the visitor should know meanwhile, and the head at the end.

    Raises:
        InputError: Something is missing or cannot be used.
    """
    asked = given_for(service, *given)
    asked.require("portrait")
    if not asked.consent:
        raise InputError("3. Consent", "it has not been given", f"Please tick “{CONSENT}”.")
    with service.line.joined(TAKES_S) as place:
        while place.ahead:
            yield waiting(place)
            await asyncio.sleep(LOOK_EVERY_S)
        yield "Making the head …"
        assert service.worker is not None  # where GPUs are lent this part is not on the page
        yield await anyio.to_thread.run_sync(service.worker.run, make_turnable, service, asked)


def make_turnable(service: TalkService, given: Given) -> Turnable:
    """Make the head, its viewer and its files.

    Raises:
        InputError: The portrait or the recording cannot be used.
    """
    try:
        pipeline = service.models.pipeline_for(given.model)
        head = pipeline.reconstruct(given.require("portrait"), face=int(given.face))
        speech = given.speech if given.speech and seconds(given.speech) <= SPOKEN_S else None
        frame = viewer_frame(
            pipeline.talk(head, speech) if speech else head, title=translated("The head in three dimensions")
        )
        with tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
            made = [export_head(head, Path(folder) / f"head{kind}").path for kind in (".ply", ".splat")]
            ply, splat = (save_file_to_cache(path, get_upload_folder()) for path in made)
        return Turnable(frame, (ply, splat))
    finally:
        hand_back_memory()


def seconds(speech: str) -> float:
    """Length of a recording, or a little more than SPOKEN_S where it is longer."""
    return len(read_speech(speech, enough_s=SPOKEN_S).samples) / SAMPLE_RATE_HZ
