"""Face windows: the squares of a frame that the window renderer paints (mouth, eyes), by points of the face mesh."""

from dataclasses import dataclass

from sdtalk.tracking.completion import JAW, LID_RINGS, SKULL
from sdtalk.tracking.face_model import (
    IRIS_CENTRES,
    LOWER_INNER_LIP,
    LOWER_LIDS,
    LOWER_OUTER_LIP,
    UPPER_INNER_LIP,
    UPPER_LIDS,
    UPPER_OUTER_LIP,
)


def _ring(upper: list[int], lower: list[int]) -> tuple[int, ...]:
    """A closed polygon of two lines that share their ends."""
    return (*upper, *lower[-2:0:-1])


@dataclass(frozen=True)
class FaceWindow:
    """One kind of window. The left eye is painted as a right one, in the mirror.

    Attributes:
        size: Side of the square in px of the frame.
        opening: Points around what opens and closes, a closed polygon: between the lips, between the lids.
        outline: Points around all that moves with it.
        upper: Points that carry the inside's upper part: upper teeth are fixed to the skull, an eye to its iris.
        lower: The same for the lower part: lower teeth follow the jaw.
        full_px: So far outside of the outline the painted picture counts fully,
        none_px: and from so far on not at all.
        teeth: Whether a cavity and teeth are drawn inside where the photo does not show it; otherwise it is stretched.
    """

    size: int
    opening: tuple[int, ...]
    outline: tuple[int, ...]
    upper: tuple[int, ...]
    lower: tuple[int, ...]
    full_px: float
    none_px: float
    teeth: bool


MOUTH = FaceWindow(
    size=128,
    opening=_ring(UPPER_INNER_LIP, LOWER_INNER_LIP),
    outline=_ring(UPPER_OUTER_LIP, LOWER_OUTER_LIP),
    upper=tuple(SKULL),
    lower=tuple(JAW[:4]),
    full_px=8.0,
    none_px=20.0,
    teeth=True,
)

RIGHT_EYE = FaceWindow(
    size=96,
    opening=_ring(UPPER_LIDS[0], LOWER_LIDS[0]),
    outline=(*LID_RINGS[:9], *LID_RINGS[15:8:-1]),
    upper=(IRIS_CENTRES[0],),
    lower=(IRIS_CENTRES[0],),
    full_px=4.0,
    none_px=12.0,
    teeth=False,
)
