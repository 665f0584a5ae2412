"""Generation service: turns the page's inputs into videos, each of which its visitor can stop."""

import html
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from sdtalk.demo.gpu_loan import VISITORS_AT_ONCE, check_loan, loan_seconds
from sdtalk.demo.inputs import chosen_options, error_message, known_model, require
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.video_job import Outcome, StopFlag, Stopped, VideoJob
from sdtalk.demo.worker import Worker
from sdtalk.demo.zero_gpu import on_a_lent_gpu, on_zero_gpu
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.process import hand_back_memory
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech

CONSENT = "The person shown is me, has agreed to this video, or is the example"
DOING = {
    "preparing": "Looking at the portrait, listening to the speech",
    "tracking": "Following the head in the video",
    "rendering": "Drawing the frames",
}


class TalkService:
    """Makes videos for any number of visitors, each of whom can stop their own.

    One at a time, and all of them on one thread: Gradio calls from dozens, and PyTorch's threads, and the memory they
    keep, would be there once for each: 1.8 GB after 16 videos instead of 0.6. With ZeroGPU every video is made in a
    fork, which has neither that thread nor its model anew: it finds the model as it was loaded before.
    """

    def __init__(self, models: ModelCache) -> None:
        self.models = models
        self.stops: dict[str | None, StopFlag] = {}
        self.forks = on_zero_gpu()
        self.at_once = VISITORS_AT_ONCE if self.forks else 1
        self._make: Callable[[VideoJob, gr.Progress], Outcome] = (
            on_a_lent_gpu(self._make_here, loan_seconds)
            if self.forks
            else partial(Worker().run, self._make_here)
        )

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
        face: float | int = 0,
        request: gr.Request = None,  # type: ignore[assignment] # Gradio fills it in
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio learns that it is wanted
    ) -> tuple[str, str]:
        """Make a talking video of a portrait and a speech recording.

        Args:
            portrait: Picture with a face.
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
            face: Which face of the portrait, counted from left to right from 1; 0: the largest.
            request: Who asks; comes from Gradio.
            progress: Shows what is being done.

        Returns:
            The video, and what the user should know about it, or "".
        """
        given = portrait, speech, driver, picture
        with tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
            stop = self.stops[request.session_hash] = StopFlag(Path(folder))
            try:
                portrait, speech = require(portrait, "Portrait"), require(speech, "Speech")
                if not consent:
                    raise InputError("Consent", "it has not been given", f"Please tick “{CONSENT}”.")
                options = chosen_options(
                    pose, driver, blink, background, colour, picture, mouth, expression, seed
                )
                model = known_model(model or self.models.names[0], self.models.names)
                job = self._with_length(
                    VideoJob(model, portrait, speech, options, Path(folder), face=int(face))
                )
                outcome = self._make(job, progress)
            except InputError as error:
                outcome = Outcome(problem=str(error))
            finally:
                if self.stops.get(request.session_hash) is stop:
                    del self.stops[request.session_hash]
            if outcome.stopped:
                raise gr.Error("Stopped.", print_exception=False)
            if outcome.problem:
                line = error_message(outcome.problem, *given, self.models.sources.get(model or ""))
                raise gr.Error(html.escape(line, quote=False), None, print_exception=False)
            return save_file_to_cache(job.video, get_upload_folder()), outcome.note

    def _with_length(self, job: VideoJob) -> VideoJob:
        """Where a GPU is lent, find out for how long, before it is asked for.

        Raises:
            InputError: The recording cannot be read, or is too long.
        """
        if not self.forks:
            return job
        try:
            job = replace(job, speech_seconds=len(read_speech(job.speech).samples) / SAMPLE_RATE_HZ)
            check_loan(job)
            return job
        finally:
            hand_back_memory()

    def _make_here(self, job: VideoJob, progress: gr.Progress) -> Outcome:
        """Make a video: on the one thread for it, or in a fork, so what goes in and out is picklable."""

        def show(stage: str, done: int, total: int) -> None:
            job.stop.check()
            progress((done, total) if total else 0, desc=DOING.get(stage, "Working"), unit="frames")

        try:
            show("preparing", 0, 0)
            pipeline = self.models.pipeline_for(job.model)
            talk = pipeline(job.portrait, job.speech, options=job.options, face=job.face, progress=show)
            talk.save(job.video, show)
            return Outcome(talk.note)
        except InputError as error:
            return Outcome(problem=str(error))
        except Stopped:
            return Outcome(stopped=True)
        finally:
            hand_back_memory()

    def stop(self, request: gr.Request) -> None:
        """Let the video that is being made for this visitor not be finished."""
        if request.session_hash in self.stops:
            self.stops[request.session_hash].set()
