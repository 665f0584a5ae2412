"""Moving splats: a head's splats, and how they move through a recording, as a few shapes and a weight for each a frame.

The motion fields move some 40,000 Gaussians in every frame, all by what mouth and eyes do: the offsets of a whole
recording are, to a fraction of a pixel, sums of a dozen shapes (morph targets). Only centres move: without what the
fields do to scales, rotations and opacities, frames of the example are the same to 65 dB.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.export.splats import LEAST_SHOWN, Splats, splats_of, within_photo
from sdtalk.head import HeadGaussians, posed
from sdtalk.live.shown import telling_frames
from sdtalk.model import SDTalk
from sdtalk.rendering.cpu.backend import contributions
from sdtalk.rendering.rules import HALF_RATE_RULES

SHAPES = 12
"""Morph targets: 12 leave at most half a pixel, and 0.04 px in the mean, of what the example does."""

SAMPLED_FRAMES = 48
"""Frames whose offsets the shapes are made of, spread over the recording."""

SAMPLED_SPLATS = 2000
"""Splats by which the weights of all frames are found."""

AT_ONCE = 32
"""Frames animated at once."""

STILL = 1e-4
"""Splats whose centres never move by more than this, in head-space units, stay still: 0.03 px."""


@dataclass(frozen=True)
class MovingSplats:
    """Splats and their motion; those that move come first.

    In a frame a splat's centre is c = mean + weights @ shapes + breath * (1 - head_weight) * up, seen at
    head_weight * (R c + t) + (1 - head_weight) * c, where the pose (R, t) turns the ellipsoid, too.

    Attributes:
        splats: In the photo's own state.
        shapes: Offsets of the first splats, one set a shape.
        weights: Of the shapes in each frame.
        poses: Rigid transforms of the head from where the photo has it, R and t side by side.
        breath: How far the shoulders rise, along -y.
    """

    splats: Splats
    shapes: Float[np.ndarray, "shape moving 3"]
    weights: Float[np.ndarray, "frame shape"]
    poses: Float[np.ndarray, "frame 3 4"]
    breath: Float[np.ndarray, " frame"]

    def __len__(self) -> int:
        return len(self.weights)


@torch.no_grad()
def moving_splats(model: SDTalk, head: HeadGaussians, signals: DrivingSignals) -> MovingSplats:
    """A head's splats and their motion through a recording.

    Args:
        model: The model that made the head.
        head: One person.
        signals: All frames; on the CPU.
    """
    splats = splats_of(head, _shown_in(model, head, signals))
    person = head.only(torch.from_numpy(splats.kept).to(head.eyes.device))
    spread = np.linspace(0, len(signals) - 1, SAMPLED_FRAMES).round().astype(int)
    sampled = sorted({*spread.tolist(), *telling_frames(signals)})
    offsets = torch.cat([_offsets(model, person, signals[i : i + 1]) for i in sampled])
    moves = offsets.norm(dim=-1).amax(0) > STILL
    moving, still = moves.nonzero()[:, 0], (~moves).nonzero()[:, 0]
    shapes = principal_shapes(offsets[:, moving], SHAPES)
    rotation, translation = head.rest.rotation[0].cpu(), head.rest.translation[0].cpu()
    turns = signals.camera.rotation @ rotation.T
    shifts = signals.camera.translation - translation
    small = signals.small_motion
    return MovingSplats(
        splats=splats.ordered(torch.cat([moving, still]).numpy()),
        shapes=(shapes @ rotation.T).numpy(),
        weights=_weights(model, person, signals, shapes, moving).numpy(),
        poses=torch.cat([turns, shifts[..., None]], dim=-1).numpy(),
        breath=np.zeros(len(signals), np.float32) if small is None else small.breath.numpy(),
    )


def principal_shapes(offsets: Float[Tensor, "frame moving 3"], count: int) -> Float[Tensor, "shape moving 3"]:
    """The shapes whose sums come nearest to all of the offsets: their principal components, about no mean.

    Args:
        offsets: Of some frames.
        count: How many shapes, at most; fewer where the offsets have no more.
    """
    flat = offsets.flatten(1).double()
    power, mixes = torch.linalg.eigh(flat @ flat.T)  # of frames, which are far fewer than coordinates
    last = power.flip(0)[:count] > 1e-9 * power[-1].clamp_min(1e-12)
    chosen = mixes.flip(1)[:, :count][:, last]
    return (chosen.T @ flat).view(chosen.shape[1], *offsets.shape[1:]).float()


def _shown_in(model: SDTalk, head: HeadGaussians, signals: DrivingSignals) -> Int[Tensor, " shown"]:
    """Gaussians that show in the recording's most telling frames: a closed mouth hides what an open one shows."""
    inside = within_photo(head.gaussians, head.rest)
    seen = []
    for index in telling_frames(signals):
        frame = signals[index : index + 1].to(head.eyes.device)
        gaussians = model.animate(head, frame.audio_code, frame.eyes, frame.small_motion).gaussians
        if model.config.priors:
            gaussians = posed(gaussians, head, frame.camera)
        camera = frame.camera.to("cpu")
        gaussians = gaussians.only(inside).to("cpu")
        seen.append(contributions(gaussians, camera.resized(camera.width // 2), HALF_RATE_RULES))
    return inside.cpu()[torch.stack(seen).amax(0) > LEAST_SHOWN]


def _offsets(model: SDTalk, person: HeadGaussians, part: DrivingSignals) -> Float[Tensor, "frame gaussian 3"]:
    """How the centres move in some frames, but for the breath; in head space, on the CPU."""
    part = part.to(person.eyes.device)
    small = part.small_motion
    small = None if small is None else replace(small, breath=torch.zeros_like(small.breath))
    moved = model.animate(person, part.audio_code, part.eyes, small)
    return (moved.gaussians.means - person.gaussians.means).cpu()


def _weights(
    model: SDTalk,
    person: HeadGaussians,
    signals: DrivingSignals,
    shapes: Float[Tensor, "shape moving 3"],
    moving: Int[Tensor, " moving"],
) -> Float[Tensor, "frame shape"]:
    """How much of each shape every frame has, as some of the splats tell it (least squares)."""
    if not len(shapes):
        return torch.zeros(len(signals), 0)
    few = torch.linspace(0, len(moving) - 1, min(SAMPLED_SPLATS, len(moving))).round().long()
    sample = person.only(moving[few].to(person.eyes.device))
    tellers = shapes[:, few].flatten(1).T
    weights = []
    for start in range(0, len(signals), AT_ONCE):
        offsets = _offsets(model, sample, signals[start : start + AT_ONCE]).flatten(1)
        weights.append(torch.linalg.lstsq(tellers, offsets.T).solution.T)
    return torch.cat(weights)
