"""Tracked faces: where a face and its mouth are in every frame of a video, rendered or real; what metrics look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.image import Crop
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.tracker import Tracker
from training.evaluation.metrics import RenderedClip, Scores

Frames = Sequence[UInt8[np.ndarray, "height width 3"]]


@dataclass(frozen=True)
class TrackedFace:
    """A face as it is seen in every frame of a video.

    Attributes:
        mesh_px: The face mesh in px of the frames; 0 is the left edge of the first pixel.
        mouth: Mouth codes, see `FaceModel.mouth_code`.
        side_px: Longer side of the frames.
    """

    mesh_px: Float[Tensor, "frame 478 2"]
    mouth: Float[Tensor, "frame 5"]
    side_px: int

    @property
    def opening(self) -> Float[np.ndarray, " frame"]:
        """How far the lips are apart, see `FaceModel.mouth_opening`."""
        return self.mouth[:, 0].double().numpy()

    @property
    def boxes_px(self) -> Float[np.ndarray, "frame 4"]:
        """x_min, y_min, x_max, y_max, from the hairline to the chin."""
        return torch.cat([self.mesh_px.amin(1), self.mesh_px.amax(1)], dim=1).numpy()


@dataclass(frozen=True)
class FacePair:
    """The faces of a prediction and of the real frames.

    Attributes:
        predicted: As tracked in the rendered frames.
        real: As tracked in the real ones.
    """

    predicted: TrackedFace
    real: TrackedFace


TrackedFaces = dict[str, TrackedFace | str]
"""Of the "predicted" and the "real" frames; where one has none, why."""


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
    return TrackedFace(mesh_px, FaceModel.bundled().mouth_code(mesh), max(frames[0].shape[:2]))


def track_faces(tracker: Tracker, clip: RenderedClip) -> TrackedFaces:
    """Track the predicted and the real frames of a clip."""
    faces: TrackedFaces = {}
    for which, frames in (("predicted", clip.predicted), ("real", clip.real)):
        try:
            faces[which] = track_face(tracker, frames, f"{clip.name}, {which} frames")
        except InputError as error:
            faces[which] = str(error)
    return faces


@dataclass(frozen=True)
class SeenFace:
    """A face in a single picture, without smoothing.

    Attributes:
        mesh_px: The face mesh in px of the picture; 0 is the left edge of the first pixel.
        mesh: The face mesh in head space.
        eyes: The eye state, see `sdtalk.tracking.face_model.eye_state`.
    """

    mesh_px: Float[Tensor, "478 2"]
    mesh: Float[Tensor, "478 3"]
    eyes: Float[Tensor, " 6"]


def see_face(tracker: Tracker, picture: UInt8[np.ndarray, "height width 3"]) -> SeenFace | None:
    """Find the largest face of a picture; None where there is none."""
    found = tracker.networks.find_faces(torch.from_numpy(np.ascontiguousarray(picture))[None])[0]
    if not found:
        return None
    side = max(picture.shape[:2])
    track = tracker.head_track(found[0].points[None].cpu(), Crop(0.0, 0.0, float(side)))
    mesh_px = track.camera.project(track.mesh) * (side / track.camera.width)
    return SeenFace(mesh_px[0], track.mesh[0], track.eyes[0])


def both_faces(faces: TrackedFaces, scores: Scores, *names: str) -> FacePair | None:
    """The faces of both videos; where one has none, the metrics of these names are skipped."""
    predicted, real = faces["predicted"], faces["real"]
    if isinstance(predicted, str) or isinstance(real, str):
        scores.skip(predicted if isinstance(predicted, str) else str(real), *names)
        return None
    return FacePair(predicted, real)
