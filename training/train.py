"""Stage 1 (reconstruction) and stage 2 (motion) of the paper, for mini, on prepared clips.

    python -m training.train 1 data/prepared CHECKPOINT_DIR -o runs/stage1 --steps 1500
    python -m training.train 2 data/prepared runs/stage1    -o runs/stage2 --steps 1000

The run folder holds config.json + model.safetensors (what `SDTalkPipeline.from_pretrained` loads), the state to
continue from (the same command continues), losses.csv and contact sheets. Stopping at any moment loses at most the
steps since the last save.
"""

import argparse
import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from sdtalk.camera import FRAME_SIZE
from sdtalk.image import to_frames
from sdtalk.model import SDTalk
from sdtalk.tracking.head_track import COMPLETION_POINTS, MESH_POINTS, HeadTrack
from training.dataset import FramePairs, load_clips, track_of
from training.losses import (
    FaceNetworkLoss,
    gradient_loss,
    image_loss,
    lifting_loss,
    lip_points,
    lip_weight,
)

LOSS_WEIGHTS = {
    "image": 1.0,
    "rasterised": 0.5,
    "edges": 0.5,
    "alpha": 0.2,
    "perceptual": 0.5,
    "lips": 2.0,
    "lifting": 1.0,
}
LIP_BOX_WEIGHT = 5.0
RATES = {
    1: {"reconstructor": 3e-4, "neural_renderer": 3e-4},
    2: {"fields": 5e-5, "tables": 3e-4, "neural_renderer": 1e-4},
}
LIFTING_STEP = 8  # every n-th vertex: the prior depth starts on the mesh, the loss only has to keep it there
SURFACE_POINTS = MESH_POINTS - 10  # without the irises
WINDOW_PX = 320
WARMUP_STEPS = 50
MAX_GRAD_NORM = 1.0


class Stage(nn.Module):
    """A stage's forward pass; what is not trained in it is frozen."""

    def __init__(self, model: SDTalk, stage: int) -> None:
        super().__init__()
        self.model, self.stage = model, stage
        self.face_network = FaceNetworkLoss()
        self.requires_grad_(False)
        for module in self.trained():
            module.requires_grad_(True)

    def trained(self) -> list[nn.Module]:
        """The modules this stage trains."""
        m = self.model
        if self.stage == 1:
            return [m.reconstructor, m.neural_renderer]
        return [m.coarse_field, m.fine_field, m.neural_renderer]

    def parameter_groups(self) -> list[dict]:
        """Parameters with their learning rates."""
        m, rates = self.model, RATES[self.stage]
        groups = [{"params": list(m.neural_renderer.parameters()), "lr": rates["neural_renderer"]}]
        if self.stage == 1:
            return [*groups, {"params": list(m.reconstructor.parameters()), "lr": rates["reconstructor"]}]
        fields = [m.coarse_field, m.fine_field]
        tables = [p for f in fields for p in f.encoding.parameters()]
        others = [p for f in fields for n, p in f.named_parameters() if not n.startswith("encoding")]
        return [*groups, {"params": tables, "lr": rates["tables"]}, {"params": others, "lr": rates["fields"]}]

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Render the target frame from the source frame, with the target's measured mouth, and compare.

        Returns:
            Rasterised, refined and real window side by side, and the weighted losses.
        """
        source, target = track_of(batch, "source"), track_of(batch, "target")
        with torch.set_grad_enabled(self.stage == 1):
            head = self.model.reconstruct(batch["source_image"], batch["source_mask"], source)
        if self.stage == 2:
            head = self.model.recoded(head)
        head = replace(head, audio_code=batch["source_mouth"])
        left, top = face_window(target, batch["window"][0])
        camera = target.camera.window(left, top, WINDOW_PX)
        frame = self.model(head, batch["target_mouth"], target.eyes, camera)
        here = (..., slice(top, top + WINDOW_PX), slice(left, left + WINDOW_PX))
        mask = batch["target_mask"][here]
        wanted = batch["target_image"][here] * mask
        projected = camera.project(target.mesh)
        weight = lip_weight(lip_points(projected), wanted.shape[-1], LIP_BOX_WEIGHT)
        perceptual, lips = self.face_network(frame.colours, wanted, projected)
        losses = {
            "image": image_loss(frame.colours, wanted, weight),
            "rasterised": image_loss(frame.rasterised, wanted, weight),
            "edges": gradient_loss(frame.colours, wanted, weight),
            "alpha": (frame.alpha - mask).abs().mean(),
            "perceptual": perceptual,
            "lips": lips,
        }
        if self.stage == 1:
            lifted = head.gaussians.means[:, COMPLETION_POINTS:][:, head.moving]
            losses["lifting"] = lifting_loss(source.mesh[:, :SURFACE_POINTS:LIFTING_STEP], lifted)
        return torch.cat([frame.rasterised, frame.colours, wanted], dim=-1), {
            name: LOSS_WEIGHTS[name] * value for name, value in losses.items()
        }


def face_window(target: HeadTrack, play: Tensor) -> tuple[int, int]:
    """Left and top of a window around the first face, moved within its free play: it costs a third of a frame."""
    points = target.camera.project(target.mesh[:, :SURFACE_POINTS])[0]
    low, high = points.amin(0).clamp(0, FRAME_SIZE), points.amax(0).clamp(0, FRAME_SIZE)
    free = (WINDOW_PX - (high - low)).clamp_min(0)
    corner = (low - play * free).clamp(0, FRAME_SIZE - WINDOW_PX)
    return int(corner[0]), int(corner[1])


def rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to a tenth (paper)."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (1 - 0.9 * step / steps)


def save(run: Path, model: SDTalk, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write weights and state; the old ones stay until the new ones are complete."""
    model.save_pretrained(run)
    partial = run / "state.pt.partial"
    torch.save({"optimiser": optimiser.state_dict(), "step": step, "model": model.state_dict()}, partial)
    os.replace(partial, run / "state.pt")


def contact_sheet(run: Path, step: int, pictures: Tensor) -> None:
    """Rasterised, refined and real windows side by side."""
    Image.fromarray(np.concatenate(list(to_frames(pictures.detach())))).save(
        run / f"step{step:06d}.jpg", quality=90
    )


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", type=int, choices=(1, 2))
    parser.add_argument("prepared", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run: Path = arguments.output
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    model = SDTalk.from_pretrained(arguments.checkpoint)
    stage = Stage(model, arguments.stage)
    optimiser = torch.optim.Adam(stage.parameter_groups(), betas=(0.9, 0.99))
    schedule = [group["lr"] for group in optimiser.param_groups]
    start = 0
    if (run / "state.pt").is_file():
        state = torch.load(run / "state.pt", weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    pairs = FramePairs(load_clips(arguments.prepared), arguments.steps * arguments.batch, arguments.seed)
    rest = torch.utils.data.Subset(pairs, range(start * arguments.batch, len(pairs)))
    with (run / "losses.csv").open("a", newline="", encoding="utf-8") as log:
        writer = csv.writer(log)
        progress = tqdm(DataLoader(rest, batch_size=arguments.batch), initial=start, total=arguments.steps)
        for step, batch in enumerate(progress, start):
            for group, rate in zip(optimiser.param_groups, schedule, strict=True):
                group["lr"] = rate * rate_factor(step, arguments.steps)
            pictures, losses = stage(batch)
            optimiser.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            nn.utils.clip_grad_norm_([p for p in stage.parameters() if p.requires_grad], MAX_GRAD_NORM)
            optimiser.step()
            writer.writerow([step, *(f"{name}={value.item():.5f}" for name, value in losses.items())])
            progress.set_postfix({name: f"{value.item():.3f}" for name, value in losses.items()})
            if (step + 1) % arguments.save_every == 0 or step + 1 == arguments.steps:
                save(run, model, optimiser, step + 1)
                contact_sheet(run, step + 1, pictures)
                log.flush()


if __name__ == "__main__":
    main()
