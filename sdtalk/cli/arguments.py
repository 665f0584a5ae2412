"""Argument parsers of the commands."""

import argparse
from typing import NoReturn

USER_ERROR = 2

OVERVIEW = """
other commands:
  sdtalk reenact CLIP -o OUT.mp4 --target TARGET.mp4   repeat a clip from its first frame, or from a portrait
  sdtalk demo                                          open the page
  sdtalk bench                                         measure where the time goes
  sdtalk doctor                                        what is installed, what is missing and where to get it
  sdtalk assets add flame FILE...                      store licensed files, for the full model or for evaluation
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
        help="which HuBERT tokens a frame hears: ahead (default), centred; see sdtalk/speech/hubert/windows.py",
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare the result with the file, and GPU with CPU"
    )
    return parser


def assets_parser() -> Parser:
    """Arguments of `sdtalk assets`."""
    parser = Parser("sdtalk assets", description="Store files that cannot come with the package.")
    parser.add_argument("action", choices=["add"])
    parser.add_argument("asset", choices=["flame", "hubert", "lpips", "syncnet", "arcface"])
    parser.add_argument("files", nargs="+", help="what you downloaded: files, or HuBERT's folder")
    return parser


def demo_parser() -> Parser:
    """Arguments of `sdtalk demo`."""
    parser = Parser("sdtalk demo", description="Open the page in which a portrait is made to speak.")
    more = "a folder or user/name on the Hub to offer besides the models found; the first is the default"
    parser.add_argument("--model", action="append", default=[], help=more)
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
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
    parser.add_argument(
        "--compile", action="store_true", help="compile the networks; takes minutes, for long videos on a GPU"
    )
