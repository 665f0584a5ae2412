"""Face measurements: size, place and pose of the face in every frame of a video, and of its crop."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from sdtalk.camera import FRAME_SIZE
from sdtalk.image import Crop
from sdtalk.tracking.camera_fit import fit_camera
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.framing import ROOM

CHUNK = 4096
"""Frames whose landmarks are in memory at once, but for a clip's own."""


@dataclass(frozen=True)
class FaceMeasurements:
    """What limits apply to, for every frame; NaN where there is no face.

    Attributes:
        face_px: Longer side of the face.
        angles_deg: Yaw (to the subject's left), pitch (up) and roll.
        outside: Share of the landmarks beyond the border of the picture.
        centre: Of the face, px.
    """

    face_px: Float[np.ndarray, " frame"]
    angles_deg: Float[np.ndarray, "frame 3"]
    outside: Float[np.ndarray, " frame"]
    centre: Float[np.ndarray, "frame 2"]


def measure_faces(records: np.ndarray, width: int, height: int) -> FaceMeasurements:
    """Measure the faces of a scan's records, some at a time."""
    parts = []
    for first in range(0, len(records), CHUNK):
        points = torch.from_numpy(np.array(records["points"][first : first + CHUNK]))
        beyond = (points[..., :2] < -0.5) | (points[..., :2] > points.new_tensor([width, height]) - 0.5)
        low, high = points[..., :2].amin(1), points[..., :2].amax(1)
        side = (high - low).amax(1)
        outside = beyond.any(2).float().mean(1)
        outside[side.isnan()] = torch.nan
        parts.append([t.numpy() for t in (side, head_angles(points), outside, (low + high) / 2)])
    return FaceMeasurements(*(np.concatenate(series) for series in zip(*parts, strict=True)))


def head_angles(points_px: Float[torch.Tensor, "frame 478 3"]) -> Float[torch.Tensor, "frame 3"]:
    """Yaw, pitch and roll in degrees of landmarks in px of a picture; NaN where there are none."""
    seen = points_px.isfinite().all(2).all(1)
    angles = torch.full((len(points_px), 3), torch.nan)
    if not seen.any():
        return angles
    points, face = points_px[seen], FaceModel.bundled()
    low, high = points[..., :2].amin(1), points[..., :2].amax(1)
    side = ROOM * (high - low).amax(1)[:, None, None]
    corner = torch.cat([(low + high) / 2, torch.zeros(len(points), 1)], dim=1)[:, None] - side / 2
    corner[..., 2] = 0
    camera, _ = fit_camera((points - corner) * (FRAME_SIZE / side), face.mean_face, face.pose_weights)
    rotation = camera.rotation
    out_of_face, up = rotation[:, :, 2], rotation[:, :, 1]  # the camera's axes: x right, y down, z away
    yaw = torch.atan2(out_of_face[:, 0], -out_of_face[:, 2])
    pitch = torch.asin((-out_of_face[:, 1]).clamp(-1, 1))
    roll = torch.atan2(up[:, 0], -up[:, 1])
    angles[seen] = torch.stack([yaw, pitch, roll], dim=1).rad2deg()
    return angles


def face_share(landmarks_px: Float[torch.Tensor, "frame 478 3"], crop: Crop) -> float:
    """Median longer side of the face, as a share of the square's side."""
    extent = landmarks_px[..., :2].amax(1) - landmarks_px[..., :2].amin(1)
    return float(extent.amax(1).median()) / crop.side


def crop_outside(crop: Crop, width: int, height: int) -> float:
    """Share of a square that lies beyond the border of the picture."""
    inside_x = max(0.0, min(crop.left + crop.side, width) - max(crop.left, 0))
    inside_y = max(0.0, min(crop.top + crop.side, height) - max(crop.top, 0))
    return 1 - inside_x * inside_y / crop.side**2


def percentiles(values: Sequence[float] | np.ndarray) -> list[float]:
    """2nd, 50th and 98th percentile, rounded for a report."""
    return [round(float(value), 2) for value in np.nanpercentile(values, (2, 50, 98))]
