"""Framings: what of a photo a video shows, and where in it the head's square lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from sdtalk.background import Background, background_frame
from sdtalk.image import Crop, crop_picture, extended, to_frames
from sdtalk.tracking.head_track import Portrait

LONGEST_PX = 2160
"""Longer sides of photos are reduced to this."""

SHAPES: dict[str, float] = {"photo": 0.0, "9:16": 9 / 16, "1:1": 1.0, "16:9": 16 / 9}
"""Width over height of full frames; 0: that of the photo."""


@dataclass(frozen=True)
class Framing:
    """What a video shows.

    Attributes:
        photo: What is shown where nothing moves.
        crop: The square that the head was made of, in px of this photo.
        scene: Another background than the photo's own, as large as the photo, RGB in [0, 1]; None: the photo's own.
    """

    photo: UInt8[np.ndarray, "height width 3"]
    crop: Crop
    scene: Float[Tensor, "1 3 height width"] | None = None

    @classmethod
    def whole(cls, portrait: Portrait, shape: str = "photo") -> "Framing":
        """The whole photo, or a rectangle of it around the head; of even sides, as videos need.

        The rectangle is as large as the photo allows, or the crop demands: then the photo is continued over its border.

        Args:
            portrait: One that keeps its photo.
            shape: One of `SHAPES`.
        """
        assert portrait.picture is not None
        photo, crop, ratio = portrait.picture, portrait.crop, SHAPES[shape]
        scale = min(1.0, LONGEST_PX / max(photo.shape[:2]))
        if scale < 1:
            size = round(photo.shape[1] * scale), round(photo.shape[0] * scale)
            photo = np.array(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))
            crop = Crop(crop.left * scale, crop.top * scale, crop.side * scale)
        height, width = photo.shape[:2]
        if not ratio:
            return cls(photo[: height // 2 * 2, : width // 2 * 2], crop)
        wide = max(min(width, height * ratio), crop.side * max(ratio, 1.0))
        sides = round(wide / 2) * 2, round(wide / ratio / 2) * 2
        left = _placed(crop.left + crop.side / 2, sides[0], width)
        top = _placed(crop.top + crop.side / 2, sides[1], height)
        return cls(extended(photo, left, top, *sides), Crop(crop.left - left, crop.top - top, crop.side))

    @classmethod
    def head(
        cls, portrait: Portrait, size: int, scene: Float[Tensor, "1 3 size size"] | None = None
    ) -> "Framing":
        """The square of the head alone, of any size in px: with the photo's own detail, where it has some.

        Args:
            portrait: One that keeps its photo.
            size: Side in px.
            scene: Another background than the photo's own.
        """
        assert portrait.picture is not None
        photo = crop_picture(portrait.picture, portrait.crop, size)
        return cls(photo, Crop(0.0, 0.0, float(size)), scene)


def scene_behind(
    background: Background, portrait: Portrait, size: int = 0
) -> Float[Tensor, "1 3 side side"] | None:
    """What stands still behind a head alone, as large as its crop, colours and pictures at least of a size in px.

    Returns:
        RGB in [0, 1]; None: nothing stands there.
    """
    return background_frame(background, to_frames(portrait.image)[0], portrait.mask[0, 0], size)


def _placed(centre: float, side: int, length: int) -> int:
    """Where a stretch around a centre begins so that it stays within a length, or the length within it."""
    free = length - side
    return round(min(max(centre - side / 2, min(free, 0)), max(free, 0)))
