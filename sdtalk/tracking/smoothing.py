"""Smoothing of tracked videos: takes out jitter, keeps speech and blinks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.tracking.face_model import IRIS_CENTRES, LIPS, LOWER_LIDS, UPPER_LIDS, FaceModel

FRAMES_PER_SECOND = 25

LONGEST_GAP = 12
"""Frames in a row without a face that are bridged (0.5 s); a hand passing, not a cut."""

# Standard deviations of the Gaussians, in frames at 25 fps. Heads turn below 3 Hz, lids close within two frames.
ROTATION_SIGMA = 1.2
POSITION_SIGMA = 0.8  # in the picture: well measured, and an error there is an error of everything
DISTANCE_SIGMA = 3.0  # a head's size in the picture hardly changes, and its estimate is the noisiest of all
STILL_SIGMA = 2.0  # of the mesh where speech moves nothing
JAW_SIGMA = 0.8
CRISP_SIGMA = 0.4  # lips, lids, irises: a blink or a closure of the lips of two frames keeps its depth

_RADIUS = 9
"""Frames to each side that a Gaussian looks at: three standard deviations of the widest."""


def fill_gaps(
    landmarks_px: Float[Tensor, "frame point 3"], name: str, longest: int = LONGEST_GAP
) -> Float[Tensor, "frame point 3"]:
    """Interpolate short gaps in which no face was found (NaN); at the ends, hold the nearest frame.

    Args:
        landmarks_px: Landmarks of a video.
        name: What to call the video in an error.
        longest: Length in frames of the longest gap that is filled.

    Raises:
        InputError: A gap is longer, or there is no face at all.
    """
    found = torch.isfinite(landmarks_px).all(dim=2).all(dim=1)
    if found.all():
        return landmarks_px
    remedy = "Use a video in which one face can be seen throughout."
    if not found.any():
        raise InputError(name, "no face was found in this video", remedy)
    frames = torch.arange(len(found), device=found.device)
    none = torch.full_like(frames, -1)
    before = torch.where(found, frames, none).cummax(0).values
    after = (
        len(frames) - 1 - torch.where(found, len(frames) - 1 - frames, none).flip(0).cummax(0).values.flip(0)
    )
    gap = torch.where(after < len(frames), after, len(frames)) - before - 1
    if gap.max() > longest:
        seconds = float(before[gap.argmax()] + 1) / FRAMES_PER_SECOND
        problem = f"from {seconds:.1f} s on, no face was found for {int(gap.max()) / FRAMES_PER_SECOND:.1f} s"
        raise InputError(name, problem, remedy)
    before, after = torch.where(before < 0, after, before), torch.where(after == len(frames), before, after)
    share = (frames - before) / (after - before).clamp(min=1)
    return torch.lerp(landmarks_px[before], landmarks_px[after], share[:, None, None])


def smooth(values: Float[Tensor, "frame *rest"], sigma: float) -> Float[Tensor, "frame *rest"]:
    """Gaussian average over time; at the ends, over the frames there are."""
    steps = torch.arange(-_RADIUS, _RADIUS + 1, dtype=values.dtype, device=values.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())[None, None]
    series = values.flatten(1).T[:, None]
    inside = F.conv1d(torch.ones_like(series[:1]), kernel, padding=_RADIUS)
    return (F.conv1d(series, kernel, padding=_RADIUS) / inside)[:, 0].T.reshape(values.shape)


def smooth_track(
    camera: Camera, mesh: Float[Tensor, "frame 478 3"], face: FaceModel
) -> tuple[Camera, Float[Tensor, "frame 478 3"]]:
    """Smooth a video's cameras and meshes, each quantity as far as its own pace allows.

    Position is that of the middle of the points the pose comes from, not of head space's origin, whose place
    depends on the noise of the rotation.
    """
    middle = (face.pose_weights[:, None] * face.mean_face).sum(0) / face.pose_weights.sum()
    anchor = camera.rotation @ middle + camera.translation
    ray = smooth(anchor[:, :2] / anchor[:, 2:], POSITION_SIGMA)
    distance = smooth(anchor[:, 2:], DISTANCE_SIGMA)
    u, _, vt = torch.linalg.svd(smooth(camera.rotation, ROTATION_SIGMA))  # nearest rotation to the average
    rotation = u @ vt
    translation = torch.cat([ray * distance, distance], dim=1) - rotation @ middle
    return Camera.from_pose(rotation, translation, camera.width), smooth_mesh(mesh, face)


def smooth_mesh(mesh: Float[Tensor, "frame 478 3"], face: FaceModel) -> Float[Tensor, "frame 478 3"]:
    """Smooth meshes in head space: most where nothing moves, hardly at lips, lids and irises."""
    crisp = torch.zeros(mesh.shape[1], dtype=torch.bool, device=mesh.device)
    eyes = [i for lids in (*UPPER_LIDS, *LOWER_LIDS) for i in lids]
    crisp[LIPS + eyes + list(range(IRIS_CENTRES[0], mesh.shape[1]))] = True
    speaks = face.opening_mode.norm(dim=1) > 0
    smoothed = torch.where(speaks[:, None], smooth(mesh, JAW_SIGMA), smooth(mesh, STILL_SIGMA))
    return torch.where(crisp[:, None], smooth(mesh, CRISP_SIGMA), smoothed)
