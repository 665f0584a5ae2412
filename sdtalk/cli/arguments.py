"""Argument parsers: one for each command, and the one that lists them.

Imports nothing slow, so that `sdtalk --help` answers at once.
"""

import argparse
import re
from textwrap import fill
from typing import NoReturn

from sdtalk import __version__

USER_ERROR = 2

DESCRIPTION = "One portrait photo and one speech recording become a video of that person talking."
USAGE = "sdtalk PORTRAIT SPEECH -o OUTPUT [options]\n       sdtalk COMMAND ..."
EXAMPLES = """
examples:
  sdtalk photo.jpg speech.wav -o talk.mp4
  sdtalk photo.jpg speech.wav -o videos/ --pose still --background white --label AI-generated
  sdtalk batch jobs.csv -o videos

options of talk, explained by `sdtalk talk --help`:
{options}
The other commands explain theirs in the same way: sdtalk COMMAND --help.
(A picture that is called like a command: give it as ./bench.)
"""

OUTPUT = """the video to write: .mp4 (H.264), .webm (VP9), .mov (ProRes 4444) or .gif; or a folder (one that exists, or
a name that ends with /), in which a .mp4 (transparent: .webm) is named after portrait and speech; or another name
without a suffix: a new folder of PNG frames"""
JOBS = """one job a line: {"portrait": ..., "speech": ..., "output": ..., "pose": ...}, or a .csv with such columns;
output, a name in FOLDER, and the options of talk (face, preset, pose, blink, mouth, ...) can be left out; paths are
relative to this file"""
EXPORTED = """the file to write: .ply (as 3D Gaussian Splatting has it, for SuperSplat, gsplat and most others), .splat
(antimatter15's), .json (described in sdtalk/export/packed.py) or .html (a viewer with the head in it)"""
UNTRAINED = "--model base measures the paper's full model with random weights where you have none."


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        """Print the problem and exit."""
        self.exit(USER_ERROR, f"sdtalk: {message}. See {self.prog} --help.\n")


def talk_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk talk`."""
    parser.add_argument("portrait", metavar="PORTRAIT", help="picture with a face")
    _add_speech(parser)
    parser.add_argument("-o", "--output", required=True, help=OUTPUT)
    parser.add_argument(
        "--face", type=int, default=0, metavar="N", help="the Nth face from the left; 0: the largest (0)"
    )
    parser.add_argument(
        "--turn", type=int, default=0, metavar="DEGREES", help="turn the photo clockwise: 90, 180, 270 (0)"
    )
    _add_options(parser)
    _add_exact(parser)
    _add_mark(parser)
    _add_sign(parser)
    _add_model(parser)
    _add_quiet(parser)


def batch_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk batch`."""
    parser.add_argument("jobs", metavar="JOBS", help=JOBS)
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where the videos go")
    _add_sign(parser)
    _add_model(parser)
    _add_quiet(parser)


def reenact_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk reenact`."""
    parser.add_argument("clip", help="video of one person")
    parser.add_argument("-o", "--output", required=True, help="the video to write, or a folder")
    parser.add_argument("--target", help="the real frames in the same crop and background, a video to write")
    parser.add_argument("--portrait", help="picture to animate instead of the clip's first frame")
    parser.add_argument(
        "--background", default="black", help="a colour (black), transparent, a picture, or original"
    )
    _add_exact(parser)
    _add_mark(parser)
    _add_sign(parser)
    _add_model(parser)
    _add_quiet(parser)


def dub_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk dub`."""
    parser.add_argument("clip", metavar="CLIP", help="video of a person, who gets new speech")
    _add_speech(parser)
    parser.add_argument("-o", "--output", required=True, help="the video to write, or a folder")
    parser.add_argument(
        "--face", type=int, default=0, metavar="N", help="the Nth face from the left; 0: the largest (0)"
    )
    more = (
        "a clip shorter than the sound: pingpong (default), backward and forward; hold its last frame; or cut"
    )
    parser.add_argument("--loop", default="pingpong", help=f"{more} the sound")
    parser.add_argument("--mouth", type=float, default=1.0, help="how far the mouth moves (1.0)")
    parser.add_argument(
        "--label", default="", metavar="TEXT", help="written into a corner of every frame (none)"
    )
    _add_mark(parser)
    _add_sign(parser)
    _add_model(parser)
    _add_quiet(parser)


def export_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk export`."""
    parser.add_argument("portrait", metavar="PORTRAIT", help="picture with a face")
    parser.add_argument("-o", "--output", required=True, help=EXPORTED)
    parser.add_argument("--speech", help="recording that the head speaks; for .json and .html")
    _add_model(parser)
    _add_quiet(parser)


def bench_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk bench`."""
    parser.epilog = UNTRAINED
    parser.add_argument("portrait", nargs="?", help="picture with a face (the bundled example)")
    parser.add_argument("speech", nargs="?", help="recording (the bundled example)")
    parser.add_argument(
        "--seconds", type=float, default=7.1, help="length of the sound: cut or repeated (7.1)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    _add_model(parser)


def convert_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk convert`."""
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
        help="which HuBERT tokens a frame hears: ahead (default), centred; see sdtalk/speech/hubert/windows.py",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare the result with the file, and GPU with CPU"
    )
    _add_quiet(parser)


def assets_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk assets`."""
    parser.add_argument("action", choices=["add"])
    parser.add_argument("asset", choices=["flame", "hubert", "lpips", "syncnet", "arcface"])
    parser.add_argument("files", nargs="+", help="what you downloaded: files, or HuBERT's folder")


def demo_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk demo`."""
    more = "a folder or user/name on the Hub to offer besides the models found; the first is the default"
    parser.add_argument("--model", action="append", default=[], help=more)
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument(
        "--host", metavar="ADDRESS", help="0.0.0.0 lets other machines in (this machine alone)"
    )
    parser.add_argument("--port", type=int, help="where the page is (the first free one from 7860)")
    parser.add_argument(
        "--share",
        action="store_true",
        default=None,
        help="a public address for 72 hours, through Gradio's servers",
    )
    parser.add_argument("--auth", metavar="NAME:PASSWORD", help="let in only those who know both")
    parser.add_argument(
        "--max-seconds", type=float, help="the longest recording that is taken, for shared machines (any)"
    )
    more = "how many videos are made at the same time; each is slower then (1)"
    parser.add_argument("--concurrency", type=int, default=1, metavar="N", help=more)
    more = "let programs choose the label, and leave out the mark; without it every video has both"
    parser.add_argument("--free-label", action="store_true", help=more)
    _add_sign(parser)


def inspect_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk inspect`."""
    parser.add_argument(
        "file", metavar="FILE", help="a video, a picture, or a folder of PNG frames, of anybody's"
    )
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")


def doctor_arguments(parser: Parser) -> None:
    """Arguments of `sdtalk doctor`: none."""


def _add_model(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("--model", default="mini", help="mini (default), a folder, or user/name on the Hub")
    parser.add_argument(
        "--precision", default="auto", help="auto (default), float32, or bfloat16 (large models only)"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks; takes minutes, for long videos on a GPU"
    )
    more = "what draws on a GPU: auto (default, triton), triton, or gsplat, which compiles itself with nvcc"
    parser.add_argument("--rasteriser", default="auto", help=more)


def _add_options(parser: Parser) -> None:
    """Options of a talk; what is not given is not there afterwards, so that a preset can decide it."""

    def add(flag: str, help: str, type: type = str, metavar: str | None = None) -> None:
        parser.add_argument(flag, help=help, type=type, metavar=metavar, default=argparse.SUPPRESS)

    more = "options that go together: natural (default), calm, lively, still; others given here win"
    parser.add_argument("--preset", default="natural", help=more)
    add("--pose", "idle (default), still, or a video to follow")
    add("--motion", "how far the head moves, 0 to 2 (1.0)", float)
    add("--style", "of idle motion: natural (default), calm, lively, nodding")
    add("--blink", "natural (default), none, or a video to follow")
    add("--blink-rate", "natural blinks a minute, 0 to 40 (15)", float)
    add("--life", "how much eyes glance, brows rise and shoulders breathe, 0 to 2 (1.0)", float)
    add("--yaw", "turn the head to the right of the picture, -25 to 25 (0)", float, "DEGREES")
    add("--pitch", "... upwards, -15 to 15 (0)", float, "DEGREES")
    add("--roll", "... clockwise, -20 to 20 (0)", float, "DEGREES")
    add("--background", "original (default), transparent, a colour, a picture")
    add("--frame", "head (default): a square; full: the whole photo, whose still parts stay its own")
    add("--shape", "of full frames: photo (default), 9:16, 1:1, 16:9, cut out around the head")
    add("--size", "side of a head's frame in px (512)", int)
    add("--seed", "another idle motion and other blinks (0)", int)
    add("--mouth", "how far the mouth moves (1.0)", float)
    add("--expression", "how much of the photo's smile stays while speaking (0.5)", float)
    add("--label", "written into a corner of every frame (none)", metavar="TEXT")


def _add_speech(parser: Parser) -> None:
    more = "recording: wav, mp3, flac, m4a, ogg, or a video with sound; or give --text"
    parser.add_argument("speech", metavar="SPEECH", nargs="?", help=more)
    more = "what to say instead of SPEECH, by a voice of this machine (Piper, espeak-ng)"
    parser.add_argument("--text", metavar="WORDS", help=more)
    more = "which voice says it: one that sdtalk doctor lists, a language, or a .onnx of Piper (the first)"
    parser.add_argument("--voice", default="", metavar="NAME", help=more)


def _add_exact(parser: Parser) -> None:
    more = "no shortcuts: a third of the speed on a CPU, and a picture that looks the same"
    parser.add_argument("--exact", action="store_true", help=more)


def _add_mark(parser: Parser) -> None:
    more = "no invisible mark in the frames; sdtalk inspect would find it"
    parser.add_argument("--no-mark", dest="mark", action="store_false", help=more)


def _add_sign(parser: Parser) -> None:
    more = "sign the claims in videos with your certificate, PEM files (one that nobody vouches for)"
    parser.add_argument("--sign", nargs=2, metavar=("CERT", "KEY"), help=more)


def _add_quiet(parser: Parser) -> None:
    parser.add_argument(
        "--quiet", action="store_true", help="print notes and errors only: no bar, and no result"
    )


COMMANDS = {
    "talk": (talk_arguments, "make a portrait speak a recording (the default)"),
    "batch": (batch_arguments, "make many talking videos, listed in a file"),
    "reenact": (reenact_arguments, "repeat a clip from its first frame, or from a portrait"),
    "dub": (dub_arguments, "give a video of a person new speech; all but mouth and jaw stays"),
    "export": (export_arguments, "write a portrait's head as Gaussians, or as a page that shows it"),
    "demo": (demo_arguments, "open the page in which a portrait is made to speak"),
    "inspect": (inspect_arguments, "say whether a video was made here: claim, label, invisible mark"),
    "bench": (bench_arguments, "measure the time of every stage, and memory"),
    "doctor": (doctor_arguments, "list every asset, weight and optional library"),
    "assets": (assets_arguments, "store licensed files: full model, evaluation"),
    "convert": (convert_arguments, "turn the authors' SDGTalk.pt into a model for --model"),
}  # fmt: skip
"""Every command: its arguments, and one line on what it does."""


def command_parser(name: str) -> Parser:
    """The parser of one command."""
    add_arguments, what = COMMANDS[name]
    parser = Parser(f"sdtalk {name}", description=f"{what[0].upper()}{what[1:]}.")
    add_arguments(parser)
    return parser


def overview_parser() -> Parser:
    """The parser of `sdtalk --help` and `sdtalk --version`: lists the commands, and parses none of them."""
    parser = Parser("sdtalk", usage=USAGE, description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--version", action="version", version=f"sdtalk {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (_, what) in COMMANDS.items():
        commands.add_parser(name, help=what)
    options = " ".join(re.findall(r"--[\w-]+", command_parser("talk").format_usage()))
    parser.epilog = EXAMPLES.format(options=fill(options, 100, initial_indent="  ", subsequent_indent="  "))
    return parser
