"""Steadiness: how far a face mesh moves when the network sees the face a little larger or smaller.

On a bare human face, photographed, painted or carved, it finds the same points each time. On an animal, or on a face
that is covered or upside down, it guesses, and guesses something else each time. Measured on 112 faces of people and
works of art: 0.013 to 0.040; a dog, monkeys, a tree with a face: 0.054 to 0.106; masks painted over mouths: 0.056 to
0.099. `python -m training.evaluation.face_checks` tells what is said of other pictures.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.tracking.face_model import LIPS, LOWER_LIDS, UPPER_LIDS
from sdtalk.tracking.networks import FaceLandmarks, FaceNetworks
from sdtalk.tracking.roi import LEFT_EYE_OUTER, RIGHT_EYE_OUTER, Rois, roi_from_landmarks

ZOOMS = (1.0, 0.8, 1.25)
"""Sides of the squares that are looked at, over the usual one's."""

EYES = tuple([*upper, *lower] for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True))


@dataclass(frozen=True)
class Steadiness:
    """How sure the mesh network is of one face.

    Attributes:
        moved: Mean shift of all points between the usual square and the two others, over the distance of the outer
            corners of the eyes.
        eyes_moved: The same of the lids of the less steady eye.
        lips_moved: The same of the lips.
        flag: Logit of "this is a face" in the usual square.
        gain: How much the flag rises in the tighter square; on people by 2 to 10.
    """

    moved: float
    eyes_moved: float
    lips_moved: float
    flag: float
    gain: float


def measure_steadiness(
    networks: FaceNetworks, picture: UInt8[Tensor, "1 height width 3"], faces: list[FaceLandmarks]
) -> list[Steadiness]:
    """Look at each face again, in squares of three sizes.

    Args:
        networks: The networks.
        picture: RGB.
        faces: Faces of this picture.
    """
    if not faces:
        return []
    usual = roi_from_landmarks(torch.stack([face.points for face in faces]))
    squares = Rois.join([Rois(usual.centre, usual.size * zoom, usual.rotation) for zoom in ZOOMS])
    where: Int[Tensor, " roi"] = torch.zeros(len(squares), dtype=torch.long, device=networks.device)
    points, flags = networks.meshes(picture, squares, where)
    points, flags = points.cpu().unflatten(0, (len(ZOOMS), -1)), flags.cpu().unflatten(0, (len(ZOOMS), -1))
    return [_steadiness(points[:, i], flags[:, i]) for i in range(len(faces))]


def _steadiness(points: Float[Tensor, "zoom 478 3"], flags: Float[Tensor, " zoom"]) -> Steadiness:
    usual = points[0]
    across = (usual[LEFT_EYE_OUTER] - usual[RIGHT_EYE_OUTER]).norm()  # with z: a profile's eyes are not close
    moved = (points[1:] - usual)[..., :2].norm(dim=2).mean(0) / across.clamp_min(1e-3)
    return Steadiness(
        moved=float(moved.mean()),
        eyes_moved=max(float(moved[eye].mean()) for eye in EYES),
        lips_moved=float(moved[LIPS].mean()),
        flag=float(flags[0]),
        gain=float(flags[1] - flags[0]),
    )
