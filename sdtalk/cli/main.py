"""The command line: `sdtalk PORTRAIT SPEECH -o OUT.mp4`, and the commands of `COMMANDS`.

PyTorch takes seconds to import, so everything that needs it is imported once the arguments are understood.
"""

import argparse
import signal
import sys
from typing import Any

from sdtalk.cli.arguments import (
    USER_ERROR,
    assets_parser,
    bench_parser,
    convert_parser,
    demo_parser,
    doctor_parser,
    reenact_parser,
    talk_parser,
)
from sdtalk.cli.process import tune_process
from sdtalk.progress import ProgressBar

INTERRUPTED = 130


def _pipeline(arguments: argparse.Namespace) -> Any:
    from sdtalk.pipeline import SDTalkPipeline

    return SDTalkPipeline.from_pretrained(
        arguments.model, arguments.device, arguments.precision, arguments.compile
    )


def talk(arguments: argparse.Namespace) -> None:
    """Make a talking video."""
    from sdtalk.options import TalkOptions, check_inputs

    names = ("pose", "blink", "background", "size", "seed", "mouth", "label")
    options = TalkOptions(**{name: getattr(arguments, name) for name in names})
    check_inputs(arguments.portrait, arguments.speech, arguments.output, options)
    pipeline = _pipeline(arguments)
    with ProgressBar() as bar:
        done = pipeline(arguments.portrait, arguments.speech, arguments.output, options, progress=bar)
    _report(arguments.output, len(done), done.note)


def reenact(arguments: argparse.Namespace) -> None:
    """Repeat a clip."""
    from sdtalk.reenact import ReenactOptions, reenact

    options = ReenactOptions(arguments.portrait, arguments.background)
    pipeline = _pipeline(arguments)
    with ProgressBar() as bar:
        done = reenact(pipeline, arguments.clip, arguments.output, arguments.target, options, bar)
    _report(done.path, done.frames, done.note)


def bench(arguments: argparse.Namespace) -> None:
    """Measure."""
    from sdtalk.cli.bench import Benchmark, as_json, as_text, measure

    names = ("portrait", "speech", "seconds", "model", "device", "precision", "compile")
    chosen = Benchmark(**{name: getattr(arguments, name) for name in names})
    report = measure(chosen)
    print(as_json(report) if arguments.json else as_text(report))


def convert(arguments: argparse.Namespace) -> None:
    """Convert the authors' checkpoint."""
    from pathlib import Path

    from sdtalk.errors import InputError
    from sdtalk.published.convert import convert

    done = convert(arguments.source, arguments.target, arguments.noise, arguments.alignment)
    reasons = "; ".join(f"{count} ({reason})" for reason, count in done.dropped.items())
    print(f"{done.folder}: {done.used} tensors used; not used: {reasons}.")
    if arguments.verify:
        from sdtalk.published.verify import as_text, verify

        found = verify(Path(arguments.source), done.folder)
        print(as_text(found))
        if not found.passed:
            problem = "on the GPU it computes something else"
            raise InputError(str(done.folder), problem, "Use it with --device cpu, and tell us.")
    print(f"Use it with --model {done.folder}; what it needs besides: sdtalk doctor.")


def assets(arguments: argparse.Namespace) -> None:
    """Store licensed files."""
    from pathlib import Path

    from sdtalk.errors import InputError
    from sdtalk.weights.third_party import DOWNLOADS, add_hubert, add_weights

    files = [Path(file) for file in arguments.files]
    if arguments.asset == "flame":
        from sdtalk.flame.file import add_flame

        place = add_flame(files)
    elif arguments.asset in DOWNLOADS:
        place = add_weights(arguments.asset, files)
    elif len(files) == 1:
        place = add_hubert(files[0])
    else:
        raise InputError(
            "hubert", f"{len(files)} names were given", "Give the one folder that holds its files."
        )
    print(f"{arguments.asset} is stored in {place}")


def demo(arguments: argparse.Namespace) -> None:
    """Open the page."""
    from sdtalk.demo.launch import launch

    launch(arguments.model, arguments.device)


def doctor(arguments: argparse.Namespace) -> None:
    """List what is there and what is missing."""
    from sdtalk.cli.doctor import as_text, examine

    print(as_text(examine()))


def _report(path: Any, frames: int, note: str) -> None:
    if note:
        print(f"Note: {note}", file=sys.stderr)
    print(f"{path} ({frames / 25:.1f} s)")


COMMANDS = {
    "reenact": (reenact_parser, reenact),
    "bench": (bench_parser, bench),
    "convert": (convert_parser, convert),
    "assets": (assets_parser, assets),
    "demo": (demo_parser, demo),
    "doctor": (doctor_parser, doctor),
}


def main(words: list[str] | None = None) -> int:
    """Run a command.

    Args:
        words: The arguments, by default those of the process.

    Returns:
        Exit code: 0, 2 for an input that cannot be used, 130 after Ctrl-C or a polite kill.
    """
    if words is None:  # the program itself: a polite kill cleans up as Ctrl-C does
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:] if words is None else words
    parser, command = COMMANDS.get(words[0] if words else "", (talk_parser, talk))
    arguments = parser().parse_args(words[1:] if command is not talk else words)
    tune_process()
    try:
        from sdtalk.errors import InputError

        try:
            command(arguments)
        except InputError as error:
            print("sdtalk:", " ".join(str(error).split()), file=sys.stderr)
            return USER_ERROR
    except KeyboardInterrupt:
        print("sdtalk: stopped; nothing was written.", file=sys.stderr)
        return INTERRUPTED
    return 0
