"""Fitting of window painters: pixels, edges and features first, then a critic of detail as well; resumable."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_inputs import DISTANCE_PX, WindowInputs, window_inputs
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.rendering.window_renderer import EYE_WIDTH, MOUTH_WIDTH
from training.mini.painter_data import FaceCrops, Pairs, PairSampler
from training.mini.painter_losses import (
    Critic,
    FeatureLoss,
    critic_loss,
    patch_weight,
    pixel_losses,
    pixel_weight,
    shade_loss,
)
from training.mini.painter_report import report_pairs, score_windows, summary

WINDOWS = {"mouth": MOUTH, "eyes": RIGHT_EYE}
WIDTHS = {"mouth": MOUTH_WIDTH, "eyes": EYE_WIDTH}
FEATURE_WEIGHT = 0.15
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
    """

    steps: int = 8000
    batch: int = 24
    rate: float = 8e-4
    critic_from: int = 3500
    critic_share: float = 0.4
    seed: int = 0
    every: int = 500


class PainterRun:
    """A training run: networks, optimisers, and the step they are at."""

    def __init__(self, name: str, settings: PainterSettings) -> None:
        torch.manual_seed(settings.seed)
        self.window, self.settings, self.step = WINDOWS[name], settings, 0
        self.painter = WindowPainter(self.window, WIDTHS[name]).to(memory_format=torch.channels_last)
        self.average = WindowPainter(self.window, WIDTHS[name]).requires_grad_(False)
        self.average.load_state_dict(self.painter.state_dict())
        self.critic, self.features = Critic(), FeatureLoss()
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
            state = torch.load(path, weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def learn(self, inputs: WindowInputs, target: Tensor) -> dict[str, float]:
        """One step on a batch; the losses by name."""
        s, step = self.settings, self.step
        since_critic = step - s.critic_from
        for group in self.optimiser.param_groups:
            group["lr"] = s.rate * _schedule(step, s.steps)
        picture = inputs.painted(self._correction(inputs))
        # outside the mask the real picture: no edge to be seen
        seen = torch.lerp(target, picture, inputs.mask)
        weight = pixel_weight(inputs.mask, DISTANCE_PX * inputs.distances[:, 1:])
        plain, edges = pixel_losses(picture, target, weight * (1 - inputs.silent))
        plain = plain + shade_loss(picture, target, inputs.silent, weight)
        with torch.autocast("cpu", torch.bfloat16):
            features = self.features(torch.lerp(seen, target, inputs.silent), target)
        losses = {"pixels": plain, "edges": edges, "features": features}
        (gradient,) = torch.autograd.grad(
            plain + edges + FEATURE_WEIGHT * features, picture, retain_graph=True
        )
        if since_critic >= 0:
            # elsewhere the painter could not do better
            weight = weight * inputs.detail.maximum(inputs.silent)
            losses["critic"] = self._teach_critic(inputs, seen.detach(), target, weight)
            share = s.critic_share * min(max((since_critic - CRITIC_ALONE) / CRITIC_RAMP, 0.0), 1.0)
            losses["fooled"], towards_real = self._judged(inputs, seen, picture, weight)
            factor = share * gradient.norm() / towards_real.norm().clamp_min(1e-12)
            gradient = gradient + factor * towards_real
        if not 0 <= since_critic < CRITIC_ALONE:
            self.optimiser.zero_grad()
            picture.backward(gradient)
            nn.utils.clip_grad_norm_(self.painter.parameters(), 1.0)
            self.optimiser.step()
            with torch.no_grad():
                for slow, fast in zip(self.average.parameters(), self.painter.parameters(), strict=True):
                    slow.lerp_(fast, 1 - min(EMA, (step + 1) / (step + 10)))
        self.step += 1
        losses["moved"] = ((picture - inputs.base).abs() * inputs.mask).sum() / inputs.mask.sum() / 3
        return {name: float(value.detach()) for name, value in losses.items()}

    def _correction(self, inputs: WindowInputs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.painter(inputs.planes.to(memory_format=torch.channels_last), inputs.numbers).float()

    def _teach_critic(self, inputs: WindowInputs, painted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
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
        with torch.autocast("cpu", torch.bfloat16):
            score = self.critic(seen, inputs.distances).float()
        patches = patch_weight(weight, score)
        loss = -(score * patches).sum() / patches.sum().clamp_min(1)
        (gradient,) = torch.autograd.grad(loss, picture, retain_graph=True)
        return loss.detach(), gradient

    @torch.no_grad()
    def paint(self, inputs: WindowInputs) -> Tensor:
        """Finished windows of the averaged painter."""
        return inputs.painted(self.average(inputs.planes, inputs.numbers))


def _schedule(step: int, steps: int) -> float:
    """Warm-up, then a cosine down to a twentieth."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * (0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)).item()))


def batches(sampler: PairSampler, window: FaceWindow, count: int) -> Iterator[tuple[WindowInputs, Tensor]]:
    """Batches without end; the next one is drawn while one is learned from."""

    def made() -> tuple[WindowInputs, Tensor]:
        pairs: Pairs = sampler.draw(count)
        return window_inputs(window, pairs.geometry), pairs.target

    with ThreadPoolExecutor(1, thread_name_prefix="pairs") as thread:
        waiting = thread.submit(made)
        while True:
            ready = waiting.result()
            waiting = thread.submit(made)
            yield ready


def train(
    name: str, clips: list[FaceCrops], dev: list[FaceCrops], settings: PainterSettings, folder: Path
) -> None:
    """Train to the end, or on from the folder's checkpoint."""
    run = PainterRun(name, settings)
    run.resume(folder)
    checks = report_pairs(dev, run.window)
    # a resumed run sees other pairs than those it has learned from
    sampler = PairSampler(clips, run.window, settings.seed + 1000 * run.step)
    log = (folder / "metrics.jsonl").open("a", encoding="utf-8")
    begun, sums = time.monotonic(), dict[str, float]()
    stream = batches(sampler, run.window, settings.batch)
    while run.step < settings.steps:
        inputs, target = next(stream)
        for key, value in run.learn(inputs, target).items():
            sums[key] = sums.get(key, 0.0) + value / 50
        if run.step % 50 == 0:
            line = {"step": run.step, "seconds": round(time.monotonic() - begun, 1)} | sums
            log.write(json.dumps(line) + "\n")
            log.flush()
            sums = {}
        if run.step % settings.every == 0 or run.step == settings.steps:
            run.save(folder)
            scores = [score for pairs in checks for score in score_windows(run.window, pairs, run.paint)]
            print(f"step {run.step}, {time.monotonic() - begun:.0f} s: {summary(scores)}", flush=True)
    stream.close()
