"""Fitting of mini's head over Whisper features: its members side by side, on people talking and on quiet sounds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.motion.audio_encoder import MouthEncoder, WhisperHead
from training.mini.lips_data import QUIET_SECONDS, CropSampler, Example

CODE_WEIGHTS = (3.0, 1.0, 0.77, 0.53, 0.3)
"""Of the opening and the shape coefficients, the later of which sound tells ever less of."""

CLOSURE_WEIGHT = 0.3
"""The opening itself says nearly as well whether the lips touch."""


@dataclass(frozen=True)
class FitSettings:
    """What a run does.

    Attributes:
        steps: Steps of 16 crops.
        quiet_seconds: Of each sound without speech.
        rate: Largest learning rate.
        seed: Of everything random.
    """

    steps: int = 300
    quiet_seconds: int = QUIET_SECONDS
    rate: float = 2e-3
    seed: int = 0


def fit_head(groups: list[list[Example]], quiet: list[Example], settings: FitSettings) -> WhisperHead:
    """Train a head: AdamW, one cycle, 16 crops a step.

    Args:
        groups: The versions of each clip.
        quiet: Sounds at which the mouth rests.
        settings: How long, from which seed.
    """
    torch.manual_seed(settings.seed)
    head = WhisperHead()
    _standardise(head, groups)
    crops = CropSampler(groups, np.random.default_rng(settings.seed), quiet)
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=max(settings.steps, 2), pct_start=0.2
    )
    head.train()
    for step in range(settings.steps):
        loss = mouth_loss(head, *crops.draw(16))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    return head.eval()


def _standardise(head: WhisperHead, groups: list[list[Example]]) -> None:
    """Give the head the mean and the deviation of its training clips' features, each clip by its length."""
    rows = [example.rows.float() for group in groups for example in group]
    count = sum(map(len, rows))
    mean = torch.stack([r.sum(0) for r in rows]).sum(0) / count
    variance = torch.stack([(r - mean).square().sum(0) for r in rows]).sum(0) / count
    head.standardised.mean.copy_(mean)
    head.standardised.deviation.copy_(variance.sqrt().clamp(min=1e-3))


def mouth_loss(encoder: MouthEncoder, rows: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error and its velocity, 1 - r of the opening over each crop, and whether lips touch; mean over members.

    Args:
        encoder: In training mode.
        rows: [crop, row, channel] features.
        target: [crop, frame, 6], see `Example`.
        valid: [crop, frame] 1 where the target counts.
    """
    numbers, log_odds = encoder.by_member(encoder.hear(rows.transpose(1, 2)))
    parts = zip(numbers.transpose(2, 3).unbind(1), log_odds.unbind(1), strict=True)
    return torch.stack([_member_loss(said, odds, target, valid) for said, odds in parts]).mean()


def _member_loss(said: Tensor, log_odds: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    weights = said.new_tensor(CODE_WEIGHTS)
    real, touch = target[..., :5], target[..., 5]
    count = valid.sum().clamp(min=1)
    error = ((said - real).square() * weights).sum(-1)
    moving = valid[:, 1:] * valid[:, :-1]
    velocity = ((said.diff(dim=1) - real.diff(dim=1)).square() * weights).sum(-1)
    a, b = (centred(x[..., 0], valid) for x in (said, real))
    r = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-3).sqrt()
    touching = nn.functional.binary_cross_entropy_with_logits(log_odds, touch, reduction="none")
    known = valid * (touch != 0.5)
    return (
        (error * valid).sum() / count
        + 0.5 * (velocity * moving).sum() / count
        + (1 - r).mean()
        + CLOSURE_WEIGHT * (touching * known).sum() / count
    )


def centred(x: Tensor, valid: Tensor) -> Tensor:
    """Minus its mean over valid frames, zero elsewhere."""
    return (x - (x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)) * valid


def read_encoder(path: Path) -> WhisperHead:
    """An audio encoder as `training/mini/train_lips.py` writes it.

    Raises:
        InputError: There is none, it is damaged, or it is of another size.
    """
    encoder = WhisperHead()
    try:
        encoder.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "Give what training/mini/train_lips.py wrote."
        raise InputError(str(path), f"no audio encoder can be read from it ({reason})", remedy) from error
    return encoder.eval()
