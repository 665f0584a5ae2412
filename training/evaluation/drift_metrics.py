"""Drift metrics: whether the frames of a long video stay as sharp, and the face the same, as in its first seconds."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8

from sdtalk.camera import UNIT_M
from sdtalk.errors import InputError
from sdtalk.tracking.tracker import Tracker
from training.evaluation import identity
from training.evaluation.face_boxes import cut, large_enough
from training.evaluation.identity import IrSe50, align_faces
from training.evaluation.tracked_face import SeenFace, see_face
from training.image_metrics import gradient_energy
from training.optional_networks import missing_network_reason

REFERENCE_S = 5.0
"""So much of the beginning the rest is compared with; the end is as long."""

CURVES = {
    "sharpness": "sharpness: gradient energy of the face box over that of the first seconds",
    "identity": "identity: cosine of ArcFace embeddings with the mean of the first seconds",
    "shape_mm": "shape: distance of the rigid points of the face mesh from their mean in the first seconds, mm",
}


@dataclass(frozen=True)
class MeasuredFrame:
    """A frame of the video.

    Attributes:
        seconds: When it is shown.
        energy: Gradient energy of the face box; NaN where no face is found.
        face: Where and how it is; None where none is found.
        embedding: Of the face, of length 1; None without the network, or without a face.
    """

    seconds: float
    energy: float
    face: SeenFace | None
    embedding: Float[np.ndarray, " width"] | None


@dataclass(frozen=True)
class Drift:
    """Curves over a video; NaN where no face is found.

    Attributes:
        seconds: Of the measured frames.
        curves: By names of `CURVES`.
        missing: For the others the reason.
    """

    seconds: Float[np.ndarray, " measured"]
    curves: dict[str, Float[np.ndarray, " measured"]]
    missing: dict[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, dict[str, float]]:
        """Of every curve its mean in the first and in the last seconds, and its slope a minute (least squares)."""
        found = {}
        for name, curve in self.curves.items():
            known = np.isfinite(curve)
            x, y = self.seconds[known] / 60, curve[known]
            first, last = x < REFERENCE_S / 60, x > x[-1] - REFERENCE_S / 60
            slope = float(np.polyfit(x, y, 1)[0]) if x[-1] > x[0] else 0.0
            found[name] = {
                "start": float(y[first].mean()),
                "end": float(y[last].mean()),
                "slope_per_minute": slope,
            }
        return found


def measure_frame(
    tracker: Tracker, arcface: IrSe50 | None, frame: UInt8[np.ndarray, "height width 3"], seconds: float
) -> MeasuredFrame:
    """Measure one frame, whatever stands before or after it."""
    face = see_face(tracker, frame)
    if face is None:
        return MeasuredFrame(seconds, np.nan, None, None)
    ends = torch.cat([face.mesh_px.amin(0).floor(), face.mesh_px.amax(0).ceil()])
    size = ends.new_tensor([frame.shape[1], frame.shape[0]] * 2)
    box = ends.clamp_min(0).minimum(size).long().numpy()
    energy = gradient_energy(cut(frame, box)) if large_enough(box) else np.nan
    embedding = None
    if arcface is not None:
        with torch.inference_mode():
            crop = align_faces(frame[None], face.mesh_px[None]).to(next(arcface.parameters()).device)
            embedding = arcface(crop)[0].cpu().numpy()
    return MeasuredFrame(seconds, energy, face, embedding)


def drift(frames: Iterator[MeasuredFrame], weights: Float[np.ndarray, " 478"], name: str) -> Drift:
    """The curves of measured frames, in order.

    Args:
        frames: At least one of the first seconds shows a face.
        weights: How rigid a point of the face mesh is, see `FaceModel.pose_weights`.
        name: What to call the video in an error.

    Raises:
        InputError: No face is found in its first seconds.
    """
    measured = list(frames)
    seconds = np.array([frame.seconds for frame in measured])
    early = [frame for frame in measured if frame.seconds < REFERENCE_S and frame.face is not None]
    if not early:
        remedy = "Give a video that begins with the face in view."
        raise InputError(name, "no face is found in its first seconds", remedy)
    energy = np.array([frame.energy for frame in measured])
    curves, missing = {}, {}
    reference = np.nanmean([frame.energy for frame in early])
    curves["sharpness"] = energy / reference
    embeddings = [frame.embedding for frame in early if frame.embedding is not None]
    if embeddings:
        mean = np.mean(embeddings, axis=0)
        mean /= np.linalg.norm(mean)
        values = [np.nan if frame.embedding is None else float(frame.embedding @ mean) for frame in measured]
        curves["identity"] = np.array(values)
    else:
        missing["identity"] = missing_network_reason(identity.ASSET)
    meshes = {i: frame.face.mesh.numpy() for i, frame in enumerate(measured) if frame.face is not None}
    shape = np.full(len(measured), np.nan)
    usual = np.mean([frame.face.mesh.numpy() for frame in early if frame.face is not None], axis=0)
    for i, mesh in meshes.items():
        shape[i] = 1000 * UNIT_M * np.sqrt(np.average(np.square(mesh - usual).sum(-1), weights=weights))
    curves["shape_mm"] = shape
    return Drift(seconds, curves, missing)
