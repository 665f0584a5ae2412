"""Command `sdtalk convert`: the authors' checkpoint becomes a model."""

import argparse
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.published.convert import convert
from sdtalk.published.verify import as_text, verify


def run(arguments: argparse.Namespace) -> int:
    """Convert, and compare where that is asked for."""
    tell = (lambda *_: None) if arguments.quiet else print
    done = convert(arguments.source, arguments.target, arguments.noise, arguments.alignment)
    reasons = "; ".join(f"{count} ({reason})" for reason, count in done.dropped.items())
    tell(f"{done.folder}: {done.used} tensors used; not used: {reasons}.")
    if arguments.verify:
        found = verify(Path(arguments.source), done.folder)
        tell(as_text(found))
        if not found.passed:
            problem = "on the GPU it computes something else"
            raise InputError(str(done.folder), problem, "Use it with --device cpu, and tell us.")
    tell(f"Use it with --model {done.folder}; what it needs besides: sdtalk doctor.")
    return 0
