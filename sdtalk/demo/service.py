"""Generation service: turns what a page or a program gives into videos, each of which its visitor can stop."""

import html
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from sdtalk.demo.gpu_loan import VISITORS_AT_ONCE, check_loan, loan_seconds
from sdtalk.demo.inputs import Given, check_length, known_model
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.shown import DOING, expected
from sdtalk.demo.video_job import Outcome, StopFlag, Stopped, VideoJob
from sdtalk.demo.waiting_line import WaitingLine
from sdtalk.demo.work_time import WorkTime
from sdtalk.demo.worker import Worker
from sdtalk.demo.zero_gpu import on_a_lent_gpu, on_zero_gpu
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.process import hand_back_memory
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech

ROOM = 50
"""Visitors who can wait at once."""

LOOK_EVERY_S = 0.1
"""How often those who wait look whether it is their turn, or whether there is news."""


class TalkService:
    """Makes videos for any number of visitors, each of whom can stop their own.

    A few at a time, by default one, and always on the same few threads: Gradio calls from dozens, and PyTorch's
    threads, and the memory they keep, would be there once for each: 1.8 GB after 16 videos instead of 0.6. All share
    one model; what `mini` draws does not depend on what else is being made. With ZeroGPU every video is made in a fork,
    which has neither those threads nor its model anew: it finds the model as it was loaded before.
    """

    def __init__(self, models: ModelCache, longest_s: float | None = None, at_once: int = 1) -> None:
        """Make nothing yet.

        Args:
            models: What there is to choose from.
            longest_s: The longest recording that is taken, in seconds; None: any.
            at_once: How many videos are made at the same time; has no meaning on ZeroGPU.
        """
        self.models, self.longest_s = models, longest_s
        self.stops: dict[str | None, StopFlag] = {}
        self.forks = on_zero_gpu()
        self.at_once = VISITORS_AT_ONCE if self.forks else at_once
        self.line, self.work_time = WaitingLine(self.at_once, ROOM), WorkTime()
        self.worker = None if self.forks else Worker(self.at_once)
        self._make: Callable[[VideoJob, gr.Progress | None], Outcome] = (
            on_a_lent_gpu(self._make_here, loan_seconds)
            if self.worker is None
            else partial(self.worker.run, self._make_here)
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
        frame: str = "full",
        shape: str = "photo",
        motion: float | int = TalkOptions.motion,
        style: str = TalkOptions.style,
        blink_rate: float | int = TalkOptions.blink_rate,
        life: float | int = TalkOptions.life,
        yaw: float | int = 0,
        pitch: float | int = 0,
        roll: float | int = 0,
        request: gr.Request = None,  # type: ignore[assignment] # Gradio fills it in
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio learns that it is wanted
    ) -> tuple[str, str]:
        """Make a talking video of a portrait and a speech recording.

        Args:
            portrait: Picture with a face.
            speech: Recording of speech.
            consent: Must be true: the person shown has agreed, or is the one who asks.
            pose: Head motion: "idle", "still", or "video" (as in `driver`).
            driver: Video whose head or eyes are followed.
            blink: "natural", "none", or "video" (as in `driver`).
            background: "original", "colour" or "picture".
            colour: Of the background.
            picture: For the background.
            mouth: How far the mouth moves, 0 to 2; 1 as learned.
            expression: How much of a smile in the portrait stays while speaking, 0 to 1.
            seed: Another number, another idle motion and other blinks.
            model: Name of one of the models found; by default the first.
            face: Which face of the portrait, counted from left to right from 1; 0: the largest.
            frame: "full", the whole photo, or "head", a square of the head; before another background only that.
            shape: Of full frames: "photo", "9:16", "1:1" or "16:9".
            motion: How far the head moves, 0 to 2; 1 as made, or as in the video.
            style: Of motion that follows no video: "natural", "calm", "lively" or "nodding".
            blink_rate: Natural blinks a minute, 0 to 40.
            life: How much eyes glance, brows rise and shoulders breathe, 0 to 2.
            yaw: Turns the head to the right of the picture, -25 to 25 degrees.
            pitch: Turns it upwards, -15 to 15 degrees.
            roll: Tilts it clockwise, -20 to 20 degrees.
            request: Who asks; comes from Gradio.
            progress: Shows what is being done.

        Returns:
            The video, and what the user should know about it, or "".
        """
        given = Given(
            portrait, speech, consent, pose, driver, blink, background, colour, picture, mouth, expression, seed,
            model or self.models.names[0], face, frame, shape, motion, style, blink_rate, life,
            yaw, pitch, roll, by_program=True,
        )  # fmt: skip
        folder, stop = self.visit(request)
        try:
            outcome = self._made_in_turn(job := self.job(given, Path(folder.name)), progress)
            video = "" if outcome.stopped or outcome.problem else kept(job)
        except Stopped:
            outcome = Outcome(stopped=True)
        except InputError as error:
            outcome = Outcome(problem=error)
        finally:
            self.left(request, folder, stop)
        if outcome.stopped:
            raise gr.Error("Stopped.", print_exception=False)
        if outcome.problem:
            line = html.escape(self.told(outcome.problem, given), quote=False)
            raise gr.Error(line, None, print_exception=False)
        return video, outcome.note

    def _made_in_turn(self, job: VideoJob, progress: gr.Progress) -> Outcome:
        """Wait for one's turn, and make a video."""
        with self.line.joined(self.work_time.expected(job.speech_seconds)) as place:
            while place.ahead:
                job.stop.check()
                time.sleep(LOOK_EVERY_S)
            return self.make(job, progress)

    def expected(self, speech: str) -> str:
        """Say how long a video of a recording will take, before it is made.

        Raises:
            InputError: The recording cannot be read, or is longer than this page takes.
        """
        seconds = self._seconds(speech)
        return expected(seconds, self.work_time.expected(seconds), self.line.wait())

    def job(self, given: Given, folder: Path, watched: bool = False) -> VideoJob:
        """Look at what was given, and put together what has to be done.

        Args:
            given: What the video is made of.
            folder: Empty folder of the job.
            watched: Whether pieces are wanted.

        Raises:
            InputError: Something cannot be used, as far as can be said before the work begins.
        """
        portrait, speech = given.require("portrait"), given.require("speech")
        given.check_consent()
        options, model = given.options(), known_model(given.model, self.models.names)
        return self.looked_at(
            VideoJob(model, portrait, speech, options, folder, watched=watched, face=int(given.face))
        )

    def looked_at(self, job: VideoJob) -> VideoJob:
        """A job with the length of its recording.

        Raises:
            InputError: The recording cannot be read, or is longer than this page takes.
        """
        job = replace(job, speech_seconds=self._seconds(job.speech))
        if self.forks:
            check_loan(job)
        return job

    def _seconds(self, speech: str) -> float:
        """Length of a recording; a little more than this page takes where it is longer.

        Raises:
            InputError: The recording cannot be read, or is longer than this page takes.
        """
        try:
            seconds = len(read_speech(speech, enough_s=self.longest_s).samples) / SAMPLE_RATE_HZ
        finally:
            hand_back_memory()
        check_length(speech, seconds, self.longest_s)
        return seconds

    def make(self, job: VideoJob, progress: gr.Progress | None) -> Outcome:
        """Make a video whose turn it is, and learn from it how long that takes."""
        began = time.monotonic()
        outcome = self._make(job, progress)
        if not outcome.stopped and not outcome.problem:
            self.work_time.learn(job.speech_seconds, time.monotonic() - began)
        return outcome

    def _make_here(self, job: VideoJob, progress: gr.Progress | None) -> Outcome:
        """Make a video: on the one thread for it, or in a fork, so what goes in and out is picklable."""

        def show(stage: str, done: int, total: int) -> None:
            job.tell(stage, done, total)
            if progress is not None:
                progress((done, total) if total else 0, desc=DOING.get(stage, "Working"), unit="frames")

        try:
            show("preparing", 0, 0)
            pipeline = self.models.pipeline_for(job.model)
            talk = job.begun(pipeline, show)
            talk.save(job.video, show, job.pieces if job.watched else None)
            return Outcome(talk.note)
        except InputError as error:
            return Outcome(problem=error)
        except Stopped:
            return Outcome(stopped=True)
        finally:
            hand_back_memory()

    def told(self, problem: InputError | str, given: Given) -> str:
        """An error's text for whoever gave this."""
        return given.told(problem, self.models.sources.get(given.model))

    def visit(self, request: gr.Request) -> "tuple[tempfile.TemporaryDirectory[str], StopFlag]":
        """A folder for a job, and the flag with which its visitor stops it; `left` takes both back."""
        folder = tempfile.TemporaryDirectory(prefix="sdtalk-")
        stop = self.stops[request.session_hash] = StopFlag(Path(folder.name))
        return folder, stop

    def left(self, request: gr.Request, folder: "tempfile.TemporaryDirectory[str]", stop: StopFlag) -> None:
        """Nothing is wanted of a job any more."""
        if self.stops.get(request.session_hash) is stop:
            del self.stops[request.session_hash]
        folder.cleanup()

    def stop(self, request: gr.Request) -> None:
        """Let the video that is being made for this visitor not be finished."""
        if request.session_hash in self.stops:
            self.stops[request.session_hash].set()


def kept(job: VideoJob) -> str:
    """Put a finished video where the page serves it from for a while; return its path there."""
    return save_file_to_cache(job.video, get_upload_folder())
