"""Found faces: every face of a photo, numbered, with what the user should know; also where the photo lies wrong."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.tracking.detector import overlaps
from sdtalk.tracking.networks import SURE_FLAG, FaceLandmarks, FaceNetworks
from sdtalk.tracking.portrait_notes import UNSTEADY, face_notes
from sdtalk.tracking.roi import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from sdtalk.tracking.steadiness import Steadiness, measure_steadiness

MOST_FACES = 8
"""So many faces of a picture are told apart."""

SMALLEST_PX = 60
"""Beside others, smaller faces are nobody anyone would want to see speak."""

LARGEST = 0
"""Instead of a face's number: the largest face."""

LYING_DEGREES = 60.0
"""A face tilted farther lies on its side."""

CLEARER = 3.0
"""A photo lies wrong where its face's flag (a logit) rises by so much when it is turned. Upright faces of the wrong way
round have 2 to 18, where the right way gives 21 to 35."""

CLEAR_FLAG = 15.0
"""A face found only in a turned picture has at least this flag."""

TURNED = {
    90: "The face lies on its side; turn the photo clockwise.",
    180: "The face is upside down; turn the photo by half a turn.",
    270: "The face lies on its side; turn the photo anticlockwise.",
}


@dataclass(frozen=True)
class FoundFace:
    """One face of a picture.

    Attributes:
        box: Left, top, right, bottom of its landmarks, px of the picture, 0 = left or upper edge of the first pixel.
        score: Probability that this is a face, in [0.5, 1].
        turned_deg: By how many degrees the picture has to be turned clockwise until the face is upright: 0, 90, 180 or
            270.
        notes: What the user should know before it speaks, a sentence each.
        landmarks: Its mesh; None where it can only be seen in the turned picture.
    """

    box: tuple[float, float, float, float]
    score: float
    turned_deg: int
    notes: tuple[str, ...]
    landmarks: FaceLandmarks | None = None

    @property
    def side(self) -> float:
        """Longer side of the box in px."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top)


def found_faces(
    picture: UInt8[np.ndarray, "height width 3"], networks: FaceNetworks | None = None
) -> list[FoundFace]:
    """Find the faces of a picture, from left to right; face number n is the n-th of them.

    Beside large faces, small ones count where they are clear and large enough to be of use. Where no face stands
    upright, or only a doubtful one, the picture is looked at on its sides and upside down, too.

    Args:
        picture: RGB.
        networks: The networks; None: those of the package, on the CPU.

    Returns:
        At most 8 faces; an empty list where there is none.

    Examples:
        >>> faces = found_faces(read_picture("couple.jpg").pixels)
        >>> [face.turned_deg for face in faces]
        [0, 0]
    """
    networks = networks or _bundled_networks()
    pixels = torch.from_numpy(np.ascontiguousarray(picture))[None]
    seen = _look(networks, pixels)
    if not seen or seen[0][1].moved > UNSTEADY:
        turned = {d: _look(networks, _turned(pixels, d), small=not seen or d == 180) for d in TURNED}
        clear = {d: faces for d, faces in turned.items() if faces and _is_clear(*faces[0])}
        best = max(clear, key=lambda d: clear[d][0][1].flag, default=0)
        if best and (not seen or clear[best][0][1].flag > seen[0][1].flag + CLEARER):
            seen, pixels = clear[best], _turned(pixels, best)
            return _numbered([_face(face, steadiness, pixels, best) for face, steadiness in seen])
    seen += _others(networks, pixels, [face for face, _ in seen])
    return _numbered([_face(face, steadiness, pixels, 0) for face, steadiness in seen])


def largest_face(faces: list[FoundFace]) -> int:
    """Number of the largest face, from 1; doubtful ones only where there are no others."""
    return 1 + max(range(len(faces)), key=lambda i: (faces[i].score >= SURE_FLAG, faces[i].side))


def chosen_face(faces: list[FoundFace], number: int, name: str) -> FoundFace:
    """The face with a number, or with LARGEST the largest.

    Args:
        faces: From `found_faces`, at least one.
        number: 1 is the leftmost; 0 the largest.
        name: What to call the picture in an error.

    Raises:
        InputError: There is no such face, or it can only be seen when the picture is turned.
    """
    if not 0 <= number <= len(faces):
        shown = "1 face is" if len(faces) == 1 else f"{len(faces)} faces are"
        remedy = f"Choose 1 to {len(faces)}, counted from left to right, or 0: the largest."
        raise InputError(f"face {number}", f"{shown} to be seen in {name}", remedy)
    face = faces[(number or largest_face(faces)) - 1]
    if face.landmarks is None:
        how = "stands upside down" if face.turned_deg == 180 else "lies on its side"
        remedy = f"Turn it clockwise by {face.turned_deg} degrees (--turn {face.turned_deg})."
        raise InputError(name, f"the face in this picture {how}", remedy)
    return face


@cache
def _bundled_networks() -> FaceNetworks:
    return FaceNetworks.from_bundled()


Seen = list[tuple[FaceLandmarks, Steadiness]]


def _look(networks: FaceNetworks, pixels: UInt8[Tensor, "1 height width 3"], *, small: bool = True) -> Seen:
    """The faces of a picture, the largest first."""
    faces = networks.find_faces(pixels, MOST_FACES, small=small)[0]
    return list(zip(faces, measure_steadiness(networks, pixels, faces), strict=True))


def _others(
    networks: FaceNetworks, pixels: UInt8[Tensor, "1 height width 3"], known: list[FaceLandmarks]
) -> Seen:
    """Faces beside those known that are too small for the first search, and clear."""
    if not 0 < len(known) < MOST_FACES:
        return []
    boxes = torch.stack([face.box for face in known])
    found = [
        face
        for face in networks.find_small_faces(pixels, MOST_FACES)
        if face.side >= SMALLEST_PX and not overlaps(face.box, boxes).any()
    ]
    steadiness = measure_steadiness(networks, pixels, found)
    clear = [pair for pair in zip(found, steadiness, strict=True) if _is_clear(*pair)]
    return clear[: MOST_FACES - len(known)]


def _turned(pixels: UInt8[Tensor, "1 height width 3"], degrees: int) -> UInt8[Tensor, "1 high wide 3"]:
    """Turn a picture clockwise."""
    return torch.rot90(pixels, -degrees // 90, (1, 2)).contiguous()


def _roll(face: FaceLandmarks) -> float:
    """How far a face is tilted clockwise, degrees."""
    across = face.points[LEFT_EYE_OUTER] - face.points[RIGHT_EYE_OUTER]
    return float(torch.rad2deg(torch.atan2(across[1], across[0])))


def _is_clear(face: FaceLandmarks, steadiness: Steadiness) -> bool:
    upright = abs(_roll(face)) < LYING_DEGREES
    return upright and steadiness.moved < UNSTEADY and steadiness.flag > CLEAR_FLAG


def _face(
    face: FaceLandmarks, steadiness: Steadiness, pixels: UInt8[Tensor, "1 height width 3"], turned_deg: int
) -> FoundFace:
    """Put together what is known of a face.

    Args:
        face: Its landmarks.
        steadiness: Its own.
        pixels: The picture in which it was found.
        turned_deg: How far this picture was turned clockwise.
    """
    notes, box = face_notes(face, steadiness, pixels), face.box.cpu() + 0.5
    if turned_deg:
        given = _box_before(box, turned_deg, pixels.shape[2], pixels.shape[1])
        return FoundFace(given, face.score, turned_deg, (TURNED[turned_deg], *notes))
    roll, quarter = _roll(face), 0
    if abs(roll) > LYING_DEGREES:
        quarter = round(-roll / 90) * 90 % 360
        notes = (TURNED[quarter], *notes)
    return FoundFace(tuple(box.tolist()), face.score, quarter, notes, face)


def _box_before(box: Tensor, degrees: int, width: int, height: int) -> tuple[float, float, float, float]:
    """Where a box in a turned picture of this size lies in the picture as it was given."""
    left, top, right, bottom = box.tolist()
    return {
        90: (top, width - right, bottom, width - left),
        180: (width - right, height - bottom, width - left, height - top),
        270: (height - bottom, left, height - top, right),
    }[degrees]


def _numbered(faces: list[FoundFace]) -> list[FoundFace]:
    """From left to right."""
    return sorted(faces, key=lambda face: face.box[0] + face.box[2])
