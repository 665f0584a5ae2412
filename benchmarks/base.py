"""Benchmark of bfloat16 in the paper's full model: what it saves and costs, with random weights of the true sizes.

    python benchmarks/base.py

Prints seconds of computing per second of speech for HuBERT, and how far a frame in bfloat16 lies from one in float32.
"""

import time
from pathlib import Path

import torch

from sdtalk.cli.untrained import untrained_base
from sdtalk.image import read_picture
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech
from sdtalk.tracking.head_track import Portrait

EXAMPLES = Path(__file__).parent.parent / "examples"


def frame(pipeline: SDTalkPipeline, person: Portrait) -> torch.Tensor:
    """The example portrait at a made-up moment of speech, RGB in [0, 1]."""
    model = pipeline.model
    windows = torch.randn(1, 16, model.config.audio_width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        head = pipeline.reconstruct_tracked(person)
        moved = model.animate(head, model.encode_audio(windows), head.eyes)
        return model.render(head, moved, person.track.camera).colours


def main() -> None:
    """Measure."""
    samples = read_speech(EXAMPLES / "sense_and_sensibility.wav").samples
    frames = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)  # the same random weights
        pipeline = untrained_base("cpu", str(dtype).removeprefix("torch."))
        person = pipeline.tracker.portrait(read_picture(EXAMPLES / "eileen_collins.png").pixels, "example")
        frames[dtype] = frame(pipeline, person)
        start = time.perf_counter()
        for _ in pipeline.speech_encoder.hubert.tokens(samples):
            pass
        share = (time.perf_counter() - start) / (len(samples) / SAMPLE_RATE_HZ)
        print(f"{dtype}: HuBERT {share:.2f} s a second of speech")
    error = (frames[torch.float32] - frames[torch.bfloat16]).abs()
    print(f"frame in bfloat16 against float32: {error.mean():.1e} in the mean, {error.max():.1e} at most")


if __name__ == "__main__":
    main()
