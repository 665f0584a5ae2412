"""Head motion: a pose for every frame, made up (idle), followed from a video, or still, and turned as asked."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.driving.idle_style import IDLE_STYLES, beat_nods
from sdtalk.smoothstep import smoothstep
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.head_track import HeadTrack

NECK = (0.0, -0.45, -0.3)
"""Where a head turns: the middle of the neck, head-space units."""

NOD_HZ = (0.6, 1.2)
"""Band of the faster pitch that goes with speech."""
WAVES = 10
FADE_IN_SECONDS = 1.0
"""The first frame is the photo's own pose."""


def idle_cameras(
    rest: Camera,
    level: Float[Tensor, " frames"],
    seed: int,
    style: str = "natural",
    strength: float = 1.0,
    stressed: Sequence[int] = (),
) -> Camera:
    """Small smooth motion of a head around the pose of the photo: sums of slow waves, the same for a seed.

    Args:
        rest: The photo's camera, one.
        level: 1 where somebody speaks, 0 in pauses; speech brings slight nods.
        seed: Chooses the motion.
        style: One of `IDLE_STYLES`.
        strength: Factor on all of it, 1 as the style has it.
        stressed: Frames at which a word is stressed, for the styles that nod there.
    """
    random, how = np.random.default_rng((seed, 1)), IDLE_STYLES[style]
    frames = len(level)
    degrees = torch.stack([d * waves(frames, how.sway_hz, random) for d in how.sway_degrees], dim=1)
    shift = torch.stack([how.sway_shift * waves(frames, how.sway_hz, random) for _ in range(3)], dim=1)
    degrees[:, 0] += how.nod_degrees * waves(frames, NOD_HZ, random) * _slow(level)
    degrees[:, 0] += beat_nods(how, list(stressed), frames, seed)
    fade = strength * fade_in(frames)[:, None]
    turn, neck = _rotations(torch.deg2rad(degrees * fade)), torch.tensor(NECK)
    moved = neck - turn @ neck + shift * fade
    rotation, translation = rest.rotation.cpu(), rest.translation.cpu()
    return Camera.from_pose(rotation @ turn, (rotation @ moved[..., None])[..., 0] + translation, rest.width)


def fade_in(frames: int) -> Float[Tensor, " frames"]:
    """0 in the first frame, 1 from `FADE_IN_SECONDS` on: every video begins as the photo is."""
    return smoothstep(torch.arange(frames) / (FADE_IN_SECONDS * FRAME_RATE_HZ))


def waves(frames: int, band_hz: tuple[float, float], random: np.random.Generator) -> Float[Tensor, " frames"]:
    """Band-limited noise of standard deviation 1: slower waves are larger."""
    hz = np.geomspace(*band_hz, WAVES) * random.uniform(0.9, 1.1, WAVES)
    size = hz**-0.5 * random.uniform(0.5, 1.5, WAVES)
    size *= math.sqrt(2 / np.square(size).sum())
    seconds = np.arange(frames)[:, None] / FRAME_RATE_HZ
    waves = np.sin(2 * np.pi * hz * seconds + random.uniform(0, 2 * np.pi, WAVES)) @ size
    return torch.from_numpy(waves.astype(np.float32))


def _slow(level: Float[Tensor, " frames"]) -> Float[Tensor, " frames"]:
    """Average over a second, so that nods start and end gently."""
    width = FRAME_RATE_HZ // 2 * 2 + 1
    padded = torch.nn.functional.pad(level[None, None], (width // 2,) * 2, mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, width, 1)[0, 0]


def _rotations(angles: Float[Tensor, "frames 3"]) -> Float[Tensor, "frames 3 3"]:
    """Rotations by pitch (about x), yaw (about y) and roll (about z), in radians: about x first."""
    cos, sin = angles.cos().unbind(1), angles.sin().unbind(1)
    zero, one = torch.zeros_like(cos[0]), torch.ones_like(cos[0])
    pitch = torch.stack([one, zero, zero, zero, cos[0], -sin[0], zero, sin[0], cos[0]], dim=1)
    yaw = torch.stack([cos[1], zero, sin[1], zero, one, zero, -sin[1], zero, cos[1]], dim=1)
    roll = torch.stack([cos[2], -sin[2], zero, sin[2], cos[2], zero, zero, zero, one], dim=1)
    return roll.view(-1, 3, 3) @ yaw.view(-1, 3, 3) @ pitch.view(-1, 3, 3)


def turned_cameras(camera: Camera, yaw: float, pitch: float, roll: float) -> Camera:
    """Turn a head about its neck in every frame, on top of what it does anyway.

    Args:
        camera: Pose of every frame; comes back as it is where all angles are 0.
        yaw: Degrees, towards the right of the picture.
        pitch: Degrees, upwards.
        roll: Degrees, clockwise in the picture.
    """
    if not (yaw or pitch or roll):
        return camera
    turn = _rotations(torch.deg2rad(torch.tensor([[-pitch, yaw, -roll]])))[0]
    neck, rotation = torch.tensor(NECK), camera.rotation.cpu()
    moved = camera.translation.cpu() + rotation @ (neck - turn @ neck)
    return Camera.from_pose(rotation @ turn, moved, camera.width)


def followed_cameras(rest: Camera, driver: Camera, frames: int, strength: float = 1.0) -> Camera:
    """Move a head as the head in a video moves, relative to that head's mean pose, so that any video fits.

    Args:
        rest: The photo's camera, one.
        driver: Tracked cameras of the video; it is shown forwards and backwards until all frames are filled.
        frames: How many frames are wanted.
        strength: Factor on the motion, 1 as in the video, 0 for none.
    """
    u, _, vt = torch.linalg.svd(driver.rotation.mean(0))
    usual = driver.translation.mean(0)
    driver = driver[forth_and_back(len(driver), frames)]
    turn, moved = (u @ vt).T @ driver.rotation, driver.translation
    if strength != 1:
        turn, moved = _scaled(turn, strength), torch.lerp(usual, moved, strength)
    distance = rest.translation[:, 2:].cpu() * moved[:, 2:] / usual[2]
    aside = rest.translation[:, :2].cpu() + moved[:, :2] - usual[:2]
    return Camera.from_pose(rest.rotation.cpu() @ turn, torch.cat([aside, distance], dim=1), rest.width)


def _scaled(turn: Float[Tensor, "frames 3 3"], factor: float) -> Float[Tensor, "frames 3 3"]:
    """Rotations by a multiple of their angles, which are below a half turn, about the same axes."""
    angle = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos()
    axis = (turn - turn.transpose(1, 2)) / 2  # times the angle's sine
    return torch.linalg.matrix_exp(axis * (factor / torch.sinc(angle / math.pi))[:, None, None])


def forth_and_back(length: int, frames: int) -> Int[Tensor, " frames"]:
    """Indices 0, 1, ..., length - 1, length - 2, ..., 1, 0, 1, ... that loop a video without a jump."""
    period = max(1, 2 * length - 2)
    position = torch.arange(frames) % period
    return torch.minimum(position, period - position) if length > 1 else position


def camera_path(
    pose: str,
    rest: Camera,
    level: Float[Tensor, " frames"],
    seed: int,
    driver: HeadTrack | None = None,
    style: str = "natural",
    strength: float = 1.0,
    stressed: Sequence[int] = (),
) -> Camera:
    """One camera a frame.

    Args:
        pose: "idle" or "still"; not looked at where there is a driver.
        rest: The photo's camera, one.
        level: 1 where somebody speaks, 0 in pauses.
        seed: Chooses the idle motion.
        driver: The tracked video whose head is followed.
        style: Of the idle motion, one of `IDLE_STYLES`.
        strength: Factor on idle or followed motion.
        stressed: Frames at which a word is stressed.
    """
    if driver is not None:
        return followed_cameras(rest, driver.camera, len(level), strength)
    if pose == "idle":
        return idle_cameras(rest, level, seed, style, strength, stressed)
    return rest[torch.zeros(len(level), dtype=torch.long)]
