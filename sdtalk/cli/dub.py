"""Command `sdtalk dub`: an existing video of a person gets new speech."""

import argparse

from sdtalk.cli.shared import given_speech, loaded_pipeline, report, shown_progress, sign_as_asked
from sdtalk.dubbing import DubOptions, check_dub
from sdtalk.video.naming import output_path


def run(arguments: argparse.Namespace) -> int:
    """Make the video."""
    clip, a = arguments.clip, arguments
    options = DubOptions(face=a.face, loop=a.loop, mouth=a.mouth, label=a.label, mark=a.mark)
    speech, name = given_speech(arguments)
    output = output_path(arguments.output, clip, name)
    sign_as_asked(arguments)
    check_dub(clip, output, speech)
    pipeline = loaded_pipeline(arguments)
    with shown_progress(arguments) as progress:
        dub = pipeline.dub(clip, speech, output, options, progress=progress)
    report(arguments, output, len(dub), dub.note, dub.fps)
    return 0
