"""Command `sdtalk export`: a portrait becomes a file of Gaussians, or a page that shows it from the sides."""

import argparse
import sys

from sdtalk.cli.shared import loaded_pipeline, shown_progress
from sdtalk.export import MISSING, Exported, check_export, export_head, export_talk
from sdtalk.options import TalkOptions, check_inputs, check_not_input
from sdtalk.speech.audio import FRAME_RATE_HZ


def run(arguments: argparse.Namespace) -> int:
    """Make the head, and write it."""
    portrait, speech, output = arguments.portrait, arguments.speech, arguments.output
    options = TalkOptions()
    check_export(output, moving=speech is not None)
    check_inputs(portrait, speech, None, options)
    check_not_input(output, *(path for path in (portrait, speech) if path))
    pipeline = loaded_pipeline(arguments)
    with shown_progress(arguments) as progress:
        progress("preparing", 0, 0)
        head = pipeline.reconstruct(portrait)
        if speech is None:
            done, note = export_head(head, output), head.note
        else:
            talk = pipeline.talk(head, speech, options=options, progress=progress)
            done, note = export_talk(talk, output), talk.note
    print(f"Note: {f'{note} {MISSING}'.strip()}", file=sys.stderr)
    if not arguments.quiet:
        print(described(done), flush=True)
    return 0


def described(done: Exported) -> str:
    """One line on a written file."""
    seconds = f", {done.frames / FRAME_RATE_HZ:.1f} s" if done.frames else ""
    left_out = f"; {done.left_out:,} transparent, hidden or beyond the photo are left out"
    return f"{done.path} ({done.splats:,} Gaussians{seconds}, {done.size / 1e6:.1f} MB{left_out})"
