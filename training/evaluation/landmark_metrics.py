"""Landmark metrics: LMD of the whole face and of the lips, and the face track they are computed from.

LMD, the landmark distance: the mean Euclidean distance between the 68 landmarks of a predicted frame and those of the
real one, in px of a 512 px frame. "Lips LMD" compares the 20 of the lips, in each frame relative to their own mean (L.
Chen et al., "Lip movements generation at a glance", 2018): pose is left out of it. The published table does not say
which landmarks or units it uses; other papers take all 68 in px, as here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.flame.fan import FanLandmarks
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.landmarks68 import INNER_LIP, OUTER_LIP, landmarks68
from sdtalk.tracking.tracker import Tracker

LIPS68 = slice(OUTER_LIP.start, INNER_LIP.stop)
Frames = Sequence[UInt8[np.ndarray, "height width 3"]]


@dataclass(frozen=True)
class TrackedFace:
    """A face as it is seen in every frame of a video.

    Attributes:
        mesh_px: The face mesh in px of the frames; 0 is the left edge of the first pixel.
        opening: How far the lips are apart, see `FaceModel.mouth_opening`.
        side_px: Longer side of the frames.
    """

    mesh_px: Float[Tensor, "frame 478 2"]
    opening: Float[np.ndarray, " frame"]
    side_px: int

    @property
    def boxes_px(self) -> Float[np.ndarray, "frame 4"]:
        """x_min, y_min, x_max, y_max, from the hairline to the chin."""
        return torch.cat([self.mesh_px.amin(1), self.mesh_px.amax(1)], dim=1).numpy()


def track_face(tracker: Tracker, frames: Frames, name: str) -> TrackedFace:
    """Track the frames as a video, with its smoothing; so it is done for predicted and for real frames.

    Args:
        tracker: The bundled one, whatever the model was trained with.
        frames: RGB.
        name: What to call them in an error.

    Raises:
        InputError: There is no face, or it is out of sight for more than half a second.
    """
    video = tracker.video(iter(frames), name)
    camera, mesh, crop = video.track.camera, video.track.mesh, video.crop
    in_crop = camera.project(mesh) * (crop.side / camera.width)
    mesh_px = in_crop + in_crop.new_tensor([crop.left, crop.top])
    return TrackedFace(mesh_px, FaceModel.bundled().mouth_opening(mesh).numpy(), max(frames[0].shape[:2]))


def landmark_distance(
    ours: Float[Tensor, "frame 68 2"], theirs: Float[Tensor, "frame 68 2"], side_px: int
) -> float:
    """LMD: mean over frames and landmarks, in px of a 512 px frame."""
    return float((ours - theirs).norm(dim=-1).mean()) * FRAME_SIZE / side_px


def lip_distance(
    ours: Float[Tensor, "frame 68 2"], theirs: Float[Tensor, "frame 68 2"], side_px: int
) -> float:
    """The same for the lips, each frame's relative to their mean."""
    a, b = ours[:, LIPS68], theirs[:, LIPS68]
    return landmark_distance(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True), side_px)


def mesh_landmarks(face: TrackedFace) -> Float[Tensor, "frame 68 2"]:
    """The 68 landmarks of our mesh."""
    mesh = torch.nn.functional.pad(face.mesh_px, (0, 1))
    return landmarks68(mesh)[..., :2]


def fan_landmarks(finder: FanLandmarks, frames: Frames, face: TrackedFace) -> Float[Tensor, "frame 68 2"]:
    """The 68 landmarks that face-alignment finds where our tracker sees the face."""
    boxes = torch.from_numpy(face.boxes_px) - 0.5  # there 0 is the centre of the first pixel
    found = []
    for first in range(0, len(frames), 8):
        pictures = np.stack([frames[i] for i in range(first, min(first + 8, len(frames)))])
        found.append(finder.find(torch.from_numpy(pictures), boxes[first : first + len(pictures)]))
    return torch.cat(found)
