"""Gaze: where the irises are in every frame; fixations on the camera, glances aside, or the eyes of a video.

Figures marked "measured" come from the 113 clips of the training sets that show open eyes long enough (the shift of
the tracked irises against the corners of their eyes, blinks left out; 1 mm is 0.005 units).
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.driving.head_motion import fade_in, forth_and_back, waves
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.tracking.face_model import iris_places

EYES_MIDDLE = (0.0, 0.165, 0.17)
"""Between the eyeballs' centres, head-space units."""

HOLDING = (0.037, 0.022)
"""Shift of the irises per sine of the angle by which a head turns sideways, and up or down, while the eyes stay on
their goal (measured: medians of the clips' regressions, r .44 and .49; an eyeball's own geometry would say .05)."""

AT_CAMERA_SECONDS, ASIDE_SECONDS = (1.4, 0.7), (0.55, 0.5)
"""Median and log-spread of fixations on the camera and elsewhere (measured: quartiles .12, .44 and 1.3 s, one in ten
over 3 s)."""
FIXATION_SECONDS = (0.3, 3.2)

GLANCE = (0.0085, 0.45)
"""Median and log-spread of a glance's shift (measured: quartiles .0059, .0086 and .013)."""
SHORTEST_GLANCE = 0.004
FARTHEST_GAZE = (0.014, 0.008)
"""Limits sideways, and up or down: from .02 on a second rim of the lids shows in the corner that the iris leaves
(looked at on five photos)."""
FLATNESS = 0.45
"""Glances go so much less up and down than sideways (measured: .0030 to .0064)."""
BACK = 0.75
"""Share of glances that lead straight back to the camera."""
OFF_CAMERA = 0.0012
"""Standard deviation of fixations on the camera, one from the other."""
REFIXATION = 0.35
"""Share of fixations on the camera after which another one on it follows."""

SHORT_SACCADE = 0.007
MIDWAY = 0.6
"""Longer saccades show a frame on their way, so far (20 to 50 ms; shorter ones are over within a frame)."""

DRIFT_HZ, DRIFT = (0.1, 2.0), 0.0003
"""Standard deviation of what eyes wander within a fixation (measured: .0004 a frame, with the tracker's noise)."""


def natural_gaze(rest: Camera, camera: Camera, seed: int, life: float = 1.0) -> Float[Tensor, "frames 3"]:
    """Shift of both irises since the photo: eyes hold their goal while the head turns, and glance aside.

    The photo's own gaze counts as the one at the camera.

    Args:
        rest: The photo's camera, one.
        camera: Pose of every frame.
        seed: Chooses the glances.
        life: Factor on the glances; 0: the eyes never leave the camera.
    """
    random = np.random.default_rng((seed, 4))
    frames = len(camera)
    drift = torch.stack([DRIFT * waves(frames, DRIFT_HZ, random) for _ in range(2)], dim=1)
    goals = torch.from_numpy(_fixations(frames, random))
    glances = (goals + drift) * fade_in(frames)[:, None]
    return _limited(life * glances + _holding(rest, camera))


def held_gaze(rest: Camera, camera: Camera) -> Float[Tensor, "frames 3"]:
    """Shift of both irises of eyes that stay on the camera; arguments as of `natural_gaze`."""
    return _limited(_holding(rest, camera))


def followed_gaze(
    driver: Float[Tensor, "driver 478 3"], frames: int, start: Float[Tensor, "1 478 3"] | None = None
) -> Float[Tensor, "frames 3"]:
    """Shift of both irises as in a video, within the limits of a picture.

    Args:
        driver: Face meshes of the video; it is shown forwards and backwards until all frames are filled.
        frames: How many frames are wanted.
        start: Mesh of the photo, where it shows the person of the video; None: the video's usual gaze is the photo's.
    """
    place = iris_places(driver).mean(1)[:, :2]
    usual = place.median(0).values if start is None else iris_places(start)[0].mean(0)[:2]
    return _limited((place - usual)[forth_and_back(len(driver), frames)])


def _limited(shift: Float[Tensor, "frames 2"]) -> Float[Tensor, "frames 3"]:
    limit = shift.new_tensor(FARTHEST_GAZE)
    return torch.nn.functional.pad(shift.clamp(-limit, limit), (0, 1))


def _holding(rest: Camera, camera: Camera) -> Float[Tensor, "frames 2"]:
    """What keeps the eyes on their goal while the head moves from its pose in the photo."""
    eyes = torch.tensor(EYES_MIDDLE)
    now, before = (torch.nn.functional.normalize(c.centre.cpu() - eyes, dim=1) for c in (camera, rest))
    return (now - before)[:, :2] * torch.tensor(HOLDING)


def _fixations(frames: int, random: np.random.Generator) -> np.ndarray:
    """Goals of the eyes, float32 [frames, 2]: jumps of one or two frames between places that are held."""
    goals = np.zeros((frames, 2), np.float32)
    place, at_camera, first = np.zeros(2), True, 0
    while True:
        first += round(_seconds(AT_CAMERA_SECONDS if at_camera else ASIDE_SECONDS, random) * FRAME_RATE_HZ)
        if first >= frames:
            return goals
        at_camera = random.random() < (REFIXATION if at_camera else BACK)
        goal = random.normal(0, OFF_CAMERA, 2) if at_camera else _glance(random)
        goals[first:] = goal
        if np.linalg.norm(goal - place) > SHORT_SACCADE:
            goals[first] = place + MIDWAY * (goal - place)
        place = goal


def _seconds(usual: tuple[float, float], random: np.random.Generator) -> float:
    median, spread = usual
    return float(np.clip(median * math.exp(random.normal(0, spread)), *FIXATION_SECONDS))


def _glance(random: np.random.Generator) -> np.ndarray:
    median, spread = GLANCE
    angle = random.uniform(0, 2 * math.pi)
    size = max(median * math.exp(random.normal(0, spread)), SHORTEST_GLANCE)
    direction = np.array([math.cos(angle), FLATNESS * math.sin(angle)])
    return size * direction
