"""Backgrounds: what stands still behind a head; a colour, a picture, the portrait's own, or nothing."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import ImageColor
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.errors import InputError
from sdtalk.image import Crop, Picture, crop_picture, read_picture, to_tensor
from sdtalk.inpainting import continued

ORIGINAL, TRANSPARENT = "original", "transparent"
"""The options for the portrait's own background, and for none at all."""

PERSON = 0.05
"""Where the mask is above this, a pixel has colours of the person."""

OUTLINE_PX = 4
"""The person's place is so much wider, px of 512: lenses and JPEG spread colours over the outline."""


@dataclass(frozen=True)
class Background:
    """What stands behind the head: a colour, a picture, nothing, or (by default) the portrait's own background.

    Attributes:
        colour: RGB, 0 to 255.
        picture: Shown in the middle, filling the square.
        transparent: Nothing; frames get an alpha channel.
    """

    colour: tuple[int, int, int] | None = None
    picture: Picture | None = None
    transparent: bool = False


def parse_background(option: str) -> Background:
    """Read the option: `original`, `transparent`, a colour (`white`, `#rrggbb`, `rrggbb`), or a picture's path.

    Raises:
        InputError: None of these, or the picture cannot be read.
    """
    if option in (ORIGINAL, TRANSPARENT):
        return Background(transparent=option == TRANSPARENT)
    if (colour := colour_of(option)) is not None:
        return Background(colour=colour)
    if not option or not Path(option).exists():
        remedy = (
            "Give 'original', 'transparent', a colour name, a colour as #rrggbb, or the path of a picture."
        )
        raise InputError(f"background {option!r}", "no such colour and no such file", remedy)
    return Background(picture=read_picture(option))


def colour_of(option: str) -> tuple[int, int, int] | None:
    """RGB, 0 to 255, of `white`, `#rrggbb` or `rrggbb`; None: it is no colour."""
    bare_hex = re.fullmatch(r"[0-9a-fA-F]{6}", option)  # a shell takes an unquoted "#" for a comment
    try:
        red, green, blue = ImageColor.getrgb(f"#{option}" if bare_hex else option)[:3]
    except ValueError:
        return None
    return red, green, blue


def background_frame(
    background: Background,
    portrait_crop: UInt8[np.ndarray, "size size 3"],
    person_mask: Float[Tensor, "size size"],
    size: int = 0,
) -> Float[Tensor, "1 3 side side"] | None:
    """Picture that stands still behind the head, RGB in [0, 1], as large as the portrait's crop; None: nothing does.

    Args:
        background: What was asked for.
        portrait_crop: The crop the head was made of.
        person_mask: Probability that a pixel of it shows the person, who is taken out for `original`.
        size: Colours and pictures are at least so large, px.
    """
    size = max(size, portrait_crop.shape[0])
    if background.transparent:
        return None
    if background.colour is not None:
        return torch.tensor(background.colour).float().div(255).reshape(1, 3, 1, 1).repeat(1, 1, size, size)
    if background.picture is not None:
        height, width = background.picture.pixels.shape[:2]
        side = float(min(height, width))
        crop = Crop((width - side) / 2, (height - side) / 2, side)
        return to_tensor(crop_picture(background.picture, crop, size))
    return without_person(to_tensor(portrait_crop), person_mask.cpu()[None, None])


def without_person(
    image: Float[Tensor, "1 3 height width"], person: Float[Tensor, "1 1 height width"]
) -> Float[Tensor, "1 3 height width"]:
    """Continue the background into the person's place; elsewhere the photo's own pixels, exactly."""
    hole = _dilated((person > PERSON).float(), max(1, image.shape[-1] * OUTLINE_PX // FRAME_SIZE))
    return continued(image, hole[0, 0] == 0)


def _dilated(mask: Tensor, radius: int) -> Tensor:
    """Grow by a square, row-wise and then column-wise: the same, and many times faster."""
    wide = F.max_pool2d(mask, (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(wide, (2 * radius + 1, 1), 1, (radius, 0))
