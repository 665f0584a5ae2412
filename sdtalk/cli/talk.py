"""Command `sdtalk talk`: a portrait and a recording become a video."""

import argparse

from sdtalk.cli.shared import given_speech, loaded_pipeline, report, shown_progress, sign_as_asked
from sdtalk.options import TalkOptions, check_inputs
from sdtalk.video.naming import output_path

OPTIONS = (
    "pose", "blink", "background", "size", "seed", "mouth", "expression", "label", "exact", "frame", "shape",
    "mark",
)  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Make the video."""
    options = TalkOptions(**{name: getattr(arguments, name) for name in OPTIONS})
    portrait, (speech, name) = arguments.portrait, given_speech(arguments)
    output = output_path(arguments.output, portrait, name, alpha=options.transparent)
    sign_as_asked(arguments)
    check_inputs(portrait, speech, output, options)
    pipeline = loaded_pipeline(arguments)
    with shown_progress(arguments) as progress:
        chosen = {"face": arguments.face, "turn": arguments.turn}
        done = pipeline(portrait, speech, output, options, progress=progress, **chosen)
    report(arguments, output, len(done), done.note)
    return 0
