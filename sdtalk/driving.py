"""Driving signals: what moves a head in every frame; idle motion, blinks, poses and eyes followed from a video."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.head_track import HeadTrack

NECK = (0.0, -0.45, -0.3)
"""Where a head turns: the middle of the neck, head-space units."""

SWAY_HZ = (0.05, 0.45)
SWAY_DEGREES = (0.8, 1.5, 0.8)
"""Standard deviation of idle pitch, yaw and roll."""
SWAY_SHIFT = 0.01  # 2 mm
NOD_HZ = (0.6, 1.2)
NOD_DEGREES = 0.35
"""Standard deviation of the faster pitch that goes with speech."""
WAVES = 10
FADE_IN_SECONDS = 1.0
"""The first frame is the photo's own pose."""

BLINK_PAUSE_SECONDS = (2.0, 6.0)
BLINK_SECONDS = (0.2, 0.3)
CLOSING_SHARE = 0.35
"""Lids fall in about a third of a blink and rise in the rest."""
CLOSED_GAP = 0.25
"""What the face mesh measures between closed lids, relative to open ones."""

GAPS = [0, 1, 3, 4]
"""Lid gaps in an eye state; the other two are widths of the eyes."""
WIDEST_EYES = 1.4
"""Limit on lid gaps taken from a video, relative to its median."""


@dataclass(frozen=True)
class DrivingSignals:
    """What drives a head, frame by frame.

    Attributes:
        audio_code: State of the mouth.
        eyes: State of the eyes.
        camera: Pose, one camera a frame.
    """

    audio_code: Float[Tensor, "frame *field audio"]
    eyes: Float[Tensor, "frame 6"]
    camera: Camera

    def __len__(self) -> int:
        return len(self.eyes)

    def __getitem__(self, index: slice) -> "DrivingSignals":
        return DrivingSignals(self.audio_code[index], self.eyes[index], self.camera[index])

    def to(self, device: torch.device | str) -> "DrivingSignals":
        """Move to a device."""
        return DrivingSignals(self.audio_code.to(device), self.eyes.to(device), self.camera.to(device))


def idle_cameras(rest: Camera, level: Float[Tensor, " frames"], seed: int) -> Camera:
    """Small smooth motion of a head around the pose of the photo: sums of slow waves, the same for a seed.

    Args:
        rest: The photo's camera, one.
        level: 1 where somebody speaks, 0 in pauses; speech brings slight nods.
        seed: Chooses the motion.
    """
    random = np.random.default_rng((seed, 1))
    frames = len(level)
    degrees = torch.stack([d * _waves(frames, SWAY_HZ, random) for d in SWAY_DEGREES], dim=1)
    shift = torch.stack([SWAY_SHIFT * _waves(frames, SWAY_HZ, random) for _ in range(3)], dim=1)
    degrees[:, 0] += NOD_DEGREES * _waves(frames, NOD_HZ, random) * _slow(level)
    fade = (torch.arange(frames) / (FADE_IN_SECONDS * FRAME_RATE_HZ)).clamp(max=1)
    fade = (fade * fade * (3 - 2 * fade))[:, None]
    turn = _rotations(torch.deg2rad(degrees * fade))
    neck = torch.tensor(NECK)
    moved = neck - turn @ neck + shift * fade
    rotation, translation = rest.rotation.cpu(), rest.translation.cpu()
    return Camera.from_pose(rotation @ turn, (rotation @ moved[..., None])[..., 0] + translation, rest.width)


def _waves(
    frames: int, band_hz: tuple[float, float], random: np.random.Generator
) -> Float[Tensor, " frames"]:
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


def followed_cameras(rest: Camera, driver: Camera, frames: int) -> Camera:
    """Move a head as the head in a video moves, relative to that head's mean pose, so that any video fits.

    Args:
        rest: The photo's camera, one.
        driver: Tracked cameras of the video; it is shown forwards and backwards until all frames are filled.
        frames: How many frames are wanted.
    """
    u, _, vt = torch.linalg.svd(driver.rotation.mean(0))
    usual = driver.translation.mean(0)
    driver = driver[forth_and_back(len(driver), frames)]
    turn = (u @ vt).T @ driver.rotation
    distance = rest.translation[:, 2:].cpu() * driver.translation[:, 2:] / usual[2]
    aside = rest.translation[:, :2].cpu() + driver.translation[:, :2] - usual[:2]
    return Camera.from_pose(rest.rotation.cpu() @ turn, torch.cat([aside, distance], dim=1), rest.width)


def forth_and_back(length: int, frames: int) -> Int[Tensor, " frames"]:
    """Indices 0, 1, ..., length - 1, length - 2, ..., 1, 0, 1, ... that loop a video without a jump."""
    period = max(1, 2 * length - 2)
    position = torch.arange(frames) % period
    return torch.minimum(position, period - position) if length > 1 else position


def natural_blinks(rest: Float[Tensor, "1 6"], frames: int, seed: int) -> Float[Tensor, "frames 6"]:
    """Eye states with a blink every 2 to 6 seconds; between them the photo's own eyes.

    Args:
        rest: Eye state of the photo.
        frames: How many frames.
        seed: Chooses the moments.
    """
    random = np.random.default_rng((seed, 2))
    closed = torch.zeros(frames)
    start = random.uniform(1.0, BLINK_PAUSE_SECONDS[1] / 2)
    while start * FRAME_RATE_HZ < frames:
        duration = random.uniform(*BLINK_SECONDS)
        first = math.floor(start * FRAME_RATE_HZ)
        touched = torch.arange(first, min(first + math.ceil(duration * FRAME_RATE_HZ) + 1, frames))
        passed = ((touched + 0.5) / FRAME_RATE_HZ - start) / duration
        closed[touched] = torch.maximum(closed[touched], _closing(passed))
        start += random.uniform(*BLINK_PAUSE_SECONDS)
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


def followed_mouth(
    driver: Float[Tensor, "driver 5"], source: Float[Tensor, "1 5"] | None
) -> Float[Tensor, "driver 5"]:
    """Mouth codes of a video as a head made of a photo knows them: the photo's own shape counts as neutral.

    Args:
        driver: As `FaceModel.mouth_code` measures them: an absolute opening, and shapes with the person's looks.
        source: The same of the photo, where it shows the person of the video; None: the video's mean is neutral.
    """
    neutral = driver.mean(0, keepdim=True) if source is None else source
    return torch.cat([driver[:, :1], driver[:, 1:] - neutral[:, 1:]], dim=1)


def with_lid_gaps(
    rest: Float[Tensor, "1 6"], share: Float[Tensor, "frames gap"]
) -> Float[Tensor, "frames 6"]:
    """Eye states whose lid gaps (one share for all, or four) are the given share of the photo's."""
    eyes = rest.cpu().repeat(len(share), 1)
    eyes[:, GAPS] *= share
    return eyes


def camera_path(
    pose: str, rest: Camera, level: Float[Tensor, " frames"], seed: int, driver: HeadTrack | None = None
) -> Camera:
    """One camera a frame.

    Args:
        pose: "idle" or "still"; not looked at where there is a driver.
        rest: The photo's camera, one.
        level: 1 where somebody speaks, 0 in pauses.
        seed: Chooses the idle motion.
        driver: The tracked video whose head is followed.
    """
    if driver is not None:
        return followed_cameras(rest, driver.camera, len(level))
    if pose == "idle":
        return idle_cameras(rest, level, seed)
    return rest[torch.zeros(len(level), dtype=torch.long)]


def eye_states(
    blink: str, rest: Float[Tensor, "1 6"], frames: int, seed: int, driver: HeadTrack | None = None
) -> Float[Tensor, "frames 6"]:
    """One eye state a frame.

    Args:
        blink: "natural" or "none"; not looked at where there is a driver.
        rest: Eye state of the photo.
        frames: How many frames.
        seed: Chooses the moments of blinks.
        driver: The tracked video whose eyes are followed.
    """
    if driver is not None:
        return followed_eyes(rest, driver.eyes, frames)
    if blink == "natural":
        return natural_blinks(rest, frames, seed)
    return rest.expand(frames, -1)
