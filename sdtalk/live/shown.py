"""Shown Gaussians: most of a head lies behind its front, or shows so little that nobody sees it leave."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians, posed
from sdtalk.live.in_flight import in_flight
from sdtalk.model import SDTalk
from sdtalk.rendering.cpu.backend import contributions
from sdtalk.rendering.rules import HALF_RATE_RULES

LEAST_SHOWN = 0.05
"""Gaussians that contribute less to every picture of half the size are left out; in px, front ones contribute 0.9."""

AROUND_PX = 8
"""What lies so far beyond the border of a telling frame may come into another."""


def telling_frames(signals: DrivingSignals) -> list[int]:
    """The frames whose head turns furthest left, right, up and down, whose mouth is open most, whose eyes least."""
    facing = signals.camera.rotation[:, :2, 2]
    opening, lids = signals.audio_code.flatten(1)[:, :1], -signals.eyes[:, :1]
    return sorted(set(torch.cat([facing, -facing, opening, lids], dim=1).argmax(0).tolist()))


def shown_gaussians(
    model: SDTalk, head: HeadGaussians, signals: DrivingSignals, least: float = LEAST_SHOWN
) -> Int[Tensor, " shown"]:
    """Indices of the Gaussians that show in the photo's own state, or in any of the telling frames.

    Args:
        model: The model that made the head.
        head: One person.
        signals: All frames that will be rendered.
        least: What contributes less is left out, px of a picture of half the size.
    """

    @torch.inference_mode()
    def seen_in(frame: DrivingSignals | None) -> Float[Tensor, " gaussian"]:
        gaussians, camera = head.gaussians, head.rest
        if frame is not None:
            camera = frame.camera
            animated = model.animate(head, frame.audio_code, frame.eyes, frame.small_motion)
            gaussians = posed(animated.gaussians, head, camera)
        camera = camera.with_margin(AROUND_PX)
        return contributions(gaussians, camera.resized(camera.width // 2), HALF_RATE_RULES)

    frames = [None, *(signals[index : index + 1] for index in telling_frames(signals))]
    seen = in_flight(seen_in, frames, min(torch.get_num_threads(), len(frames)))
    return (torch.stack(list(seen)).amax(0) > least).nonzero()[:, 0]
