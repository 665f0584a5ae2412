"""Fitting of the audio encoder: pre-training on synthetic speech, fine-tuning on people talking."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.motion.audio_encoder import AudioEncoder
from training.mini.lips_data import CropSampler, Example
from training.mini.lips_metrics import correlation
from training.mini.visemes import NAMES


@dataclass(frozen=True)
class FitSettings:
    """What a run does.

    Attributes:
        pretrain_steps: Steps of 16 crops on synthetic speech.
        steps: Steps of 16 crops on real clips.
        versions: Disturbed versions of each real clip.
        seed: Of everything random.
    """

    pretrain_steps: int = 6000
    steps: int = 600
    versions: int = 12
    seed: int = 0


def optimise(encoder: nn.Module, crops: CropSampler, loss_of: Callable, steps: int, rate: float) -> None:
    """AdamW, one cycle, 16 crops a step."""
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 2), pct_start=0.2)
    encoder.train()
    for step in range(steps):
        loss = loss_of(*crops.draw(16))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 500 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    encoder.eval()


def pretrain(examples: list[Example], settings: FitSettings) -> AudioEncoder:
    """Learn visemes, opening, rounding and closure of synthetic speech; one utterance in 20 is kept to measure."""
    torch.manual_seed(settings.seed)
    held, rest = examples[::20], [[e] for i, e in enumerate(examples) if i % 20]
    encoder, head = AudioEncoder(), nn.Conv1d(128, len(NAMES) + 2, 1)

    def outputs(mels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = encoder.hear(mels.transpose(1, 2))
        classes, curves = head(features).split((len(NAMES), 2), dim=1)
        return classes, curves.transpose(1, 2), encoder.closure(features)[:, 0]

    def loss_of(mels: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        classes, curves, closure = outputs(mels)
        loss = nn.functional.cross_entropy(classes, target[..., 0].long(), reduction="none")
        loss = loss + 3 * (curves - target[..., 1:3]).square().sum(-1)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(
            closure, target[..., 3], reduction="none"
        )
        return (loss * valid).sum() / valid.sum()

    both = nn.ModuleList([encoder, head])
    optimise(
        both, CropSampler(rest, np.random.default_rng(settings.seed)), loss_of, settings.pretrain_steps, 2e-3
    )
    with torch.no_grad():
        said = [outputs(e.mels.float()[None]) for e in held]
    right = (
        torch.cat([o[0][0].argmax(0) == e.target[:, 0] for o, e in zip(said, held, strict=True)])
        .float()
        .mean()
    )
    opening = np.concatenate([o[1][0, :, 0].numpy() for o in said])
    closure = np.concatenate([torch.sigmoid(o[2][0]).numpy() for o in said])
    real = np.concatenate([e.target.numpy() for e in held])
    print(
        f"synthetic, unseen sentences: visemes {right:.2f}, opening r {correlation(opening, real[:, 1]):.2f}, "
        f"closure r {correlation(closure, real[:, 3]):.2f}"
    )
    return encoder


def mouth_loss(encoder: AudioEncoder, mels: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error and its velocity, 1 - r of the opening over each crop, and whether lips touch."""
    features = encoder.hear(mels.transpose(1, 2))
    said, closure = encoder.head(features).transpose(1, 2), encoder.closure(features)[:, 0]
    weights = torch.tensor([3.0, 1.0, 0.77, 0.53, 0.3])
    real, touch = target[..., :5], target[..., 5]
    count = valid.sum().clamp(min=1)
    error = ((said - real).square() * weights).sum(-1)
    moving = valid[:, 1:] * valid[:, :-1]
    velocity = ((said.diff(dim=1) - real.diff(dim=1)).square() * weights).sum(-1)
    a, b = (centred(x[..., 0], valid) for x in (said, real))
    r = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-3).sqrt()
    touching = nn.functional.binary_cross_entropy_with_logits(closure, touch, reduction="none")
    known = valid * (touch != 0.5)
    return (
        (error * valid).sum() / count
        + 0.5 * (velocity * moving).sum() / count
        + (1 - r).mean()
        + (touching * known).sum() / count
    )


def centred(x: Tensor, valid: Tensor) -> Tensor:
    """Minus its mean over valid frames, zero elsewhere."""
    return (x - (x * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp(min=1)) * valid


def closure_loss(encoder: AudioEncoder, mels: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Whether lips touch in synthetic speech, where every closure is known; silence says nothing."""
    said = encoder.closure(encoder.hear(mels.transpose(1, 2)))[:, 0]
    loss = nn.functional.binary_cross_entropy_with_logits(said, target[..., 3], reduction="none")
    known = valid * (target[..., 0] != NAMES.index("sil"))
    return (loss * known).sum() / known.sum().clamp(min=1)


def track_statistics(encoder: AudioEncoder, on: bool) -> None:
    """Let batch normalisation learn its running mean and variance, or not."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.1 if on else 0.0


def finetune(
    start: AudioEncoder, groups: list[list[Example]], synthetic: list[Example], settings: FitSettings
) -> AudioEncoder:
    """Everything learns on from the synthetic start, with a new head; closures also from synthetic speech.

    Few of the sounds that close lips are heard in minutes of video, and a tracker sees not all of them close.
    """
    torch.manual_seed(settings.seed)
    encoder = AudioEncoder()
    encoder.load_state_dict(start.state_dict())
    encoder.head.reset_parameters()
    crops = CropSampler(groups, np.random.default_rng(settings.seed))
    reminder = (
        CropSampler([[e] for e in synthetic], np.random.default_rng(settings.seed)) if synthetic else None
    )

    def loss_of(mels: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        loss = mouth_loss(encoder, mels, target, valid)
        if reminder is None:
            return loss
        track_statistics(encoder, False)  # what the network normalises by in use comes from people alone
        loss = loss + closure_loss(encoder, *reminder.draw(8))
        track_statistics(encoder, True)
        return loss

    optimise(encoder, crops, loss_of, settings.steps, 2e-3)
    return encoder


def read_encoder(path: Path) -> AudioEncoder:
    """An audio encoder as `training/mini/train_lips.py` writes it.

    Raises:
        InputError: There is none, it is damaged, or it is of another size.
    """
    encoder = AudioEncoder()
    try:
        encoder.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "Give what training/mini/train_lips.py wrote."
        raise InputError(str(path), f"no audio encoder can be read from it ({reason})", remedy) from error
    return encoder
