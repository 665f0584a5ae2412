"""Shown Gaussians: most of a head lies behind its front, or shows so little that nobody sees it leave."""

import torch
from jaxtyping import Int
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians, posed
from sdtalk.model import SDTalk
from sdtalk.rendering.cpu.backend import contributions
from sdtalk.rendering.rules import HALF_RATE_RULES

LEAST_SHOWN = 0.05
"""A Gaussian that nowhere contributes as much to a picture, in px of half the size, is left out; a front one has 0.9."""


def telling_frames(signals: DrivingSignals) -> list[int]:
    """The frames whose head turns furthest to each side, up and down, and whose mouth and eyes are furthest apart."""
    facing = signals.camera.rotation[:, :2, 2]
    opening = signals.audio_code.flatten(1)[:, :1]
    measures = torch.cat([facing, opening, signals.eyes[:, :1]], dim=1)
    return sorted({*measures.argmin(0).tolist(), *measures.argmax(0).tolist()})


def shown_gaussians(
    model: SDTalk, head: HeadGaussians, signals: DrivingSignals
) -> Int[Tensor, " shown"]:
    """Indices of the Gaussians that show in the photo's own state, or in any of the telling frames.

    Args:
        model: The model that made the head.
        head: One person.
        signals: All frames that will be rendered.
    """
    most = contributions(head.gaussians, head.rest.resized(head.rest.width // 2), HALF_RATE_RULES)
    for index in telling_frames(signals):
        frame = signals[index : index + 1]
        animated = model.animate(head, frame.audio_code, frame.eyes, frame.small_motion)
        gaussians = posed(animated.gaussians, head, frame.camera)
        camera = frame.camera.resized(frame.camera.width // 2)
        most = torch.maximum(most, contributions(gaussians, camera, HALF_RATE_RULES))
    return (most > LEAST_SHOWN).nonzero()[:, 0]
