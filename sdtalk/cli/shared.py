"""Shared parts of the commands that make videos: the pipeline they load, the bar, and the line at the end."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from huggingface_hub.utils import disable_progress_bars

from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.progress import Progress, ProgressBar, no_progress
from sdtalk.provenance.credentials import sign_with
from sdtalk.speech.audio import FRAME_RATE_HZ, SpeechSource
from sdtalk.speech.synthesis import synthesise


def loaded_pipeline(arguments: argparse.Namespace) -> SDTalkPipeline:
    """The pipeline that the options of a command ask for.

    Raises:
        InputError: The model, the device, the precision or the rasteriser cannot be used.
    """
    if arguments.quiet:
        disable_progress_bars()  # of downloads
    return SDTalkPipeline.from_pretrained(
        arguments.model, arguments.device, arguments.precision, arguments.compile, arguments.rasteriser
    )


def given_speech(arguments: argparse.Namespace) -> tuple[SpeechSource, str]:
    """The recording, or the spoken --text, and what outputs in folders are named after.

    Raises:
        InputError: None of both is given or both are, or the text cannot be spoken.
    """
    speech, text = arguments.speech, arguments.text
    if (speech is None) == (text is None):
        given = "none of both is given" if text is None else "both are given"
        raise InputError("SPEECH and --text", given, "Give a recording, or --text with words to say.")
    if text is not None:
        return synthesise(text, arguments.voice), "text"
    if arguments.voice:
        raise InputError("--voice", "a recording has its own voice", "Give --text with words to say, too.")
    return speech, speech


def sign_as_asked(arguments: argparse.Namespace) -> None:
    """Take the certificate and key of --sign, where they are given.

    Raises:
        InputError: They cannot be used.
    """
    if arguments.sign:
        sign_with(*arguments.sign)


def shown_progress(arguments: argparse.Namespace) -> AbstractContextManager[Progress]:
    """A bar, or nothing with --quiet."""
    return nullcontext(no_progress) if arguments.quiet else ProgressBar()


def report(
    arguments: argparse.Namespace, path: Path, frames: int, note: str, fps: float = FRAME_RATE_HZ
) -> None:
    """Print what the user should know of a video, and, without --quiet, where it is."""
    if path.suffix.lower() == ".gif":
        note = f"{note} A .gif has no sound.".strip()
    if note:
        print(f"Note: {note}", file=sys.stderr)
    if not arguments.quiet:
        print(f"{path} ({frames / fps:.1f} s)", flush=True)
