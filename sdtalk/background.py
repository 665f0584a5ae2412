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

from sdtalk.errors import InputError
from sdtalk.image import Crop, Picture, crop_picture, read_picture, to_tensor

TRANSPARENT = "transparent"
"""The option for no background at all."""


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
    if option in ("original", TRANSPARENT):
        return Background(transparent=option == TRANSPARENT)
    bare_hex = re.fullmatch(r"[0-9a-fA-F]{6}", option)  # a shell takes an unquoted "#" for a comment
    try:
        red, green, blue = ImageColor.getrgb(f"#{option}" if bare_hex else option)[:3]
        return Background(colour=(red, green, blue))
    except ValueError:
        pass
    if not option or not Path(option).exists():
        remedy = (
            "Give 'original', 'transparent', a colour name, a colour as #rrggbb, or the path of a picture."
        )
        raise InputError(f"background {option!r}", "no such colour and no such file", remedy)
    return Background(picture=read_picture(option))


def background_frame(
    background: Background,
    portrait_crop: UInt8[np.ndarray, "size size 3"],
    person_mask: Float[Tensor, "size size"],
) -> Float[Tensor, "1 3 size size"] | None:
    """Picture that stands still behind the head, RGB in [0, 1], as large as the portrait's crop; None: nothing does.

    Args:
        background: What was asked for.
        portrait_crop: The crop the head was made of.
        person_mask: Probability that a pixel of it shows the person, who is taken out for `original`.
    """
    size = portrait_crop.shape[0]
    if background.transparent:
        return None
    if background.colour is not None:
        return torch.tensor(background.colour).float().div(255).reshape(1, 3, 1, 1).repeat(1, 1, size, size)
    if background.picture is not None:
        height, width = background.picture.pixels.shape[:2]
        side = float(min(height, width))
        crop = Crop((width - side) / 2, (height - side) / 2, side)
        return to_tensor(crop_picture(background.picture, crop, size))
    return _without_person(to_tensor(portrait_crop), person_mask.cpu()[None, None])


def _without_person(image: Tensor, person: Tensor) -> Tensor:
    """Fill the person's place smoothly from the background around it."""
    margin = max(1, image.shape[-1] // 25)  # 4 %: strands of hair, and shadows of the person
    hole = _dilated((person > 0.1).float(), margin)
    seam = max(1, margin // 4)
    cover = F.avg_pool2d(F.pad(_dilated(hole, seam), (seam,) * 4, mode="replicate"), 2 * seam + 1, 1)
    return torch.lerp(image, _filled(image, 1 - hole), cover)


def _dilated(mask: Tensor, radius: int) -> Tensor:
    """Grow by a square, row-wise and then column-wise: the same, and many times faster."""
    wide = F.max_pool2d(mask, (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(wide, (2 * radius + 1, 1), 1, (radius, 0))


def _filled(image: Tensor, known: Tensor) -> Tensor:
    """Continue the pixels where `known` is 1 into the others, from coarse to fine (pull-push, relaxed)."""
    if min(image.shape[-2:]) == 1:
        total = known.sum(dim=(-2, -1), keepdim=True)
        mean = (image * known).sum(dim=(-2, -1), keepdim=True) / total.clamp(min=1e-6)
        return torch.where(total > 0, mean, 0.5).expand_as(image)  # all person: no background, so grey
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(image * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    guess = F.interpolate(_filled(coarse, (weight > 0).float()), image.shape[-2:], mode="bilinear")
    for _ in range(8):  # towards the membrane that the known pixels span: no blocks of the coarse scales
        guess = torch.lerp(guess, image, known)
        guess = F.avg_pool2d(F.pad(guess, (1,) * 4, mode="replicate"), 3, 1)
    return torch.lerp(guess, image, known)
