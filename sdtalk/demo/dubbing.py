"""Dubbing page: a video of a person gets new speech; beside the page on which a photo speaks, by the same thread."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from sdtalk.demo.inputs import error_message, known_model
from sdtalk.demo.service import TalkService
from sdtalk.demo.speech_text import lay_out_text
from sdtalk.demo.stage import Stage
from sdtalk.demo.video_job import VideoJob
from sdtalk.demo.work_time import WorkTime
from sdtalk.dubbing import DubOptions, check_dub
from sdtalk.errors import InputError
from sdtalk.options import LOUDEST_MOUTH, TalkOptions
from sdtalk.progress import Progress
from sdtalk.video.label import AI_GENERATED

CONSENT = "The person shown is me, or has agreed to these words"

MAIN_PAGE = "A photo speaks"

WORDS = """
# Dub a video
A video of a person gets new speech: mouth and jaw are made anew, everything else stays as it was filmed.
"""

NAMES = {"clip": "Video", "speech": "Speech"}
"""What the page calls its inputs."""


@dataclass(frozen=True)
class DubGiven:
    """What a visitor gives; in the order of the page's inputs."""

    clip: str | None
    speech: str | None
    consent: bool | None
    loop: str
    face: float | int
    mouth: float | int
    model: str

    def job(self, folder: Path, watched: bool) -> "DubJob":
        """What has to be done.

        Raises:
            InputError: Something is missing, or not possible.
        """
        for name in NAMES:
            if not getattr(self, name):
                raise InputError(NAMES[name], "there is none yet", "Please add it.")
        if not self.consent:
            raise InputError("3. Consent", "it has not been given", f"Please tick “{CONSENT}”.")
        assert self.clip is not None and self.speech is not None
        dubbed = DubOptions(face=int(self.face), loop=self.loop, mouth=float(self.mouth), label=AI_GENERATED)
        check_dub(self.clip, None, self.speech)
        return DubJob(
            self.model, self.clip, self.speech, TalkOptions(), folder, watched=watched, dubbed=dubbed
        )


@dataclass(frozen=True)
class DubJob(VideoJob):
    """A video to be dubbed, which stands for the portrait.

    Attributes:
        dubbed: How.
    """

    dubbed: DubOptions = field(default_factory=DubOptions)

    def begun(self, pipeline: Any, show: Progress) -> Any:
        """Follow the face, and listen."""
        return pipeline.dub(self.portrait, self.speech, options=self.dubbed, progress=show)


class DubService(TalkService):
    """Dubs for visitors: in the line and on the thread of the service for photos; flags are its own."""

    def __init__(self, talks: TalkService) -> None:
        vars(self).update(vars(talks))
        self.stops, self.work_time = {}, WorkTime()

    def job(self, given: Any, folder: Path, watched: bool = False) -> VideoJob:
        """As `TalkService.job`, of a `DubGiven`."""
        job = given.job(folder, watched)
        known_model(job.model, self.models.names)
        return replace(job, speech_seconds=self._seconds(job.speech))

    def told(self, problem: Any, given: Any) -> str:
        """An error's text without paths of this machine."""
        return error_message(str(problem), given.clip, given.speech, self.models.sources.get(given.model))


class DubStage(Stage):
    """The right half of the page."""

    def asked(self, service: TalkService, given: tuple[Any, ...]) -> Any:
        """What the visitor gave."""
        asked = DubGiven(*given)
        return replace(asked, model=asked.model or service.models.names[0])


def lay_out_dubbing(talks: TalkService, page: gr.Blocks, small_print: str) -> None:
    """Lay out the page, where it is just being built.

    Args:
        talks: The service of the other page.
        page: Both pages.
        small_print: What stands below.
    """
    service = DubService(talks)
    names = service.models.names
    gr.Markdown(WORDS, elem_id="introduction")
    with gr.Row():
        with gr.Column():
            clip = gr.Video(
                label="1. Video of a person", sources=["upload"], height=300, elem_id="clip", buttons=[]
            )
            sounds: dict[str, Any] = {"type": "filepath", "sources": ["upload", "microphone"]}
            speech = gr.Audio(label="2. New speech", elem_id="speech", buttons=[], **sounds)
            lay_out_text(speech)
            with gr.Accordion("Options", open=False):
                loops = [
                    ("goes backward and forward", "pingpong"),
                    ("stands still", "hold"),
                    ("cuts the speech", "cut"),
                ]
                loop = gr.Radio(loops, value="pingpong", label="A video shorter than the speech")
                more = "0: the largest; 1, 2, ...: from the left"
                face = gr.Number(0, label="Face", info=more, precision=0, minimum=0)
                mouth = gr.Slider(
                    0, LOUDEST_MOUTH, 1, step=0.05, label="Mouth", info="How far it moves; 1 as learned"
                )
                model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
        with gr.Column():
            consent = gr.Checkbox(label=f"3. {CONSENT}", elem_id="consent")
            stage = DubStage.laid_out()
    gr.Markdown(small_print, elem_id="small-print")
    gr.Navbar(main_page_name=MAIN_PAGE)
    stage.connect(service, page, [clip, speech, consent, loop, face, mouth, model])
    stage.tells_of(service, speech)
    page.unload(service.stop)
