"""Pictures: reading what users bring, cropping, backgrounds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Crop:
    """A square in a picture, in px of that picture; it may reach over the border.

    Attributes:
        left: x of the left edge (0 = left edge of the first pixel).
        top: y of the top edge.
        side: Length of a side.
    """

    left: float
    top: float
    side: float
