"""Command `sdtalk talk`: a portrait and a recording become a video."""

import argparse
from dataclasses import fields

from sdtalk.cli.shared import given_speech, loaded_pipeline, report, shown_progress, sign_as_asked
from sdtalk.options import TalkOptions, check_inputs
from sdtalk.presets import preset
from sdtalk.video.naming import output_path


def run(arguments: argparse.Namespace) -> int:
    """Make the video."""
    names = (field.name for field in fields(TalkOptions))
    given = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    options = TalkOptions.of(preset(arguments.preset), **given)
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
