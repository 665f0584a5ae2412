"""Make the initial checkpoint of mini: untrained weights, with an audio encoder that was trained by itself.

    python -m training.mini.initial_checkpoint runs/start [--audio-encoder audio_encoder.safetensors] [--seed 0]

The order of the whole training of mini: prepare, train_lips, initial_checkpoint, train_motion, train
with mini_stage1.yaml, train with mini_stage2.yaml, evaluate.
"""

import argparse
import sys
from pathlib import Path

import torch

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from training.mini.lips_fit import read_encoder


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint; 2 where the audio encoder cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--audio-encoder", type=Path, help="weights from train_lips.py")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    torch.manual_seed(arguments.seed)
    model = SDTalk(SDTalkConfig())
    if arguments.audio_encoder is not None:
        try:
            model.audio_encoder = read_encoder(arguments.audio_encoder)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return USER_ERROR
    model.save_pretrained(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
