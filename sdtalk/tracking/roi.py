"""Regions of interest: rotated rectangles in a picture, cut out and mapped back.

Positions follow MediaPipe: pixel index 0 is the centre of the first pixel, and the corners of a rectangle go
to the corners 0 and N of an N pixel crop without half-pixel terms (reference/tracker.md 4.1).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

MARGIN = 1.5
"""Side of a face's square over the longer side of the box round it (MediaPipe)."""

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
"""Mesh points of the subject's outer eye corners; the line between them is level in the crop."""


TILES = 3
"""A picture without a face is searched again in tiles of a third of its longer side, every sixth.

The detector needs a face of 0.12 of the longer side; with tiles 0.04 is enough, and a face that just escapes
the first search fits into a tile as a whole.
"""

MIN_TILE_PX = 96
"""Smaller tiles would only find faces too small to be of use."""


@dataclass(frozen=True)
class Rois:
    """Regions of interest, in px of the picture.

    Attributes:
        centre: (x, y) of the middle.
        size: (width, height) before rotation.
        rotation: Radians, clockwise as seen (y points down).
    """

    centre: Float[Tensor, "roi 2"]
    size: Float[Tensor, "roi 2"]
    rotation: Float[Tensor, " roi"]

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, index: slice | Tensor) -> "Rois":
        return Rois(self.centre[index], self.size[index], self.rotation[index])

    def to(self, device: torch.device | str) -> "Rois":
        """Move to a device."""
        return Rois(self.centre.to(device), self.size.to(device), self.rotation.to(device))

    @classmethod
    def join(cls, parts: list["Rois"]) -> "Rois":
        """Put several lists of regions one after the other."""
        return cls(
            torch.cat([p.centre for p in parts]),
            torch.cat([p.size for p in parts]),
            torch.cat([p.rotation for p in parts]),
        )

    def to_picture(self, points: Float[Tensor, "roi point 3"], crop_px: int) -> Float[Tensor, "roi point 3"]:
        """Bring points from px of the crop to px of the picture; z is scaled by the width like x."""
        flat = (points[..., :2] / crop_px - 0.5) * self.size[:, None]
        cos, sin = torch.cos(self.rotation)[:, None], torch.sin(self.rotation)[:, None]
        x = flat[..., 0] * cos - flat[..., 1] * sin + self.centre[:, None, 0]
        y = flat[..., 0] * sin + flat[..., 1] * cos + self.centre[:, None, 1]
        return torch.stack([x, y, points[..., 2] / crop_px * self.size[:, None, 0]], dim=-1)


def whole_pictures(count: int, width: int, height: int, *, square: bool) -> Rois:
    """The region of `count` whole pictures: stretched, or the smallest square around the picture."""
    size = torch.tensor([[width, height]], dtype=torch.float32)
    centre = size / 2
    if square:
        size = torch.full((1, 2), float(max(width, height)))
    return Rois(centre.repeat(count, 1), size.repeat(count, 1), torch.zeros(count))


def tiles(width: int, height: int) -> Rois | None:
    """Overlapping squares that cover a picture, or None where they would be too small to be of use."""
    side = max(width, height) / TILES
    if side < MIN_TILE_PX:
        return None

    def centres(length: int) -> list[float]:
        steps = max(math.ceil(2 * (length - side) / side), 0)
        return [length / 2 + (i - steps / 2) * side / 2 for i in range(steps + 1)]

    centre = torch.tensor([(x, y) for y in centres(height) for x in centres(width)])
    return Rois(centre, torch.full_like(centre, side), torch.zeros(len(centre)))


def roi_from_landmarks(points: Float[Tensor, "face point 3"]) -> Rois:
    """The square to look for a face in when its landmarks were found in a frame nearby.

    1.5 times the longer side of the axis-aligned box of all points, turned to the outer eye corners.
    """
    low, high = points[..., :2].amin(dim=1), points[..., :2].amax(dim=1)
    side = MARGIN * (high - low).amax(dim=1, keepdim=True)
    across = points[:, LEFT_EYE_OUTER] - points[:, RIGHT_EYE_OUTER]
    return Rois((low + high) / 2, side.repeat(1, 2), torch.atan2(across[:, 1], across[:, 0]))


def between(first: Rois, second: Rois, share: Float[Tensor, " roi"]) -> Rois:
    """Regions on the way from one to another: 0 is the first, 1 the second; turning takes the shorter way."""
    turn = torch.remainder(second.rotation - first.rotation + math.pi, 2 * math.pi) - math.pi
    return Rois(
        torch.lerp(first.centre, second.centre, share[:, None]),
        torch.lerp(first.size, second.size, share[:, None]),
        first.rotation + turn * share,
    )


def crop(
    pictures: UInt8[Tensor, "batch height width 3"],
    rois: Rois,
    frames: Int[Tensor, " roi"],
    crop_px: int,
    *,
    zero_border: bool,
) -> Float[Tensor, "roi 3 crop crop"]:
    """Cut regions out of pictures, bilinearly and without antialiasing.

    Only the pixels that are read are converted to float, so the cost does not grow with the picture.

    Args:
        pictures: RGB, 0 to 255.
        rois: What to cut.
        frames: For each region the index of its picture.
        crop_px: Side of the result.
        zero_border: Outside of the picture is black (detector, mask); otherwise the edge is repeated (mesh).

    Returns:
        RGB in 0 to 255, channels last in memory.
    """
    height, width = pictures.shape[1:3]
    grid = torch.arange(crop_px, device=pictures.device) / crop_px - 0.5
    cos, sin = torch.cos(rois.rotation)[:, None, None], torch.sin(rois.rotation)[:, None, None]
    u, v = (
        grid[None, None, :] * rois.size[:, 0, None, None],
        grid[None, :, None] * rois.size[:, 1, None, None],
    )
    x = (u * cos - v * sin + rois.centre[:, 0, None, None]).contiguous()
    y = (u * sin + v * cos + rois.centre[:, 1, None, None]).contiguous()
    left, right_weight, visible_x = _neighbours(x, width)
    top, lower_weight, visible_y = _neighbours(y, height)
    index = ((frames[:, None, None] * height + top) * width + left).reshape(-1)
    # A picture one pixel wide or high has no neighbour; its weight is 0 there, but the index must exist.
    step_right, step_down = min(1, width - 1), width * min(1, height - 1)
    pixels = pictures.reshape(-1, 3)
    right_weight, lower_weight = right_weight.reshape(-1, 1), lower_weight.reshape(-1, 1)

    def blended_row(at: Int[Tensor, " sample"]) -> Float[Tensor, "sample 3"]:
        return torch.lerp(pixels[at].float(), pixels[at + step_right].float(), right_weight)

    values = torch.lerp(blended_row(index), blended_row(index + step_down), lower_weight)
    if zero_border:
        values = values * (visible_x * visible_y).reshape(-1, 1)
    return values.reshape(len(rois), crop_px, crop_px, 3).permute(0, 3, 1, 2)


def _neighbours(
    position: Float[Tensor, "roi crop crop"], size: int
) -> tuple[Int[Tensor, "roi crop crop"], Float[Tensor, "roi crop crop"], Float[Tensor, "roi crop crop"]]:
    """First of the two pixels round a position, weight of the second, and how much of the sample is inside.

    Blending with black outside is the same as repeating the edge and fading to 0 over one pixel.
    """
    inside = position.clamp(0, size - 1)
    first = inside.floor().clamp(max=max(size - 2, 0))
    visible = (position + 1).clamp(0, 1) * (size - position).clamp(0, 1)
    return first.long(), inside - first, visible
