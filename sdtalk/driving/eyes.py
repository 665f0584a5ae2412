"""Eye states: lid gaps of every frame, with natural blinks or as in a video; lids follow the gaze."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.driving.head_motion import forth_and_back
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.head_track import HeadTrack

BLINK_PAUSE_SECONDS = (2.0, 6.0)
BLINKS_A_MINUTE = 15.0
"""With those pauses; other rates make them longer or shorter."""
BLINK_SECONDS = (0.2, 0.3)
CLOSING_SHARE = 0.35
"""Lids fall in about a third of a blink and rise in the rest."""
CLOSED_GAP = 0.25
"""What the face mesh measures between closed lids, relative to open ones."""

GAPS = [0, 1, 3, 4]
"""Lid gaps in an eye state; the other two are widths of the eyes."""
WIDEST_EYES = 1.4
"""Limit on lid gaps taken from a video, relative to its median."""

LID_PER_GAZE = 0.8
"""Change of the lid gap per shift of the iris up or down. Upper lids follow the eye nearly one to one, lower lids less
(Becker and Fuchs 1988, "Lid-eye coordination during vertical gaze changes in man and monkey", J. Neurophysiol. 60).
Measured in 113 clips: medians of the regressions .98 for the upper lid (r .70), .27 for the lower, .8 for the gap."""
FOLLOWING_SHARE = (0.5, 1.3)
"""Limits on what lids do by following the gaze, relative to the photo's gap."""


def natural_blinks(
    rest: Float[Tensor, "1 6"], frames: int, seed: int, rate: float = BLINKS_A_MINUTE
) -> Float[Tensor, "frames 6"]:
    """Eye states with a blink every 2 to 6 seconds; between them the photo's own eyes.

    Args:
        rest: Eye state of the photo.
        frames: How many frames.
        seed: Chooses the moments.
        rate: Blinks a minute on average, above 0; pauses become so much shorter or longer.
    """
    random, slower = np.random.default_rng((seed, 2)), BLINKS_A_MINUTE / rate
    closed = torch.zeros(frames)
    start = slower * random.uniform(1.0, BLINK_PAUSE_SECONDS[1] / 2)
    while start * FRAME_RATE_HZ < frames:
        duration = random.uniform(*BLINK_SECONDS)
        first = math.floor(start * FRAME_RATE_HZ)
        touched = torch.arange(first, min(first + math.ceil(duration * FRAME_RATE_HZ) + 1, frames))
        passed = ((touched + 0.5) / FRAME_RATE_HZ - start) / duration
        closed[touched] = torch.maximum(closed[touched], _closing(passed))
        start += slower * random.uniform(*BLINK_PAUSE_SECONDS)
    return with_lid_gaps(rest, (1 - (1 - CLOSED_GAP) * closed)[:, None])


def _closing(passed: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """How far lids are closed when so much of a blink has passed, 0 outside [0, 1]."""
    phase = torch.where(
        passed < CLOSING_SHARE, passed / CLOSING_SHARE, (1 - passed) / (1 - CLOSING_SHARE)
    ).clamp(0, 1)
    return (1 - (math.pi * phase).cos()) / 2


def followed_eyes(
    rest: Float[Tensor, "1 6"], driver: Float[Tensor, "driver 6"], frames: int
) -> Float[Tensor, "frames 6"]:
    """Open and close a photo's eyes as those in a video do, relative to that video's usual opening."""
    gaps = driver[:, GAPS]
    share = (gaps / gaps.median(0).values.clamp(min=1e-6)).clamp(0, WIDEST_EYES)
    return with_lid_gaps(rest, share[forth_and_back(len(driver), frames)])


def following_lids(
    eyes: Float[Tensor, "frames 6"], rest: Float[Tensor, "1 6"], gaze: Float[Tensor, "frames 3"]
) -> Float[Tensor, "frames 6"]:
    """Lower the upper lids where the eyes look down, and raise them where they look up, also within a blink.

    Args:
        eyes: Eye states, head-space units, as they are while the gaze rests.
        rest: Eye state of the photo.
        gaze: Shift of the irises since the photo.
    """
    gap = rest.cpu()[:, GAPS].clamp(min=1e-6)
    followed = eyes.clone()
    followed[:, GAPS] *= ((gap + LID_PER_GAZE * gaze[:, 1:2]) / gap).clamp(*FOLLOWING_SHARE)
    return followed


def with_lid_gaps(
    rest: Float[Tensor, "1 6"], share: Float[Tensor, "frames gap"]
) -> Float[Tensor, "frames 6"]:
    """Eye states whose lid gaps (one share for all, or four) are the given share of the photo's."""
    eyes = rest.cpu().repeat(len(share), 1)
    eyes[:, GAPS] *= share
    return eyes


def eye_states(
    blink: str,
    rest: Float[Tensor, "1 6"],
    frames: int,
    seed: int,
    driver: HeadTrack | None = None,
    rate: float = BLINKS_A_MINUTE,
) -> Float[Tensor, "frames 6"]:
    """One eye state a frame.

    Args:
        blink: "natural" or "none"; not looked at where there is a driver.
        rest: Eye state of the photo.
        frames: How many frames.
        seed: Chooses the moments of blinks.
        driver: The tracked video whose eyes are followed.
        rate: Natural blinks a minute on average; 0: none.
    """
    if driver is not None:
        return followed_eyes(rest, driver.eyes, frames)
    if blink == "natural" and rate:
        return natural_blinks(rest, frames, seed, rate)
    return rest.expand(frames, -1)
