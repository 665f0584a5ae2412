"""The command line: `sdtalk PORTRAIT SPEECH -o OUT.mp4`, and the commands of `COMMANDS`.

PyTorch takes seconds to import, so everything that needs it is imported once the arguments are understood.
"""

import argparse
import signal
import sys
from typing import Any, NoReturn

from sdtalk.process import tune_process

USER_ERROR, INTERRUPTED = 2, 130

OVERVIEW = """
other commands:
  sdtalk reenact CLIP -o OUT.mp4 --target TARGET.mp4   repeat a clip from its first frame, or from a portrait
  sdtalk bench                                         measure where the time goes
  sdtalk doctor                                        what is installed, what is missing and where to get it
  sdtalk assets add flame FILE...                      store licensed files that the paper's full model needs
  sdtalk convert SDGTalk.pt FOLDER                     turn the authors' checkpoint into a model for --model
(a picture that is called like a command: give it as ./bench)
"""


UNTRAINED = "--model base measures the paper's full model with random weights where you have none."


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """Print the problem and exit."""
        self.exit(USER_ERROR, f"sdtalk: {message}. See {self.prog} --help.\n")


def talk_parser() -> Parser:
    """Arguments of the main command."""
    parser = Parser("sdtalk", description="Make a portrait speak a recording.", epilog=OVERVIEW)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("portrait", help="picture with a face")
    parser.add_argument("speech", help="recording: wav, mp3, flac, m4a, ogg, or a video with sound")
    parser.add_argument("-o", "--output", required=True, help="the .mp4 to write")
    parser.add_argument("--pose", default="idle", help="idle (default), still, or a video to follow")
    parser.add_argument("--blink", default="natural", help="natural (default), none, or a video to follow")
    parser.add_argument("--background", default="original", help="original (default), a colour, or a picture")
    parser.add_argument("--size", type=int, default=512, help="side of the video in px (512)")
    parser.add_argument("--seed", type=int, default=0, help="another idle motion and other blinks (0)")
    parser.add_argument("--mouth", type=float, default=1.0, help="how far the mouth moves (1.0)")
    parser.add_argument(
        "--label", default="", metavar="TEXT", help="written into a corner of every frame (none)"
    )
    _add_model(parser)
    return parser


def reenact_parser() -> Parser:
    """Arguments of `sdtalk reenact`."""
    parser = Parser("sdtalk reenact", description="Repeat a clip from its first frame, or from a portrait.")
    parser.add_argument("clip", help="video of one person")
    parser.add_argument("-o", "--output", required=True, help="the .mp4 to write")
    parser.add_argument("--target", help="the real frames in the same crop and background, an .mp4 to write")
    parser.add_argument("--portrait", help="picture to animate instead of the clip's first frame")
    parser.add_argument("--background", default="black", help="a colour (black), a picture, or original")
    _add_model(parser)
    return parser


def bench_parser() -> Parser:
    """Arguments of `sdtalk bench`."""
    parser = Parser(
        "sdtalk bench", description="Measure the time of every stage, and memory.", epilog=UNTRAINED
    )
    parser.add_argument("portrait", nargs="?", help="picture with a face (the example, from a checkout)")
    parser.add_argument("speech", nargs="?", help="recording (the example)")
    parser.add_argument(
        "--seconds", type=float, default=7.1, help="length of the sound: cut or repeated (7.1)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_model(parser)
    return parser


def convert_parser() -> Parser:
    """Arguments of `sdtalk convert`."""
    parser = Parser("sdtalk convert", description="Turn the authors' checkpoint into a model for --model.")
    parser.add_argument("source", help="SDGTalk.pt, as downloaded; nothing in it is run")
    parser.add_argument("target", help="folder to make")
    parser.add_argument(
        "--noise",
        default="fresh",
        help="of the neural renderer: fresh in every frame as published (default), stored (steady), none",
    )
    parser.add_argument(
        "--alignment",
        default="ahead",
        help="which HuBERT tokens a frame hears: ahead (default), centred; see sdtalk/hubert/windows.py",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare the result with the file, and GPU with CPU"
    )
    return parser


def assets_parser() -> Parser:
    """Arguments of `sdtalk assets`."""
    parser = Parser("sdtalk assets", description="Store files that cannot come with the package.")
    parser.add_argument("action", choices=["add"])
    parser.add_argument("asset", choices=["flame", "hubert"])
    parser.add_argument("files", nargs="+", help="what you downloaded: FLAME's files, or HuBERT's folder")
    return parser


def doctor_parser() -> Parser:
    """Arguments of `sdtalk doctor`."""
    return Parser("sdtalk doctor", description="List every asset, weight and optional library.")


def _add_model(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--model", default="mini", help="mini (default), a folder, or user/name on the Hub")
    parser.add_argument(
        "--precision", default="auto", help="auto (default), float32, or bfloat16 (large models only)"
    )


def talk(arguments: argparse.Namespace) -> None:
    """Make a talking video."""
    from sdtalk.options import TalkOptions, check_inputs
    from sdtalk.pipeline import SDTalkPipeline

    names = ("pose", "blink", "background", "size", "seed", "mouth", "label")
    options = TalkOptions(**{name: getattr(arguments, name) for name in names})
    check_inputs(arguments.portrait, arguments.speech, arguments.output, options)
    pipeline = SDTalkPipeline.from_pretrained(arguments.model, arguments.device, arguments.precision)
    with _Bar() as bar:
        done = pipeline(arguments.portrait, arguments.speech, arguments.output, options, bar.show)
    _report(done)


def reenact(arguments: argparse.Namespace) -> None:
    """Repeat a clip."""
    from sdtalk.pipeline import SDTalkPipeline
    from sdtalk.reenact import ReenactOptions, reenact

    options = ReenactOptions(arguments.portrait, arguments.background)
    pipeline = SDTalkPipeline.from_pretrained(arguments.model, arguments.device, arguments.precision)
    with _Bar() as bar:
        done = reenact(pipeline, arguments.clip, arguments.output, arguments.target, options, bar.show)
    _report(done)


def bench(arguments: argparse.Namespace) -> None:
    """Measure."""
    from sdtalk.bench import Benchmark, as_json, as_text, measure

    names = ("portrait", "speech", "seconds", "model", "device", "precision")
    chosen = Benchmark(**{name: getattr(arguments, name) for name in names})
    report = measure(chosen)
    print(as_json(report) if arguments.json else as_text(report))


def convert(arguments: argparse.Namespace) -> None:
    """Convert the authors' checkpoint."""
    from pathlib import Path

    from sdtalk.convert import convert
    from sdtalk.errors import InputError

    done = convert(arguments.source, arguments.target, arguments.noise, arguments.alignment)
    reasons = "; ".join(f"{count} ({reason})" for reason, count in done.dropped.items())
    print(f"{done.folder}: {done.used} tensors used; not used: {reasons}.")
    if arguments.verify:
        from sdtalk.verify import as_text, verify

        found = verify(Path(arguments.source), done.folder)
        print(as_text(found))
        if not found.passed:
            problem = "on the GPU it computes something else"
            raise InputError(str(done.folder), problem, "Use it with --device cpu, and tell us.")
    print(f"Use it with --model {done.folder}; what it needs besides: sdtalk doctor.")


def assets(arguments: argparse.Namespace) -> None:
    """Store licensed files."""
    from pathlib import Path

    from sdtalk.assets import add_hubert
    from sdtalk.errors import InputError

    files = [Path(file) for file in arguments.files]
    if arguments.asset == "flame":
        from sdtalk.tracking.flame_file import add_flame

        place = add_flame(files)
    elif len(files) == 1:
        place = add_hubert(files[0])
    else:
        raise InputError(
            "hubert", f"{len(files)} names were given", "Give the one folder that holds its files."
        )
    print(f"{arguments.asset} is stored in {place}")


def doctor(arguments: argparse.Namespace) -> None:
    """List what is there and what is missing."""
    from sdtalk.doctor import as_text, examine

    print(as_text(examine()))


def _report(done: Any) -> None:
    if done.note:
        print(f"Note: {done.note}", file=sys.stderr)
    print(f"{done.path} ({done.frames / 25:.1f} s)")


class _Bar:
    """A progress bar that starts again for every stage."""

    def __init__(self) -> None:
        self.stage, self.bar = "", None  # type: str, Any

    def __enter__(self) -> "_Bar":
        return self

    def show(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if stage != self.stage or self.bar is None:
            self.__exit__()
            look = None if total else "{desc} {elapsed}"  # nothing to count
            self.stage, self.bar = stage, tqdm(desc=stage, total=total, unit="frame", bar_format=look)
        self.bar.update(done - self.bar.n)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()


COMMANDS = {
    "reenact": (reenact_parser, reenact),
    "bench": (bench_parser, bench),
    "convert": (convert_parser, convert),
    "assets": (assets_parser, assets),
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


if __name__ == "__main__":
    sys.exit(main())
