r"""Train the audio encoder: pre-train on synthetic speech, fine-tune on people talking, set mean and gain.

    python -m training.mini.synthetic_speech --minutes 140 --output synthetic.npz
    python -m training.mini.train_lips --clips data/prepared --synthetic synthetic.npz \
        --output audio_encoder.safetensors

Two passes over the real clips: cross-validation over people says how far each clip's sound is off (by a network
that never saw it), the sound is moved, and what cross-validation then measures sets the gain. The network that is
saved has seen all people of the split `train`; those of `dev` are only reported on. Deterministic by seed.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from sdtalk.motion.audio_encoder import AudioEncoder
from sdtalk.speech.audio import log_mel, padded_mels, speech_level
from sdtalk.speech.encoder import hold_in_silence
from training.data.dataset import PreparedDataset
from training.mini.lips_data import (
    Example,
    SpeakerScale,
    TalkingClip,
    augmented_examples,
    load_clips,
    synthetic_examples,
)
from training.mini.lips_fit import FitSettings, finetune, pretrain, read_encoder
from training.mini.lips_metrics import best_lag, correlation, correlation_by_lag, count_closures_hit

FOLDS = 3
LAG_GAIN = 0.04
"""A clip's sound is moved only if that gains as much r: chance alone gives some."""
OPENING_SPREAD = 0.95
"""Standard deviation of the opening, over the real one's, that the gain aims at."""


@torch.no_grad()
def features_of(encoder: AudioEncoder, clip: TalkingClip) -> Tensor:
    """What the encoder hears in a clip, [1, width, frames]."""
    return encoder.hear(padded_mels(log_mel(clip.audio), len(clip.mouth)).T[None])


def cross_validate(
    start: AudioEncoder,
    clips: list[TalkingClip],
    groups: list[list[Example]],
    synthetic: list[Example],
    settings: FitSettings,
) -> list[AudioEncoder]:
    """For each clip an encoder that has not heard its person."""
    people = sorted({clip.person for clip in clips})
    if len(people) < 2:
        remedy = "Prepare videos of more people with their own voice."
        raise InputError("--clips", "one person is too few: each is judged by what the others taught", remedy)
    np.random.default_rng(settings.seed).shuffle(people)
    fold = {person: i % FOLDS for i, person in enumerate(people)}
    encoders = []
    for i in range(FOLDS):
        known = [group for clip, group in zip(clips, groups, strict=True) if fold[clip.person] != i]
        encoders.append(finetune(start, known, synthetic, settings))
    return [encoders[fold[clip.person]] for clip in clips]


def realign_audio(clips: list[TalkingClip], encoders: list[AudioEncoder]) -> list[TalkingClip]:
    """Move the sound of clips where that lets a network which never saw them predict the opening better."""
    moved = []
    for clip, encoder in zip(clips, encoders, strict=True):
        opening = encoder.head(features_of(encoder, clip))[0, 0].detach().numpy()
        scores = correlation_by_lag(opening, clip.mouth[:, 0].numpy(), 5)
        lag = max(scores, key=lambda k: scores[k])
        if scores[lag] - scores[0] >= LAG_GAIN and abs(lag) < 5:
            print(f"  {clip.name}: sound {lag * 40:+d} ms late, r {scores[0]:.2f} -> {scores[lag]:.2f}")
            clip = clip.shifted(lag)
        moved.append(clip)
    return moved


@torch.no_grad()
def calibrate(clips: list[TalkingClip], encoders: list[AudioEncoder]) -> tuple[Tensor, Tensor]:
    """Mean and gain of the mouth code, from predictions for people a network has not heard.

    The opening gets the spread of real speech, mean and closures included. A shape coefficient gets twice the
    spread that least squares leaves it (its r), at most 0.8: what sound does not tell stays near rest.
    """
    scales = [SpeakerScale.of(clip.mouth) for clip in clips]
    mean = torch.stack([s.mean for s in scales]).mean(0)
    mean[1:] = 0
    features = [features_of(encoder, clip) for encoder, clip in zip(encoders, clips, strict=True)]
    said = [encoder.head(f)[0].T for encoder, f in zip(encoders, features, strict=True)]
    gain = torch.zeros(5)
    for n in range(5):
        pairs = [(s[:, n].numpy(), c.mouth[:, n].numpy()) for s, c in zip(said, clips, strict=True)]
        r = np.mean([correlation(*pair) for pair in pairs])
        spread = np.mean([np.nanstd(real) for _, real in pairs]) / np.mean([np.std(a) for a, _ in pairs])
        gain[n] = float(spread * (OPENING_SPREAD if n == 0 else np.clip(2 * r, 0, 0.8)))
        print(f"  number {n}: r {r:.2f}, gain {gain[n]:.2f}")
    wanted = OPENING_SPREAD * np.mean([np.nanstd(c.mouth[:, 0].numpy()) for c in clips])
    for _ in range(5):  # clamping at zero and closures change the spread a little
        for encoder in encoders:
            encoder.code_mean.copy_(mean)
            encoder.code_gain.copy_(gain)
        codes = [encoder.code_of(f)[0, :, 0] for encoder, f in zip(encoders, features, strict=True)]
        gain[0] *= float(wanted / np.mean([code.std().item() for code in codes]))
    return mean, gain


@torch.no_grad()
def report(title: str, clips: list[TalkingClip], encoders: list[AudioEncoder], held: bool = False) -> None:
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
        hit, count, sum_low = count_closures_hit(opening, real, 0.3 * float(np.nanpercentile(real, 98)))
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


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clips", required=True, help="folder that prepare.py wrote, or hf://datasets/USER/NAME"
    )
    parser.add_argument(
        "--synthetic", type=Path, help="from training.mini.synthetic_speech; without it, no pre-training"
    )
    parser.add_argument("--pretrained", type=Path, help="result of pre-training: read if there, else written")
    parser.add_argument("--pretrain-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--versions", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    settings = FitSettings(arguments.pretrain_steps, arguments.steps, arguments.versions, arguments.seed)
    try:
        prepared = PreparedDataset.open(arguments.clips)
        clips, dev = load_clips(prepared, "train"), load_clips(prepared, "dev")
        if not clips:
            problem = "no clip of the split train shows a person with their own voice for a second or more"
            raise InputError(str(arguments.clips), problem, "Prepare videos of people talking.")
        rng = np.random.default_rng(settings.seed)
        synthetic = synthetic_examples(arguments.synthetic, rng) if arguments.synthetic else []
        start = pretrained(synthetic, arguments.pretrained, settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    encoder = train(start, clips, synthetic, settings)
    save_file(encoder.state_dict(), arguments.output)
    if dev:
        report("dev", dev, [encoder] * len(dev))
        report("dev, still in silence", dev, [encoder] * len(dev), held=True)
    return 0


def pretrained(synthetic: list[Example], kept: Path | None, settings: FitSettings) -> AudioEncoder:
    """The start of the fine-tuning."""
    if kept is not None and kept.exists():
        return read_encoder(kept)
    encoder = pretrain(synthetic, settings) if synthetic else AudioEncoder()
    if kept is not None:
        save_file(encoder.state_dict(), kept)
    return encoder


def train(
    start: AudioEncoder, clips: list[TalkingClip], synthetic: list[Example], settings: FitSettings
) -> AudioEncoder:
    """Both passes over the real clips; the encoder of all people, mean and gain set."""
    for name in ("first pass", "second pass"):
        rng = np.random.default_rng(settings.seed)
        groups = [augmented_examples(clip, settings.versions, rng) for clip in clips]
        encoders = cross_validate(start, clips, groups, synthetic, settings)
        mean, gain = calibrate(clips, encoders)
        report(f"cross-validation, {name}", clips, encoders)
        if name == "first pass":
            clips = realign_audio(clips, encoders)
    encoder = finetune(start, groups, synthetic, settings)
    encoder.code_mean.copy_(mean)
    encoder.code_gain.copy_(gain)
    return encoder


if __name__ == "__main__":
    raise SystemExit(main())
