"""Generation service: turns the page's inputs into a video, one at a time, each of which its visitor can stop."""

import html
import tempfile
import threading
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from sdtalk.demo.inputs import as_hex, error_message, known_model, require
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.worker import Worker
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.process import hand_back_memory
from sdtalk.progress import Progress
from sdtalk.video.label import AI_GENERATED

CONSENT = "The person shown is me, has agreed to this video, or is the example"
DOING = {
    "preparing": "Looking at the portrait, listening to the speech",
    "tracking": "Following the head in the video",
    "rendering": "Drawing the frames",
}


class Stopped(Exception):
    """The visitor does not want the video any more."""


class TalkService:
    """Makes one video at a time for any number of visitors, each of whom can stop their own.

    All of them are made on one thread. Gradio calls from dozens, and PyTorch's threads, and the memory they keep, would
    be there once for each: 1.8 GB after 16 videos instead of 0.6.
    """

    def __init__(self, models: ModelCache) -> None:
        self.models, self.worker = models, Worker()
        self.stops: dict[str | None, threading.Event] = {}

    def generate(  # one argument for each control: Gradio passes them so, and the API takes its names from here
        self,
        portrait: str | None,
        speech: str | None,
        consent: bool = False,
        pose: str = "idle",
        driver: str | None = None,
        blink: str = "natural",
        background: str = "original",
        colour: str = "#ffffff",
        picture: str | None = None,
        mouth: float | int = 1.0,
        expression: float | int = TalkOptions.expression,
        seed: float | int = 0,
        model: str | None = None,
        request: gr.Request = None,  # type: ignore[assignment] # Gradio fills it in
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio learns that it is wanted
    ) -> tuple[str, str]:
        """Make a talking video of a portrait and a speech recording.

        Args:
            portrait: Picture with one face.
            speech: Recording of speech.
            consent: Must be true: the person shown has agreed, or is the one who asks.
            pose: Head motion: "idle", "still", or "video" (as in `driver`).
            driver: Video whose head is followed.
            blink: "natural" or "none".
            background: "original", "colour" or "picture".
            colour: Of the background.
            picture: For the background.
            mouth: How far the mouth moves, 0 to 2; 1 as learned.
            expression: How much of a smile in the portrait stays while speaking, 0 to 1.
            seed: Another number, another idle motion and other blinks.
            model: Name of one of the models found; by default the first.
            request: Who asks; comes from Gradio.
            progress: Shows what is being done.

        Returns:
            The video, and what the user should know about it, or "".
        """
        stop = self.stops[request.session_hash] = threading.Event()

        def show(stage: str, done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            progress((done, total) if total else 0, desc=DOING.get(stage, "Working"), unit="frames")

        try:
            portrait, speech = require(portrait, "Portrait"), require(speech, "Speech")
            if not consent:
                raise InputError("Consent", "it has not been given", f"Please tick “{CONSENT}”.")
            pose = require(driver, "Video to follow") if pose == "video" else pose
            behind = as_hex(colour) if background == "colour" else background
            behind = require(picture, "Background picture") if background == "picture" else behind
            options = TalkOptions(
                pose,
                blink,
                behind,
                seed=int(seed),
                mouth=float(mouth),
                expression=float(expression),
                label=AI_GENERATED,
            )
            model = known_model(model or self.models.names[0], self.models.names)
            return self.worker.run(self._make, model, portrait, speech, options, show)
        except InputError as error:
            place = self.models.sources.get(model or "")
            line = error_message(error, portrait, speech, driver, picture, place)
            raise gr.Error(html.escape(line, quote=False), None, print_exception=False) from None
        except Stopped:
            raise gr.Error("Stopped.", print_exception=False) from None
        finally:
            if self.stops.get(request.session_hash) is stop:
                del self.stops[request.session_hash]

    def _make(
        self, model: str, portrait: str, speech: str, options: TalkOptions, show: Progress
    ) -> tuple[str, str]:
        """Make a video, on the one thread for it."""
        try:
            show("preparing", 0, 0)
            with tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
                talk = self.models.pipeline_for(model)(portrait, speech, options=options, progress=show)
                video = talk.save(Path(folder) / "talking.mp4", show)
                return save_file_to_cache(video, get_upload_folder()), talk.note
        finally:
            hand_back_memory()

    def stop(self, request: gr.Request) -> None:
        """Let the video that is being made for this visitor not be finished."""
        if request.session_hash in self.stops:
            self.stops[request.session_hash].set()
