"""Command `sdtalk reenact`: a clip's sound, poses and eyes move its first frame, or a portrait."""

import argparse

from sdtalk.cli.shared import loaded_pipeline, report, shown_progress, sign_as_asked
from sdtalk.reenact import ReenactOptions, check_outputs, reenact
from sdtalk.video.naming import output_path


def run(arguments: argparse.Namespace) -> int:
    """Make the video, and the one of the real frames."""
    clip, portrait = arguments.clip, arguments.portrait
    options = ReenactOptions(portrait, arguments.background, exact=arguments.exact, mark=arguments.mark)
    sign_as_asked(arguments)
    names, alpha = (portrait or clip, clip if portrait else "reenacted"), options.transparent
    output = output_path(arguments.output, *names, alpha=alpha)
    target = output_path(arguments.target, clip, "target", alpha=alpha) if arguments.target else None
    check_outputs([output] if target is None else [output, target], clip, options)
    pipeline = loaded_pipeline(arguments)
    with shown_progress(arguments) as progress:
        done = reenact(pipeline, clip, output, target, options, progress)
    report(arguments, done.path, done.frames, done.note)
    return 0
