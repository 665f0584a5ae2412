r"""Train mini's head over Whisper features on people talking, and set its mean and gain.

    python -m training.mini.train_lips --clips data/samples data/samples2 \
        --manifest samples2/manifest.json --rights clear --output audio_encoder.safetensors

Cross-validation over people says how far each clip's sound is off (by a head that never saw its person); the sound is
moved, and what the same heads then predict sets the gain. The head that is saved has seen all people of the split
`train`, but for videos that a manifest lists with other rights; those and the people of `dev` are only reported on.
Features are heard as a whole and in live chunks, and so the head serves both. Deterministic by seed.
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
from sdtalk.motion.audio_encoder import WhisperHead
from training.data.dataset import PreparedDataset
from training.mini.lips_data import (
    QUIET_SECONDS,
    Example,
    Listener,
    SpeakerScale,
    TalkingClip,
    load_clips,
    withheld_videos,
)
from training.mini.lips_fit import FitSettings, fit_head
from training.mini.lips_metrics import correlation, correlation_by_lag
from training.mini.lips_report import print_report

FOLDS = 3
LAG_GAIN = 0.04
"""A clip's sound is moved only if that gains as much r: chance alone gives some."""

LAG_REACH = 5
OPENING_SPREAD = 1.0
"""Standard deviation of the opening, over the real one's, that the calibration aims at."""

EMPHASIS = 1.2
"""The opening of the head that is saved moves by so much more: rendered mouths move less than their codes."""


class Heard:
    """Clips with their examples, which are made anew only where the sound was moved."""

    def __init__(self, clips: list[TalkingClip], listener: Listener) -> None:
        self.clips, self.listener = clips, listener
        self.groups: list[list[Example]] = [listener.examples(clip) for clip in clips]

    def realigned(self, heads: list[WhisperHead]) -> None:
        """Move the sound of clips where that lets a head which never saw them predict the opening better."""
        for i, (clip, head) in enumerate(zip(self.clips, heads, strict=True)):
            opening = said_by(head, self.groups[i][0])[0].numpy()
            scores = correlation_by_lag(opening, clip.mouth[:, 0].numpy(), LAG_REACH)
            lag = max(scores, key=lambda k: scores[k])
            if scores[lag] - scores[0] >= LAG_GAIN and abs(lag) < LAG_REACH:
                print(f"  {clip.name}: sound {lag * 40:+d} ms late, r {scores[0]:.2f} -> {scores[lag]:.2f}")
                self.clips[i] = clip.shifted(lag)
                self.groups[i] = self.listener.examples(self.clips[i])


@torch.no_grad()
def said_by(head: WhisperHead, example: Example) -> Tensor:
    """The numbers a head says before mean and gain, [5, frames]."""
    return head.raw(head.hear(example.rows.float().T[None]))[0][0]


@torch.no_grad()
def codes_by(head: WhisperHead, example: Example) -> Tensor:
    """Mouth codes, [frames, 5]."""
    return head.forward_clip(example.rows.float())


def cross_validate(
    heard: Heard, quiet: list[Example], settings: FitSettings, folds: int = FOLDS
) -> list[WhisperHead]:
    """For each clip a head that has not heard its person.

    Raises:
        InputError: There is only one person.
    """
    people = sorted({clip.person for clip in heard.clips})
    if len(people) < 2:
        remedy = "Prepare videos of more people with their own voice."
        raise InputError("--clips", "one person is too few: each is judged by what the others taught", remedy)
    np.random.default_rng(settings.seed).shuffle(people)
    fold = {person: i % folds for i, person in enumerate(people)}
    heads = {}
    for i in sorted(set(fold.values())):
        known = [g for clip, g in zip(heard.clips, heard.groups, strict=True) if fold[clip.person] != i]
        heads[i] = fit_head(known, quiet, settings)
    return [heads[fold[clip.person]] for clip in heard.clips]


@torch.no_grad()
def calibrate(heard: Heard, heads: list[WhisperHead]) -> tuple[Tensor, Tensor]:
    """Mean and gain of the mouth code, from predictions for people a head has not heard.

    The opening gets the spread of real speech, mean and closures included. A shape coefficient gets twice the
    spread that least squares leaves it (its r), at most 0.8: what sound does not tell stays near rest.
    """
    mean = torch.stack([SpeakerScale.of(clip.mouth).mean for clip in heard.clips]).mean(0)
    mean[1:] = 0
    plain = [group[0] for group in heard.groups]
    said = [said_by(head, example).T for head, example in zip(heads, plain, strict=True)]
    gain = torch.zeros(5)
    for n in range(5):
        pairs = [
            (s[:, n].numpy(), c.mouth[: len(s), n].numpy()) for s, c in zip(said, heard.clips, strict=True)
        ]
        r = np.mean([correlation(*pair) for pair in pairs])
        spread = np.mean([np.nanstd(real) for _, real in pairs]) / np.mean([np.std(a) for a, _ in pairs])
        gain[n] = float(spread * (OPENING_SPREAD if n == 0 else np.clip(2 * r, 0, 0.8)))
        print(f"  number {n}: r {r:.2f}, gain {gain[n]:.2f}")
    wanted = OPENING_SPREAD * np.mean([np.nanstd(c.mouth[:, 0].numpy()) for c in heard.clips])
    for _ in range(5):  # clamping at zero and closures change the spread a little
        for head in heads:
            set_calibration(head, mean, gain)
        spreads = [
            codes_by(head, example)[:, 0].std().item() for head, example in zip(heads, plain, strict=True)
        ]
        gain[0] *= float(wanted / np.mean(spreads))
    return mean, gain


def set_calibration(head: WhisperHead, mean: Tensor, gain: Tensor) -> None:
    """Give a head its mean and gain."""
    head.code_mean.copy_(mean)
    head.code_gain.copy_(gain)


def train(clips: list[TalkingClip], listener: Listener, settings: FitSettings) -> WhisperHead:
    """Cross-validation, alignment, calibration; the head of all people."""
    heard = Heard(clips, listener)
    rest = torch.stack([SpeakerScale.of(clip.mouth).rest for clip in clips]).mean(0)
    quiet = listener.quiet_examples(rest, np.random.default_rng(settings.seed), settings.quiet_seconds)
    heads = cross_validate(heard, quiet, settings)
    heard.realigned(heads)
    mean, gain = calibrate(heard, heads)
    codes = [codes_by(head, group[0]) for head, group in zip(heads, heard.groups, strict=True)]
    print_report("cross-validation", heard.clips, codes)
    head = fit_head(heard.groups, quiet, settings)
    gain[0] *= EMPHASIS
    set_calibration(head, mean, gain)
    return head


def report(head: WhisperHead, listener: Listener, sets: dict[str, list[TalkingClip]]) -> None:
    """Print how people sound that the head has not heard: as a whole, and live."""
    for name, clips in sets.items():
        if clips:
            heard = [listener.examples(clip) for clip in clips]
            for version, title in enumerate((name, f"{name}, live chunks")):
                print_report(title, clips, [codes_by(head, group[version]) for group in heard])


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--clips", nargs="+", required=True, help="folders that prepare.py wrote, or hf://datasets/USER/NAME"
    )
    parser.add_argument(
        "--manifest", nargs="*", type=Path, default=[], help="manifests that say the rights to videos"
    )
    parser.add_argument("--rights", nargs="+", default=["clear"], help="rights that may be learned from")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument(
        "--quiet-seconds", type=int, default=QUIET_SECONDS, help="of each sound without speech"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        withheld = withheld_videos(arguments.manifest, arguments.rights)
        clips, held, dev = [], [], []
        for source in arguments.clips:
            prepared = PreparedDataset.open(source)
            used, kept_back = load_clips(prepared, "train", withheld)
            clips, held, dev = clips + used, held + kept_back, dev + load_clips(prepared, "dev")[0]
        if not clips:
            problem = "no clip of the split train shows a person with their own voice for a second or more"
            raise InputError(" ".join(arguments.clips), problem, "Prepare videos of people talking.")
        minutes = sum(len(clip.mouth) for clip in clips) / 25 / 60
        print(f"{len(clips)} clips, {minutes:.1f} min; withheld: {len(held)}; dev: {len(dev)}", flush=True)
        listener = Listener()
        settings = FitSettings(arguments.steps, arguments.quiet_seconds, seed=arguments.seed)
        head = train(clips, listener, settings)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    save_file(head.state_dict(), arguments.output)
    report(head, listener, {"dev": dev, "withheld": held})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
