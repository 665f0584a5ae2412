"""Stage 0, mini only: train both motion fields on the geometry of talking, without rendering anything.

The tracked mesh says where every point of the face goes when the mouth code and the eye state change. Regressing
that displacement at millions of points takes minutes on a CPU, and leaves to the rendering stages what a mesh cannot
say: opacities, shapes, and what happens inside the mouth.

    python -m training.mini.train_motion data/prepared CHECKPOINT_DIR -o OUTPUT_DIR [--steps 6000]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import trange

from sdtalk.checkpoint import load_model
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.driving import GAPS
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel
from training.data.dataset import PreparedDataset
from training.mini.geometry_loss import (
    Batch,
    SurfaceSampler,
    completion_field,
    completion_loss,
    surface_loss,
    with_code_noise,
)

PAIRS = 24
BLINK_SHARE, BLINK_GAP = 0.3, 0.6


class TrackPairSampler:
    """The tracks of all clips of a split; pictures and sound stay on disk."""

    def __init__(self, prepared: PreparedDataset, split: str) -> None:
        entries = prepared.index.of(split)
        if not entries:
            problem = f"it has no clips of the split {split!r}"
            raise InputError(prepared.store.source, problem, "Give another --split.")
        clips = [prepared.clip(entry) for entry in entries]
        self.tracks = [{"mesh": c.mesh, "mouth": c.mouth, "eyes": c.eyes} for c in clips]
        self.blinks = [blink_frames(c.eyes) for c in clips]
        chance = np.array([len(c.mesh) for c in clips], dtype=float) ** 0.5
        self.chance = chance / chance.sum()

    def pairs(self, random: np.random.Generator) -> Batch:
        """Source and target mesh, mouth code, eye state and completion points of random frames of the same clip."""
        drawn: list[dict[str, Tensor]] = []
        for index in random.choice(len(self.tracks), PAIRS, p=self.chance):
            track, blinks = self.tracks[index], self.blinks[index]
            pair = torch.from_numpy(random.choice(len(track["mesh"]), 2))
            if len(blinks) and random.random() < BLINK_SHARE:
                pair[1] = blinks[random.integers(len(blinks))]
            drawn.append({name: values[pair] for name, values in track.items()})
        batch = {}
        for side, name in enumerate(("source", "target")):
            batch |= {f"{name}_{key}": torch.stack([d[key][side] for d in drawn]) for key in drawn[0]}
            batch[f"{name}_points"] = CompletionTemplate.bundled().place(batch[f"{name}_mesh"])
        return batch


def blink_frames(eyes: Tensor) -> Int[Tensor, " frame"]:
    """Frames in which the lids are much closer than usual: too rare to be learned from if drawn like others."""
    gaps = eyes[:, GAPS].mean(1)
    return (gaps < BLINK_GAP * gaps.median()).nonzero()[:, 0]


def train(model: SDTalk, tracks: TrackPairSampler, steps: int, rate: float, seed: int) -> None:
    """Fit both fields to the tracks."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    face, generator = FaceModel.bundled(), torch.Generator().manual_seed(seed)
    sampler = SurfaceSampler(face)
    completion = CompletionTemplate.bundled().place(face.canonical_face[None])[0]
    fields, inner = model.motion_fields, completion_field(model)
    tables = [p for f in fields for p in f.encoding.parameters()]
    others = [p for f in fields for n, p in f.named_parameters() if "encoding" not in n]
    optimiser = torch.optim.Adam([{"params": tables}, {"params": others}], betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=[rate * 1e-2, rate * 2e-3], total_steps=steps, pct_start=0.1
    )
    progress = trange(steps)
    for _ in progress:
        batch = tracks.pairs(random)
        batch |= with_code_noise(batch, [generator] * PAIRS)
        surface = surface_loss(model.coarse_field, sampler.draw([generator]), batch)
        inside = surface.new_zeros(()) if inner is None else completion_loss(inner, completion, batch)
        optimiser.zero_grad()
        (surface + inside).backward()
        optimiser.step()
        schedule.step()
        progress.set_postfix(surface=f"{surface.item():.3f}", inside=f"{inside.item():.3f}")


def main(argv: list[str] | None = None) -> int:
    """Train both fields on the tracks of prepared clips; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prepared", help="folder that prepare.py wrote, or hf://datasets/USER/NAME")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument(
        "--rate", type=float, default=1.0, help="factor of the learning rates, less to refine"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    try:
        tracks = TrackPairSampler(PreparedDataset.open(arguments.prepared), arguments.split)
        model = load_model(arguments.checkpoint).requires_grad_(True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    train(model, tracks, arguments.steps, arguments.rate, arguments.seed)
    model.save_pretrained(arguments.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
