"""Network cost: operations and least bytes of one frame of a model, to hold against a roofline; prints JSON.

Counted are products and convolutions of the networks that run for every frame. The rasteriser's own arithmetic is not.
"""

import argparse
import json
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdtalk.camera import FRAME_SIZE
from sdtalk.cli.bench import UNTRAINED
from sdtalk.cli.untrained import untrained_base
from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.audio import SAMPLE_RATE_HZ
from sdtalk.weights.assets import example

FLOAT_BYTES = 4
NUMBERS_OF_A_GAUSSIAN = 3 + 4 + 3 + 1
"""Mean, quaternion, scale and opacity; features come on top."""


def main() -> None:
    """Count, and print what was found by model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="checkpoints; base: the full model, untrained")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    found = {name: model_cost(name, arguments.device) for name in arguments.models}
    print(json.dumps(found, indent=1))


def model_cost(name: str, device: str) -> dict[str, Any]:
    """Cost of a frame of the bundled portrait."""
    load = untrained_base if name == UNTRAINED else SDTalkPipeline.from_pretrained
    pipeline = load(device=device) if name == UNTRAINED else load(name, device)
    head = pipeline.reconstruct(str(example("eileen_collins.png")))
    silence = torch.zeros(SAMPLE_RATE_HZ // 5)
    signals = pipeline.talk(head, silence, sampling_rate=SAMPLE_RATE_HZ).signals[:1]
    return frame_cost(pipeline.model, head.gaussians, signals)


@torch.no_grad()  # not inference mode, in which the counter misses what is one operation there
def frame_cost(model: SDTalk, head: HeadGaussians, signals: DrivingSignals) -> dict[str, Any]:
    """GFLOP of the fields and of the neural renderer, and the least MB that a frame has to move.

    Args:
        model: The model that made the head.
        head: Who.
        signals: Of one frame.
    """
    signals = signals.to(head.eyes.device)
    with FlopCounterMode(display=False) as motion:
        animated = model.animate(head, signals.audio_code, signals.eyes, signals.small_motion)
    with FlopCounterMode(display=False) as rendering:
        model.render(head, animated, signals.camera)
    count, channels = head.gaussians.features.shape[-2:]
    weights = sum(
        p.numel() * p.element_size() for network in model.frame_networks for p in network.parameters()
    )
    # Gaussians read, the picture of features and alpha written and read again, weights read, three bytes a pixel out
    pixels = FRAME_SIZE**2
    least = (
        count * (NUMBERS_OF_A_GAUSSIAN + channels) * FLOAT_BYTES + 2 * pixels * (channels + 1) * FLOAT_BYTES
    )
    return {
        "precision": str(model.precision).removeprefix("torch."),
        "gaussians": count,
        "channels": channels,
        "motion_gflop": motion.get_total_flops() / 1e9,
        "rendering_gflop": rendering.get_total_flops() / 1e9,
        "least_mb": (least + weights + 3 * pixels) / 1e6,
    }


if __name__ == "__main__":
    main()
