"""Fitting of window painters: pixels, edges and features first, then a critic of detail as well; resumable."""

import json
import math
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TextIO

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdtalk.rendering.window_inputs import DISTANCE_PX, WindowInputs
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.rendering.window_renderer import EYE_WIDTH, MOUTH_WIDTH
from training.mini.painter_batches import WINDOWS, batches, inputs_to
from training.mini.painter_data import FaceCrops
from training.mini.painter_losses import (
    Critic,
    FeatureLoss,
    critic_loss,
    evenness_loss,
    patch_weight,
    pixel_losses,
    pixel_weight,
    shade_loss,
)
from training.mini.painter_report import report_pairs, score_windows, summary

WIDTHS = {"mouth": MOUTH_WIDTH, "eyes": EYE_WIDTH}
FEATURE_WEIGHT = 0.15
EVENNESS_WEIGHT = 0.1
EMA = 0.998
WARMUP_STEPS = 60
CRITIC_ALONE = 50
"""Steps in which the critic learns and the painter waits."""

CRITIC_RAMP = 400
"""Steps over which the critic's share grows."""


@dataclass(frozen=True)
class PainterSettings:
    """What a run does.

    Attributes:
        steps: In all.
        batch: Windows a step.
        rate: Largest learning rate.
        critic_from: Step from which the critic takes part.
        critic_share: Length of its gradient at the picture, over that of the other losses.
        seed: Of everything random.
        every: Steps between checkpoints and reports.
        only_silent: Learn only to light what a photo does not show, and stay elsewhere with what the run starts from.
        workers: Processes that draw pairs, for a GPU; 0: a thread.
        max_seconds: The run ends, and its rate has fallen, after so many seconds, if not by its steps.
    """

    steps: int = 8000
    batch: int = 24
    rate: float = 8e-4
    critic_from: int = 3500
    critic_share: float = 0.4
    seed: int = 0
    every: int = 500
    only_silent: bool = False
    workers: int = 0
    max_seconds: float | None = None


class PainterRun:
    """A training run: networks, optimisers, and the step they are at."""

    def __init__(
        self,
        name: str,
        settings: PainterSettings,
        device: torch.device | str = "cpu",
        start: WindowPainter | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.window, self.settings, self.device = WINDOWS[name], settings, torch.device(device)
        self.step, self.elapsed = 0, 0.0
        self.painter = WindowPainter(self.window, WIDTHS[name])
        if start is not None:
            self.painter.load_state_dict(start.state_dict())
        self.before = (
            deepcopy(self.painter).requires_grad_(False).to(self.device) if settings.only_silent else None
        )
        self.painter.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WindowPainter(self.window, WIDTHS[name]).requires_grad_(False).to(self.device)
        self.average.load_state_dict(self.painter.state_dict())
        self.critic, self.features = Critic().to(self.device), FeatureLoss().to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.painter.parameters(), settings.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.critic_optimiser = torch.optim.AdamW(self.critic.parameters(), 4e-4, betas=(0.5, 0.98))

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "painter": self.painter, "average": self.average, "critic": self.critic,
            "optimiser": self.optimiser, "critic_optimiser": self.critic_optimiser,
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write a checkpoint, and the averaged painter beside it."""
        state = {"step": self.step} | {name: part.state_dict() for name, part in self._parts().items()}
        torch.save(state, folder / "checkpoint.partial")
        (folder / "checkpoint.partial").rename(folder / "checkpoint.pt")
        save_file(self.average.state_dict(), folder / "painter.safetensors")

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint, where there is one."""
        path = folder / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True, map_location=self.device)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def learn(self, inputs: WindowInputs, target: Tensor) -> dict[str, float]:
        """One step on a batch; the losses by name."""
        s, step = self.settings, self.step
        inputs, target = inputs_to(inputs, self.device), target.to(self.device)
        since_critic = step - s.critic_from
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * _schedule(step, self._progress())
        correction = self._correction(self.painter, inputs)
        picture = inputs.painted(correction)
        wanted = target
        if self.before is not None:
            with torch.no_grad():
                wanted = inputs.painted(self._correction(self.before, inputs))
        # outside the mask the real picture: no edge to be seen
        seen = torch.lerp(wanted, picture, inputs.mask)
        weight = pixel_weight(inputs.mask, DISTANCE_PX * inputs.distances[:, 1:])
        plain, edges = pixel_losses(picture, wanted, weight * (1 - inputs.silent))
        plain = plain + shade_loss(picture, target, inputs.silent, weight)
        with torch.autocast(self.device.type, torch.bfloat16):
            features = self.features(torch.lerp(seen, wanted, inputs.silent), wanted)
        losses = {"pixels": plain, "edges": edges, "features": features}
        (gradient,) = torch.autograd.grad(
            plain + edges + FEATURE_WEIGHT * features, picture, retain_graph=True
        )
        if since_critic >= 0:
            # elsewhere the painter could not do better
            free = inputs.silent if self.before is not None else inputs.detail.maximum(inputs.silent)
            weight = weight * free
            losses["critic"] = self._teach_critic(inputs, seen.detach(), target, weight)
            share = s.critic_share * min(max((since_critic - CRITIC_ALONE) / CRITIC_RAMP, 0.0), 1.0)
            losses["fooled"], towards_real = self._judged(inputs, seen, picture, weight)
            factor = share * gradient.norm() / towards_real.norm().clamp_min(1e-12)
            gradient = gradient + factor * towards_real
        if not 0 <= since_critic < CRITIC_ALONE:
            self.optimiser.zero_grad()
            losses["uneven"] = evenness_loss(correction, inputs.silent)
            torch.autograd.backward((picture, EVENNESS_WEIGHT * losses["uneven"]), (gradient, None))
            nn.utils.clip_grad_norm_(self.painter.parameters(), 1.0)
            self.optimiser.step()
            with torch.no_grad():
                for slow, fast in zip(self.average.parameters(), self.painter.parameters(), strict=True):
                    slow.lerp_(fast, 1 - min(EMA, (step + 1) / (step + 10)))
        self.step += 1
        losses["moved"] = ((picture - inputs.base).abs() * inputs.mask).sum() / inputs.mask.sum() / 3
        return {name: float(value.detach()) for name, value in losses.items()}

    def _correction(self, painter: WindowPainter, inputs: WindowInputs) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return painter(inputs.planes.to(memory_format=torch.channels_last), inputs.numbers).float()

    def _teach_critic(self, inputs: WindowInputs, painted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            both = self.critic(torch.cat([target, painted]), inputs.distances.repeat(2, 1, 1, 1)).float()
        real, made = both.chunk(2)
        loss = critic_loss(real, made, patch_weight(weight, real))
        self.critic_optimiser.zero_grad()
        loss.backward()
        self.critic_optimiser.step()
        return loss.detach()

    def _judged(
        self, inputs: WindowInputs, seen: Tensor, picture: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the critic says of the painted windows, and the gradient of that at the pictures."""
        with torch.autocast(self.device.type, torch.bfloat16):
            score = self.critic(seen, inputs.distances).float()
        patches = patch_weight(weight, score)
        loss = -(score * patches).sum() / patches.sum().clamp_min(1)
        (gradient,) = torch.autograd.grad(loss, picture, retain_graph=True)
        return loss.detach(), gradient

    @torch.no_grad()
    def paint(self, inputs: WindowInputs) -> Tensor:
        """Finished windows of the averaged painter, on the CPU."""
        inputs = inputs_to(inputs, self.device)
        return inputs.painted(self.average(inputs.planes, inputs.numbers)).cpu()

    def _progress(self) -> float:
        """How much of the run is over, by its steps or by its time."""
        by_time = self.elapsed / self.settings.max_seconds if self.settings.max_seconds else 0.0
        return min(1.0, max(self.step / self.settings.steps, by_time))


def _schedule(step: int, progress: float) -> float:
    """Warm-up, then a cosine down to a twentieth."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    name: str,
    clips: list[FaceCrops],
    dev: list[FaceCrops],
    settings: PainterSettings,
    folder: Path,
    device: torch.device | str = "cpu",
    start: WindowPainter | None = None,
) -> None:
    """Train to the end, or on from the folder's checkpoint.

    Args:
        name: Which window: "mouth" or "eyes".
        clips: What is learned from.
        dev: People on whom it is measured.
        settings: What the run does.
        folder: Where its results go.
        device: Where it learns; pairs are drawn on the CPU.
        start: Weights to begin with; None: random ones.
    """
    run = PainterRun(name, settings, device, start)
    run.resume(folder)
    checks = report_pairs(dev, run.window)
    log = (folder / "metrics.jsonl").open("a", encoding="utf-8")
    begun, sums = time.monotonic(), dict[str, float]()

    def report() -> None:
        scores = [score for pairs in checks for score in score_windows(run.window, pairs, run.paint)]
        print(f"step {run.step}, {time.monotonic() - begun:.0f} s: {summary(scores)}", flush=True)
        if scores:
            _write(log, {"step": run.step, "dev_psnr": fmean(score.psnr for score in scores)})

    if start is not None and run.step == 0:
        report()
    # a resumed run sees other pairs than those it has learned from
    stream = batches(name, clips, settings.seed + 1000 * run.step, settings.batch, settings.workers)
    over = False
    while run.step < settings.steps and not over:
        run.elapsed = time.monotonic() - begun
        inputs, target = next(stream)
        for key, value in run.learn(inputs, target).items():
            sums[key] = sums.get(key, 0.0) + value / 50
        if run.step % 50 == 0:
            _write(log, {"step": run.step, "seconds": round(time.monotonic() - begun, 1)} | sums)
            sums = {}
        over = settings.max_seconds is not None and time.monotonic() - begun >= settings.max_seconds
        if run.step % settings.every == 0 or run.step == settings.steps or over:
            run.save(folder)
            report()
    stream.close()


def _write(log: TextIO, line: dict[str, float]) -> None:
    log.write(json.dumps(line) + "\n")
    log.flush()
