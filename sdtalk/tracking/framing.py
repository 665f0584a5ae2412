"""Framing: which square of a picture or video is worked on."""

from jaxtyping import Float
from torch import Tensor

from sdtalk.image import Crop

ROOM = 2.1
"""Side of the crop over the longer side of the face: hair and shoulders are in."""

LEAST_ROOM = 1.7
"""How tight the crop may get before it reaches over the picture's border instead."""

ROAMING_ROOM = 1.3
"""A moving head's crop is at least so much larger than all the face passes through."""

BELOW = 0.05
"""The crop's centre lies so much of the face's longer side below the face's: shoulders need room."""


def choose_crop(landmarks_px: Float[Tensor, "frame point 3"], width: int, height: int) -> Crop:
    """Choose the one square that shows a head, in a picture or throughout a video.

    It stays inside the picture where it can: it is shifted first, then tightened, and only where even the
    tight square is larger than the picture it reaches over the border.

    Args:
        landmarks_px: Landmarks of one or more frames, 0 = centre of the first pixel.
        width: Width of the picture in px.
        height: Height of the picture in px.
    """
    points = landmarks_px[..., :2] + 0.5
    low, high = points.amin(dim=1), points.amax(dim=1)
    face = float((high - low).amax(dim=1).median())
    low, high = low.amin(dim=0), high.amax(dim=0)
    passed = float((high - low).max())
    side = max(ROOM * face, ROAMING_ROOM * passed)
    least = max(LEAST_ROOM * face, ROAMING_ROOM * passed)
    side = max(float(min(side, width, height)), least)
    centre_x, centre_y = ((low + high) / 2).tolist()
    return Crop(
        left=_inside(centre_x - side / 2, side, width),
        top=_inside(centre_y + BELOW * face - side / 2, side, height),
        side=side,
    )


def _inside(start: float, side: float, length: int) -> float:
    """Shift a stretch so that it lies in the picture, or the picture in it."""
    free = length - side
    return min(max(start, min(free, 0.0)), max(free, 0.0))
