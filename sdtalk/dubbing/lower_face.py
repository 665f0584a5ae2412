"""Lower face of a shot: where mouth, chin and cheeks lie while somebody speaks other words, frame by frame."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import FRAME_SIZE, Camera
from sdtalk.dubbing.clip_track import Shot
from sdtalk.smoothstep import smoothly
from sdtalk.tracking.camera_fit import fit_camera, landmarks_in_crop
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.framing import BELOW, ROOM
from sdtalk.tracking.smoothing import fill_gaps, smooth, smooth_track

SPEAKS = (0.001, 0.008)
"""Points that speech moves less than the first, head-space units per unit of the mouth's code, stay as they are in the
clip; those that it moves more than the second follow the new words alone."""

SLOW_SIGMA = 6.0
"""Frames; averaged so four times: a smile of a second or two stays, words do not."""

APPEARING_FRAMES = 4
"""Frames in which the new mouth takes over where a face comes into sight or leaves it within a shot."""


@dataclass(frozen=True)
class LowerFace:
    """A shot's face, ready for other words. One entry a frame; px of the frame, 0 = left edge of the first pixel.

    Attributes:
        seen_xy: The face mesh as the frame shows it.
        heights: Of its points towards the camera, px.
        corners: Left and top of the square that the camera sees.
        sides: Its side.
        camera: Smoothed.
        base: The mesh without what is spoken: closed lips, and what the face does besides.
        strength: How far the new words count: 1, but 0 where there is no face.
    """

    seen_xy: Float[Tensor, "frame 478 2"]
    heights: Float[Tensor, "frame 478"]
    corners: Float[Tensor, "frame 2"]
    sides: Float[Tensor, " frame"]
    camera: Camera
    base: Float[Tensor, "frame 478 3"]
    strength: Float[Tensor, " frame"]

    @classmethod
    def of(cls, shot: Shot) -> "LowerFace":
        """Prepare a shot in which a face was seen at least once."""
        face, landmarks = FaceModel.bundled(), torch.stack(shot.landmarks)
        there = torch.isfinite(landmarks).all(2).all(1)
        landmarks = fill_gaps(landmarks, "", len(landmarks))
        corners, sides = following_squares(landmarks)
        in_square = landmarks + torch.tensor([0.5, 0.5, 0.0])
        in_square[..., :2] -= corners[:, None]
        in_square *= (FRAME_SIZE / sides)[:, None, None]
        camera, mesh = fit_camera(in_square, face.mean_face, face.pose_weights)
        camera, mesh = smooth_track(camera, mesh, face)
        code = face.mouth_code(mesh)
        usual = code[there].mean(0, keepdim=True)
        spoken = torch.cat([code[:, :1], code[:, 1:] - usual[:, 1:]], dim=1)
        return cls(
            landmarks[..., :2] + 0.5,
            -landmarks[..., 2],
            corners,
            sides,
            camera,
            slowly(mesh - face.mouth_displacement(spoken)),
            appearing(there),
        )

    def mesh(self, frame: int, code: Float[Tensor, " 5"]) -> Float[Tensor, "1 478 3"]:
        """The mesh with other words, head space.

        Args:
            frame: Number of the frame, from the shot's first on.
            code: State of the mouth; its opening is absolute, its shape relative to the person's usual one.
        """
        return self.base[frame : frame + 1] + FaceModel.bundled().mouth_displacement(code[None])

    def spoken_xy(self, frame: int, mesh: Float[Tensor, "1 478 3"]) -> Float[Tensor, "1 478 2"]:
        """Where a mesh from `mesh` lies in the frame: lips and chin as it says, the rest as seen."""
        wanted = self.camera[frame : frame + 1].project(mesh)
        wanted = self.corners[frame] + wanted * (self.sides[frame] / FRAME_SIZE)
        seen = self.seen_xy[frame : frame + 1]
        return torch.lerp(seen, wanted, (self.strength[frame] * share_of_speech())[:, None])


def share_of_speech() -> Float[Tensor, "478"]:
    """How far each point of the mesh follows the words: 1 at lips and chin, 0 from the cheekbones up."""
    face = FaceModel.bundled()
    reach = (face.opening_mode.square().sum(1) + face.mouth_modes.square().sum((0, 2))).sqrt()
    return smoothly(reach, *SPEAKS)


def following_squares(
    landmarks_px: Float[Tensor, "frame 478 3"],
) -> tuple[Float[Tensor, "frame 2"], Float[Tensor, " frame"]]:
    """Squares that follow a face smoothly: left and top, and the side; a face that walks by stays as large in them.

    Args:
        landmarks_px: Finite, px of the frame, 0 = centre of the first pixel.
    """
    points = landmarks_px[..., :2] + 0.5
    low, high = points.amin(1), points.amax(1)
    longer = slowly((high - low).amax(1, keepdim=True))
    middle = smooth((low + high) / 2, 3.0)
    middle[:, 1:] += BELOW * longer
    sides = ROOM * longer
    return middle - sides / 2, sides[:, 0]


def reference_head(shot: Shot) -> tuple[Camera, Float[Tensor, "1 478 3"]]:
    """Camera and mesh of the shot's open mouth, in its crop."""
    assert shot.mouth_landmarks is not None and shot.mouth_crop is not None
    face = FaceModel.bundled()
    points = landmarks_in_crop(shot.mouth_landmarks, shot.mouth_crop)
    return fit_camera(points, face.mean_face, face.pose_weights)


def slowly(values: Float[Tensor, "frame *rest"]) -> Float[Tensor, "frame *rest"]:
    """Average over about a second."""
    for _ in range(4):
        values = smooth(values, SLOW_SIGMA)
    return values


def appearing(there: Tensor) -> Float[Tensor, " frame"]:
    """0 where there is no face, 1 from `APPEARING_FRAMES` away from such frames on."""
    gone = (~there).float()[None, None]
    near = [F.max_pool1d(gone, 2 * d + 1, 1, d) for d in range(APPEARING_FRAMES + 1)]
    return smoothly(1 - torch.cat(near).mean((0, 1)), 0.0, 1.0)
