"""Landmark metrics: LMD of the whole face and of the lips.

LMD, the landmark distance: the mean Euclidean distance between the 68 landmarks of a predicted frame and those of the
real one, in px of a 512 px frame. "Lips LMD" compares the 20 of the lips (48:68), in each frame relative to their own
mean (L. Chen et al., "Lip movements generation at a glance", 2018): pose is left out of it. The published table does
not say which landmarks or units it uses; Lips LMD of face-alignment's landmarks is the likely convention.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.flame.fan import FanLandmarks
from sdtalk.tracking.landmarks68 import INNER_LIP, OUTER_LIP, landmarks68
from training.evaluation.tracked_face import Frames, TrackedFace

LIPS68 = slice(OUTER_LIP.start, INNER_LIP.stop)


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
