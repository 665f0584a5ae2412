r"""Train the audio encoder: pre-train on synthetic speech, fine-tune on people talking, set mean and gain.

    python -m training.synthetic_speech --minutes 140 --output synthetic.npz
    python -m training.train_lips --clips data/prepared --dev data/dev --synthetic synthetic.npz \
        --output audio_encoder.safetensors

Two passes over the real clips: cross-validation over people says how far each clip's sound is off (by a network
that never saw it), the sound is moved, and what cross-validation then measures sets the gain. The network that is
saved has seen all people; those of --dev are only reported on. Deterministic by seed.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sdtalk.audio import log_mel, padded_mels, speech_level
from sdtalk.motion.audio_encoder import AudioEncoder, hold_in_silence
from training.lips_data import Clip, Crops, Example, Scale, load_clips, synthetic_examples, variants
from training.lips_metrics import best_lag, closures_hit, correlation, correlation_by_lag
from training.visemes import NAMES

FOLDS = 3
LAG_GAIN = 0.04
"""A clip's sound is moved only if that gains as much r: chance alone gives some."""
OPENING_SPREAD = 0.95
"""Standard deviation of the opening, over the real one's, that the gain aims at."""


@dataclass(frozen=True)
class Recipe:
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


def optimise(encoder: nn.Module, crops: Crops, loss_of, steps: int, rate: float) -> None:
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


def pretrain(examples: list[Example], recipe: Recipe) -> AudioEncoder:
    """Learn visemes, opening, rounding and closure of synthetic speech; one utterance in 20 is kept to measure."""
    torch.manual_seed(recipe.seed)
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
    optimise(both, Crops(rest, np.random.default_rng(recipe.seed)), loss_of, recipe.pretrain_steps, 2e-3)
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


def finetune(start: AudioEncoder, groups: list[list[Example]], recipe: Recipe) -> AudioEncoder:
    """Everything learns on from the synthetic start, with a new head."""
    torch.manual_seed(recipe.seed)
    encoder = AudioEncoder()
    encoder.load_state_dict({k: v for k, v in start.state_dict().items()})
    encoder.head.reset_parameters()
    crops = Crops(groups, np.random.default_rng(recipe.seed))
    optimise(encoder, crops, lambda *batch: mouth_loss(encoder, *batch), recipe.steps, 2e-3)
    return encoder


@torch.no_grad()
def features_of(encoder: AudioEncoder, clip: Clip) -> Tensor:
    """What the encoder hears in a clip, [1, width, frames]."""
    return encoder.hear(padded_mels(log_mel(clip.audio), len(clip.mouth)).T[None])


def cross_validate(
    start: AudioEncoder, clips: list[Clip], groups: dict[str, list[Example]], recipe: Recipe
) -> list[AudioEncoder]:
    """For each clip an encoder that has not heard its person."""
    people = sorted({clip.person for clip in clips})
    np.random.default_rng(recipe.seed).shuffle(people)
    fold = {person: i % FOLDS for i, person in enumerate(people)}
    encoders = []
    for i in range(FOLDS):
        encoders.append(finetune(start, [groups[c.name] for c in clips if fold[c.person] != i], recipe))
    return [encoders[fold[clip.person]] for clip in clips]


def realigned(clips: list[Clip], judges: list[AudioEncoder]) -> list[Clip]:
    """Move the sound of clips where that lets a network which never saw them predict the opening better."""
    moved = []
    for clip, judge in zip(clips, judges, strict=True):
        opening = judge.head(features_of(judge, clip))[0, 0].detach().numpy()
        scores = correlation_by_lag(opening, clip.mouth[:, 0].numpy(), 5)
        lag = max(scores, key=lambda k: scores[k])
        if scores[lag] - scores[0] >= LAG_GAIN and abs(lag) < 5:
            print(f"  {clip.name}: sound {lag * 40:+d} ms late, r {scores[0]:.2f} -> {scores[lag]:.2f}")
            clip = clip.shifted(lag)
        moved.append(clip)
    return moved


@torch.no_grad()
def calibrate(clips: list[Clip], judges: list[AudioEncoder]) -> tuple[Tensor, Tensor]:
    """Mean and gain of the mouth code, from predictions for people a network has not heard.

    The opening gets the spread of real speech, mean and closures included. A shape coefficient gets twice the
    spread that least squares leaves it (its r), at most 0.8: what sound does not tell stays near rest.
    """
    scales = [Scale.of(clip.mouth) for clip in clips]
    mean = torch.stack([s.mean for s in scales]).mean(0)
    mean[1:] = 0
    features = [features_of(judge, clip) for judge, clip in zip(judges, clips, strict=True)]
    said = [judge.head(f)[0].T for judge, f in zip(judges, features, strict=True)]
    gain = torch.zeros(5)
    for n in range(5):
        pairs = [(s[:, n].numpy(), c.mouth[:, n].numpy()) for s, c in zip(said, clips, strict=True)]
        r = np.mean([correlation(*pair) for pair in pairs])
        spread = np.mean([np.nanstd(real) for _, real in pairs]) / np.mean([np.std(a) for a, _ in pairs])
        gain[n] = float(spread * (OPENING_SPREAD if n == 0 else np.clip(2 * r, 0, 0.8)))
        print(f"  number {n}: r {r:.2f}, gain {gain[n]:.2f}")
    wanted = OPENING_SPREAD * np.mean([np.nanstd(c.mouth[:, 0].numpy()) for c in clips])
    for _ in range(5):  # clamping at zero and closures change the spread a little
        for judge in judges:
            judge.code_mean.copy_(mean)
            judge.code_gain.copy_(gain)
        codes = [judge.code_of(f)[0, :, 0] for judge, f in zip(judges, features, strict=True)]
        gain[0] *= float(wanted / np.mean([code.std().item() for code in codes]))
    return mean, gain


@torch.no_grad()
def report(title: str, clips: list[Clip], encoders: list[AudioEncoder], held: bool = False) -> None:
    """Print how well the openings follow the real ones, clip by clip and on average."""
    rows = []
    hits, all_closures, low = 0, 0, 0.0
    print(title)
    for clip, encoder in zip(clips, encoders, strict=True):
        code = encoder.code_of(features_of(encoder, clip))[0]
        if held:
            code = hold_in_silence(code, speech_level(clip.audio)[: len(code)])
        opening, real = code[:, 0].numpy(), clip.mouth[:, 0].numpy()
        lag, r = best_lag(opening, real)
        shape = [correlation(code[:, n].numpy(), clip.mouth[:, n].numpy()) for n in range(1, 5)]
        rows.append([correlation(opening, real), r, opening.std() / np.nanstd(real), *shape])
        hit, count, sum_low = closures_hit(opening, real, 0.3 * float(np.nanpercentile(real, 98)))
        hits, all_closures, low = hits + hit, all_closures + count, low + sum_low
        print(
            f"  {clip.name[:48]:48} r {rows[-1][0]:.2f}, best {r:.2f} at {lag:+d}, spread {rows[-1][2]:.2f}"
        )
    mean = np.mean(rows, axis=0)
    shape_text = " ".join(f"{r:.2f}" for r in mean[3:])
    print(
        f"  mean: r {mean[0]:.3f}, best lag {mean[1]:.3f}, spread {mean[2]:.2f}, shape r {shape_text}, "
        f"closures {hits}/{all_closures}, opening there {low / max(all_closures, 1):.2f}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--dev", type=Path, help="the same for people to report on")
    parser.add_argument(
        "--synthetic", type=Path, help="from training.synthetic_speech; without it, no pre-training"
    )
    parser.add_argument("--pretrained", type=Path, help="result of pre-training: read if there, else written")
    parser.add_argument("--pretrain-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--versions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    recipe = Recipe(arguments.pretrain_steps, arguments.steps, arguments.versions, arguments.seed)
    clips, dev = load_clips(arguments.clips), load_clips(arguments.dev) if arguments.dev else []
    start = pretrained(arguments.synthetic, arguments.pretrained, recipe)
    encoder = train(start, clips, recipe)
    save_file(encoder.state_dict(), arguments.output)
    if dev:
        report("dev", dev, [encoder] * len(dev))
        report("dev, still in silence", dev, [encoder] * len(dev), held=True)


def pretrained(synthetic: Path | None, kept: Path | None, recipe: Recipe) -> AudioEncoder:
    """The start of the fine-tuning."""
    encoder = AudioEncoder()
    if kept is not None and kept.exists():
        encoder.load_state_dict(load_file(kept))
    elif synthetic is not None:
        encoder = pretrain(synthetic_examples(synthetic, np.random.default_rng(recipe.seed)), recipe)
        if kept is not None:
            save_file(encoder.state_dict(), kept)
    return encoder


def train(start: AudioEncoder, clips: list[Clip], recipe: Recipe) -> AudioEncoder:
    """Both passes over the real clips; the encoder of all people, mean and gain set."""
    for name in ("first pass", "second pass"):
        rng = np.random.default_rng(recipe.seed)
        groups = {clip.name: variants(clip, recipe.versions, rng) for clip in clips}
        judges = cross_validate(start, clips, groups, recipe)
        mean, gain = calibrate(clips, judges)
        report(f"cross-validation, {name}", clips, judges)
        if name == "first pass":
            clips = realigned(clips, judges)
    encoder = finetune(start, list(groups.values()), recipe)
    encoder.code_mean.copy_(mean)
    encoder.code_gain.copy_(gain)
    return encoder


if __name__ == "__main__":
    main()
