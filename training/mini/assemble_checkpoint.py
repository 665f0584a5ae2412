r"""Put a checkpoint of mini together: parts that were trained by themselves, in untrained weights or in a checkpoint.

    python -m training.mini.assemble_checkpoint runs/start --audio-encoder audio_encoder.safetensors
    python -m training.mini.assemble_checkpoint runs/mini --start runs/mini_stage2/model \
        --mouth runs/mouth/painter.safetensors --eyes runs/eyes/painter.safetensors

The order of the whole training of mini: prepare, train_lips, assemble_checkpoint, train_motion, train with
mini_stage1.yaml, train with mini_stage2.yaml, train_painter for mouth and eyes, assemble_checkpoint, evaluate.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from sdtalk.checkpoint import load_model, locate
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.rendering.window_painter import WindowPainter
from training.mini.lips_fit import read_encoder


def read_painter(painter: WindowPainter, path: Path) -> None:
    """Load a painter's weights, as `training/mini/train_painter.py` writes them.

    Raises:
        InputError: There are none, they are damaged, or of another painter.
    """
    try:
        painter.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "Give what training/mini/train_painter.py wrote for this window."
        raise InputError(str(path), f"no painter can be read from it ({reason})", remedy) from error


def with_window_renderer(model: SDTalk) -> SDTalk:
    """The same model with a window renderer, untrained where it had another neural renderer."""
    if model.config.neural_renderer == "windows":
        return model
    if not model.config.priors:
        problem = "it is a model without priors, which has no face mesh to paint on"
        raise InputError("--start", problem, "Give a checkpoint of mini.")
    changed = SDTalk(replace(model.config, neural_renderer="windows"))
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("neural_renderer.")}
    changed.load_state_dict(kept, strict=False)
    return changed


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint; 2 where a part cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--start", help="mini, a folder, or USER/NAME on the Hub; without it: untrained weights"
    )
    parser.add_argument("--audio-encoder", type=Path, help="weights from train_lips.py")
    parser.add_argument("--mouth", type=Path, help="weights of the mouth's painter, from train_painter.py")
    parser.add_argument("--eyes", type=Path, help="weights of the eyes' painter, from train_painter.py")
    parser.add_argument("--seed", type=int, default=0, help="of untrained weights")
    arguments = parser.parse_args(argv)
    torch.manual_seed(arguments.seed)
    try:
        model = SDTalk(SDTalkConfig())
        if arguments.start is not None:
            model = with_window_renderer(load_model(locate(arguments.start), "cpu"))
        if arguments.audio_encoder is not None:
            model.audio_encoder = read_encoder(arguments.audio_encoder)
        for painter, path in (
            (model.neural_renderer.mouth, arguments.mouth),
            (model.neural_renderer.eyes, arguments.eyes),
        ):
            if path is not None:
                read_painter(painter, path)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    model.save_pretrained(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
