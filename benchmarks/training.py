"""Benchmark of a training step, and what follows for HDTF: `python benchmarks/training.py [--size base] [--steps 2]`.

Runs real steps (forward, backward, Adam) of both stages at true size on the example portrait, with random weights for
base and made-up FLAME vertices, HuBERT tokens and perceptual weights, so that no file has to be fetched. Counts their
floating-point operations, measures their time on this machine, and works out the time of the paper's schedule on GPUs
from the operations and an assumed rate (`--tflops`), which nobody measured here.
"""

import argparse
import resource
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sdtalk.process import tune_process

tune_process()

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdtalk.image import read_picture
from sdtalk.tracking.head_track import COMPLETION_POINTS, Portrait
from sdtalk.tracking.tracker import Tracker
from training import loss_terms
from training.initial_model import initial_model
from training.published_perceptual import FacePerceptualLoss
from training.settings import read_settings
from training.train import make_stage_and_optimiser, set_learning_rates
from training.train_settings import TrainSettings

ROOT = Path(__file__).parent.parent
FLAME_VERTICES = 5023
MACHINES = (1, 8, 64)
PAPER_STEPS, PAPER_BATCH = 200_000, {1: 4, 2: 2}


def settings_of(size: str, stage: int) -> TrainSettings:
    """The project's own settings, beginning from nothing where a file would be needed."""
    changes = ["start=mini"] if size == "mini" else ["start=null", "backbone=random", "precision=fp32"]
    return read_settings(ROOT / "training" / "configs" / f"{size}_stage{stage}.yaml", TrainSettings, changes)


def batch_of(person: Portrait, size: str) -> dict[str, Tensor]:
    """One sample: the portrait from itself, at a made-up moment of speech."""
    track, chance = person.track, torch.Generator().manual_seed(0)
    batch: dict[str, Tensor] = {}
    for name in ("source", "target"):
        batch |= {
            f"{name}_image": person.image,
            f"{name}_mask": person.mask,
            f"{name}_pose": track.camera.world_to_camera,
            f"{name}_mesh": track.mesh,
            f"{name}_eyes": track.eyes,
            f"{name}_points": track.completion_points,
            f"{name}_mouth": torch.randn(1, 5, generator=chance),
        }
    base = size == "base"
    spread = torch.randint(track.mesh.shape[1], (FLAME_VERTICES,), generator=chance)
    batch["target_vertices"] = track.mesh[:, spread] if base else track.mesh[:, :468]
    batch["target_sound"] = torch.randn(1, *((16, 1024) if base else (37, 80)), generator=chance)
    batch["target_own_speech"] = torch.ones(1)
    batch["window_offset"] = torch.full((1, 2), 0.5)
    if base:
        batch["completion_rows"] = torch.arange(COMPLETION_POINTS)
    return batch


def measured(size: str, stage: int, person: Portrait, steps: int) -> tuple[float, float]:
    """Floating-point operations and median seconds of a step with one sample."""
    settings = settings_of(size, stage)
    network, optimiser = make_stage_and_optimiser(initial_model(settings), settings)
    batch, seconds, operations = batch_of(person, size), [], 0
    for step in range(steps + 2):
        set_learning_rates(optimiser, settings, step)
        counter = FlopCounterMode(display=False)
        start = time.perf_counter()
        with counter if step == 0 else nullcontext():  # counting takes longer than computing
            losses = network(batch)
            losses.pop("pictures"), losses.pop("psnr")
            torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - start)
        operations = operations or counter.get_total_flops()
    return operations, sorted(seconds[2:])[steps // 2]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("mini", "base", "both"), default="both")
    parser.add_argument("--steps", type=int, default=1, help="steps that are timed, after two")
    parser.add_argument("--tflops", type=float, default=100.0, help="assumed of one GPU in these networks")
    arguments = parser.parse_args()
    # as where LPIPS or the authors' networks are installed: the features cost what they cost with any weights
    found = loss_terms._features
    loss_terms._features = lambda s: ("published", FacePerceptualLoss()) if s.size == "base" else found(s)
    person = Tracker.from_bundled().portrait(
        read_picture(ROOT / "examples" / "eileen_collins.png").pixels, "example"
    )
    print(
        "| size | stage | TFLOP a sample | s a sample here | GFLOP/s here |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    costs = {}
    for size in ("mini", "base") if arguments.size == "both" else (arguments.size,):
        for stage in (1, 2):
            operations, seconds = measured(size, stage, person, arguments.steps)
            costs[size, stage] = operations
            rate = operations / seconds / 1e9
            print(f"| {size} | {stage} | {operations / 1e12:.2f} | {seconds:.2f} | {rate:.0f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"\npeak memory {peak:.1f} GB")
    if ("base", 1) not in costs:
        return
    print(f"\nThe paper's schedule at {arguments.tflops:.0f} TFLOP/s a GPU, networks alone:\n")
    print(
        "| stage | samples | " + " | ".join(f"{n} GPU" for n in MACHINES) + " |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    for stage, batch in PAPER_BATCH.items():
        samples = PAPER_STEPS * batch
        hours = [samples * costs["base", stage] / (n * arguments.tflops * 1e12) / 3600 for n in MACHINES]
        print(f"| {stage} | {samples:,} | " + " | ".join(f"{h:.1f} h" for h in hours) + " |")


if __name__ == "__main__":
    main()
