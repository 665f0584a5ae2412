"""Window squares: squares of pictures, cut out and painted back, at places that the host or only the device knows.

On a GPU the host would have to wait for where a face is before it could slice; `WindowSquares` leaves it there.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class WindowSquares:
    """One square in each picture; it may reach beyond the border.

    Attributes:
        pixels: Which pixels of a picture, row by row, those of the square are; the nearest where there is none.
        outside: Where there is none.
        size: Side of the square in px.
    """

    pixels: Int[Tensor, "picture 1 pixel"]
    outside: Bool[Tensor, "picture 1 pixel"]
    size: int

    @classmethod
    def at(
        cls, corners: Float[Tensor, "picture 2"], size: int, height: int, width: int, mirrored: bool = False
    ) -> "WindowSquares":
        """Squares of pictures of a height and width in px.

        Args:
            corners: Left and top in px, whole numbers; of mirrored squares in the picture's mirror image.
            size: Side of the square in px.
            height: Of the pictures.
            width: Of the pictures.
            mirrored: Whether to look at the pictures in the mirror.
        """
        steps = torch.arange(size, device=corners.device)
        x, y = (corners.long()[:, :, None] + steps).unbind(1)
        x = width - 1 - x if mirrored else x
        column, row = x.clamp(0, width - 1), y.clamp(0, height - 1)
        pixels = row[:, :, None] * width + column[:, None]
        outside = (row != y)[:, :, None] | (column != x)[:, None]
        return cls(pixels.flatten(1)[:, None], outside.flatten(1)[:, None], size)

    def cut(
        self, pictures: Float[Tensor, "picture channel height width"]
    ) -> Float[Tensor, "picture channel size size"]:
        """The squares; nothing where they reach beyond the border."""
        return self._taken(pictures).masked_fill(self.outside, 0.0).unflatten(2, (self.size, self.size))

    def paint(
        self,
        pictures: Float[Tensor, "picture channel height width"],
        painted: Float[Tensor, "picture channel size size"],
        mask: Float[Tensor, "picture 1 size size"],
    ) -> None:
        """Paint the squares over pictures, which lie in memory row by row, in place; as far as a mask says."""
        flat = pictures.view(*pictures.shape[:2], -1)
        before = self._taken(pictures)
        change = torch.lerp(before, painted.flatten(2), mask.flatten(2)) - before
        # pixels beyond the border share the nearest one and add nothing to it, in whatever order
        pixels = self.pixels.expand_as(change)
        flat.scatter_add_(2, pixels, change.masked_fill(self.outside, 0.0))

    def _taken(
        self, pictures: Float[Tensor, "picture channel height width"]
    ) -> Float[Tensor, "picture channel pixel"]:
        flat = pictures.flatten(2)
        if flat.requires_grad:  # kept for the gradient, while pictures are painted in place
            flat = flat.clone()
        return flat.gather(2, self.pixels.expand(-1, flat.shape[1], -1))


def cut_on_host(
    picture: Float[Tensor, "4 height width"], left: int, top: int, size: int
) -> Float[Tensor, "4 size size"]:
    """A square of a picture at a place that the host knows; nothing where it reaches beyond the border."""
    whole, part = overlap(picture, left, top, size)
    window = picture.new_zeros(len(picture), size, size)
    window[part] = picture[whole]
    return window


def overlap(picture: Tensor, left: int, top: int, size: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a square lies in a picture, and which part of the square that is."""
    whole, part = [slice(None)], [slice(None)]
    for first, length in ((top, picture.shape[-2]), (left, picture.shape[-1])):
        low, high = min(max(first, 0), length), min(max(first + size, 0), length)
        whole.append(slice(low, high))
        part.append(slice(low - first, high - first) if high > low else slice(0, 0))
    return tuple(whole), tuple(part)
