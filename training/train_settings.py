"""Training settings: the dataclasses behind the files in training/configs, which `training/train.py` reads."""

from dataclasses import dataclass, field
from typing import Any, Literal

PARAMETER_GROUPS = {
    1: ("reconstructor", "neural_renderer"),
    2: ("fields", "tables", "audio_encoder", "neural_renderer"),
}
"""Parts that have a learning rate of their own, by stage; what gets none, or 0, stays as it is.

`fields` are the networks of both motion fields, `tables` their hash tables. DINOv2 inside of the reconstructor is never
trained (paper section 3.3).
"""

LOSS_TERMS = {
    "image": "L1 of the finished frame",
    "rasterised": "L1 of the rasterised colours, before the neural renderer",
    "box": "L1 in the square around the head, mean of both pictures",
    "lip": "L1 in the square around the lips, mean of both pictures (paper, stage 2)",
    "edges": "L1 of differences between neighbouring pixels",
    "alpha": "L1 between the rasterised alpha and the person mask",
    "perceptual": "features of a network, see `perceptual`",
    "landmarks": "where the bundled face mesh sees the lips, in shares of its crop",
    "lifting": "squared distance of each tracked vertex to its nearest lifted Gaussian (paper)",
    "geometry": "displacement of the tracked mesh against the motion fields' (mini, stage 2)",
    "sound": "predicted mouth code against the tracked one (mini, stage 2)",
}
"""Losses that can have a weight."""


@dataclass(frozen=True)
class DataSettings:
    """Where samples come from.

    Attributes:
        source: A folder that `training/prepare.py` wrote, or hf://datasets/USER/NAME.
        split: Which people to train on.
        sample_split: Which people the sample videos show; without any the training split's.
        threads: Decode pictures, in each process.
        prefetch: Batches prepared ahead.
        pool: Clips that are open for each sample of the batch, from which it is taken in turn; more mix better and need
            more memory (about 12 MB each). None: 32 over the whole batch, at least 4 a sample.
        draws_per_piece: Samples taken from an open clip before the next one is read; fewer mix better.
    """

    source: str
    split: str = "train"
    sample_split: str = "dev"
    threads: int = 2
    prefetch: int = 4
    pool: int | None = None
    draws_per_piece: int = 8

    def __post_init__(self) -> None:
        _check_minimum(self, threads=1, prefetch=1, pool=1, draws_per_piece=1)


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam (paper: 1e-4, 200,000 steps, linear decay to a tenth).

    Attributes:
        rates: Learning rate of each part, see `PARAMETER_GROUPS`.
        betas: Of Adam.
        eps: Of Adam: gradients well below it hardly move a weight.
        warmup_steps: Rising linearly to the full rate.
        final_rate: Share of the rate at the last step.
        max_grad_norm: Longer gradients are shortened to it.
        ema_decay: Of the average of the weights that is saved as the model; early steps count more.
    """

    rates: dict[str, float]
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    eps: float = 1e-8
    warmup_steps: int = 50
    final_rate: float = 0.1
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        _check_minimum(self, eps=0, warmup_steps=0, final_rate=0, max_grad_norm=0, ema_decay=0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas} are not two numbers from 0 to below 1")
        if self.final_rate > 1 or self.ema_decay >= 1:
            raise ValueError(
                f"final_rate = {self.final_rate}, ema_decay = {self.ema_decay}: one is too large"
            )


@dataclass(frozen=True)
class LogSettings:
    """What is told, and how often (in steps).

    Attributes:
        trackers: Names of accelerate's trackers: tensorboard, wandb, trackio, ...
        every: Losses, rates, throughput.
        samples_every: Contact sheets and a short video; 0 never.
        sample_frames: Length of the video at 25 frames a second.
    """

    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    every: int = 10
    samples_every: int = 500
    sample_frames: int = 75

    def __post_init__(self) -> None:
        _check_minimum(self, every=1, samples_every=0, sample_frames=1)


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save (0: only at the end), and how many to keep (0: all)."""

    every: int = 500
    keep: int = 3

    def __post_init__(self) -> None:
        _check_minimum(self, every=0, keep=0)


@dataclass(frozen=True)
class HubSettings:
    """Sharing on the Hugging Face Hub.

    Attributes:
        repo: USER/NAME; None: the run stays here. `--push-to-hub` sets it.
        private: Whether a new repository is.
        every: Least steps between uploads, which follow checkpoints; the end is always uploaded.
        state: Also upload what `--resume USER/NAME` needs: about three times the size of the model.
        licence: Of the weights, for the model card: an identifier of the Hub's, such as cc-by-nc-4.0; None: not stated.
    """

    repo: str | None = None
    private: bool = True
    every: int = 2000
    state: bool = False
    licence: str | None = None


@dataclass(frozen=True)
class TrainSettings:
    """A stage of training.

    Attributes:
        stage: 1: reconstruction, 2: motion (paper section 3.3).
        output: Folder of the run.
        steps: Optimiser steps.
        data: Where samples come from.
        optimiser: How it learns.
        losses: Weight of each loss, see `LOSS_TERMS`.
        size: "mini" or "base".
        start: Weights to begin with: "mini", a folder, USER/NAME[@REVISION]; None: random ones of `size`.
        model: Changes of the configuration, among them the ablations; only with random weights.
        backbone: Folder or Hub name of DINOv2's pretrained weights, which a base model needs that begins with random
            ones ("random": does without, for trials).
        batch_size: Samples a process looks at at a time.
        accumulation: So many times before a step.
        seed: Of weights and samples.
        precision: Of the networks; geometry stays in float32.
        window_px: Side of the window around the face that is rendered and compared; 512 is the whole picture.
        lip_weight: How much more the losses of pixels weigh in a box around the lips.
        lifting_step: Every n-th tracked vertex counts in the lifting loss.
        stage1_motion: Stage 1 moves the source to the target's expression by the motion fields as they are; False, as
            in the paper: nothing moves, and the completion points lie on the target's mesh.
        perceptual: "lpips", "published" (AlexNet and VGG-Face from the authors' checkpoint), "face_mesh" (features of
            the bundled tracker), or "auto": LPIPS where its weights are present, else face_mesh.
        perceptual_file: The authors' checkpoint, for "published".
        log: What is told.
        checkpoints: What is kept.
        hub: What is shared.
    """

    stage: Literal[1, 2]
    output: str
    steps: int
    data: DataSettings
    optimiser: OptimiserSettings
    losses: dict[str, float]
    size: Literal["mini", "base"] = "mini"
    start: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    backbone: str | None = None
    batch_size: int = 1
    accumulation: int = 1
    seed: int = 0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    window_px: int = 512
    lip_weight: float = 1.0
    lifting_step: int = 1
    stage1_motion: bool = False
    perceptual: Literal["auto", "lpips", "published", "face_mesh"] = "auto"
    perceptual_file: str | None = None
    log: LogSettings = field(default_factory=LogSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    hub: HubSettings = field(default_factory=HubSettings)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ValueError: Names the setting.
        """
        _check_minimum(self, steps=1, batch_size=1, accumulation=1, lifting_step=1, seed=0)
        for name, known in (("losses", tuple(LOSS_TERMS)), ("optimiser.rates", PARAMETER_GROUPS[self.stage])):
            given = self.losses if name == "losses" else self.optimiser.rates
            if unknown := sorted(set(given) - set(known)):
                raise ValueError(
                    f"{name}: {unknown[0]!r} is not known in stage {self.stage}, only {', '.join(known)}"
                )
            if not any(given.values()):
                raise ValueError(f"{name} holds no number above 0")
            if low := [key for key, value in given.items() if value < 0]:
                raise ValueError(f"{name}: {low[0]} is negative")
        if self.size == "mini" and self.optimiser.rates.get("audio_encoder") and not self.losses.get("sound"):
            raise ValueError("optimiser.rates.audio_encoder: mini's learns nothing without losses.sound")
        if not 64 <= self.window_px <= 512 or (self.size == "base" and self.window_px != 512):
            raise ValueError(f"window_px = {self.window_px} is not between 64 and 512 (base: only 512)")
        if self.start is not None and (self.model or self.backbone):
            raise ValueError("`model` and `backbone` are for random weights, and `start` gives others")
        if self.perceptual == "published" and not self.perceptual_file:
            raise ValueError("perceptual: published needs perceptual_file, the authors' SDGTalk.pt")


def _check_minimum(settings: Any, **least: float) -> None:
    for name, value in least.items():
        if getattr(settings, name) is not None and getattr(settings, name) < value:
            raise ValueError(f"{name} = {getattr(settings, name)} is below {value}")
