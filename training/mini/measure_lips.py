"""Measure the ears of models: how well the mouths they hear follow those of people they never saw.

    python -m training.mini.measure_lips --clips data/samples data/samples2 --models mini OTHER/FOLDER

Only models whose audio code is a mouth code can be compared. Openings in made-up silence and hiss show how still the
mouth would be without the rule that holds it in pauses.
"""

import argparse
import sys

import numpy as np
import torch

from sdtalk.checkpoint import load_model
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ
from sdtalk.speech.encoder import SpeechEncoder
from training.data.dataset import PreparedDataset
from training.mini.lips_data import coloured_noise, load_clips
from training.mini.lips_report import print_report


def speech_encoder(source: str) -> SpeechEncoder:
    """The ears of a model.

    Raises:
        InputError: It cannot be read, or does not say how the mouth stands.
    """
    model = load_model(source)
    if not model.config.hears_mouth_codes:
        raise InputError(source, "its audio code is no mouth code", "Give models like `mini`.")
    return SpeechEncoder.for_model(model, "cpu")


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", nargs="+", required=True, help="folders that prepare.py wrote")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--models", nargs="+", default=["mini"])
    arguments = parser.parse_args(argv)
    try:
        encoders = {source: speech_encoder(source) for source in arguments.models}
        sets = {
            source: load_clips(PreparedDataset.open(source), arguments.split)[0] for source in arguments.clips
        }
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    for name, encoder in encoders.items():
        for source, clips in sets.items():
            print_report(f"{name} on {source}", clips, [encoder.codes(clip.audio) for clip in clips])
        everyone = [clip for clips in sets.values() for clip in clips]
        print_report(f"{name} on all", everyone, [encoder.codes(clip.audio) for clip in everyone])
        quiet = {
            "digital silence": torch.zeros(4 * SAMPLE_RATE_HZ),
            "hiss at -60 dB": coloured_noise(4, 0.0, np.random.default_rng(0)) / 50,
        }
        for what, sound in quiet.items():
            opening = encoder.codes(sound)[:, 0]
            print(f"  {what}: opening {opening.mean():.3f}, moves by {opening.std():.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
