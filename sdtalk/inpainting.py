"""Inpainting: continues a picture into a hole: its texture mirrored at the hole's edge, farther in its colours."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdtalk.box_filter import window_means
from sdtalk.smoothstep import smoothly

REACH_PX = 64
"""Mirrored texture ends so far from the edge; of a head that turns as far as it can, about 40 px are uncovered."""

SHARP_PX = 28
"""Up to here it is as sharp as the picture; idle motion uncovers 5 to 12 px."""

EVEN_PX = 8
"""Positions are evened out over so many px to each side at most: the nearest pixel of a ragged edge jumps."""


@dataclass(frozen=True)
class NearestKnown:
    """The nearest known pixel of every pixel.

    Attributes:
        row: Its row; of no meaning where the distance is infinite.
        column: Its column.
        distance: Euclidean, px; 0 for known pixels, infinite beyond the reach.
    """

    row: Int[Tensor, "height width"]
    column: Int[Tensor, "height width"]
    distance: Float[Tensor, "height width"]


def nearest_known(known: Bool[Tensor, "height width"], reach: int) -> NearestKnown:
    """Find the nearest known pixel within a reach: an exact distance transform, first down columns, then along rows.

    Felzenszwalb and Huttenlocher 2012 ("Distance Transforms of Sampled Functions"), whose lower envelope is replaced
    by trying all columns in reach.

    Args:
        known: Which pixels are known.
        reach: Farthest distance along a row, px.
    """
    height, width = known.shape
    rows = torch.arange(height, device=known.device)[:, None].expand(height, width)
    above = torch.where(known, rows, -4 * height).cummax(0).values
    below = torch.where(known, rows, 5 * height).flip(0).cummin(0).values.flip(0)
    nearest = torch.where(rows - above <= below - rows, above, below)
    vertical = (nearest - rows).abs().clamp(max=reach + 1).square().int()
    # squared distance and step in one number: one minimum finds both, in a third of the time
    base, far = 2 * reach + 1, 4 * reach**2
    packed = F.pad(base * vertical, (reach, reach), value=base * far)
    best, tried = torch.full_like(vertical, base * far), torch.empty_like(vertical)
    for step in range(-reach, reach + 1):
        torch.add(packed[:, reach + step : reach + step + width], base * step**2 + step + reach, out=tried)
        torch.minimum(best, tried, out=best)
    squared, shift = best // base, best % base - reach
    within = squared <= reach**2
    column = torch.arange(width, device=known.device) + shift * within
    distance = torch.where(within, squared.float().sqrt(), torch.inf)
    return NearestKnown(nearest.gather(1, column).clamp(0, height - 1), column, distance)


def continued(
    image: Float[Tensor, "1 3 height width"], known: Bool[Tensor, "height width"]
) -> Float[Tensor, "1 3 height width"]:
    """Continue a picture into its unknown part; known pixels stay exactly as they are.

    Near the edge the picture is mirrored at its nearest known pixel, so that stripes and textures go on; farther in, or
    where the mirror shows an unknown pixel or none, that fades into a smooth continuation of the colours.

    Args:
        image: RGB in [0, 1].
        known: Which pixels are known; where none are, the result is grey.
    """
    smooth = _smoothly_continued(image, known[None, None].float())
    nearest = nearest_known(known, REACH_PX)
    grid, shown = _mirrored_positions(nearest, known)
    base = torch.where(known, image, smooth)  # nothing of what is in the hole is ever looked at
    mirrored = F.grid_sample(base, grid, mode="bilinear", padding_mode="border", align_corners=False)
    weight = shown * (1 - smoothly(nearest.distance, SHARP_PX, REACH_PX))
    return torch.where(known, image, torch.lerp(base, mirrored, weight))


def _mirrored_positions(
    nearest: NearestKnown, known: Bool[Tensor, "height width"]
) -> tuple[Float[Tensor, "1 height width 2"], Float[Tensor, "height width"]]:
    """Where in the picture each pixel's mirror image lies (for `grid_sample`), and how far it is known, 0 to 1."""
    height, width = known.shape
    rows, columns = (torch.arange(n, device=known.device).float() for n in (height, width))
    own = torch.stack(torch.broadcast_tensors(columns, rows[:, None]))
    edge = torch.stack([nearest.column, nearest.row]).float()
    towards = torch.where(nearest.distance.isinf(), 0.0, edge - own)
    towards = torch.lerp(towards, _blurred(towards[None], EVEN_PX)[0], (nearest.distance / 24).clamp(0, 1))
    there = own + 2 * towards
    last = there.new_tensor([width - 1, height - 1])[:, None, None]
    there = last - (last - there.abs()).abs()  # beyond the border it is mirrored once more
    grid = (((there + 0.5) / (last + 1)) * 2 - 1).permute(1, 2, 0)[None]
    sure = known[None, None].float()
    shown = F.grid_sample(sure, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    eroded = -F.max_pool2d(-shown, 5, 1, 2)
    return grid, torch.where(nearest.distance.isinf(), 0.0, _blurred(eroded, 2)[0, 0])


def _blurred(
    x: Float[Tensor, "1 channel height width"], radius: int
) -> Float[Tensor, "1 channel height width"]:
    """Two box blurs in a row: nearly a Gaussian."""
    return window_means(window_means(x, radius), radius)


def _smoothly_continued(
    image: Float[Tensor, "1 channel height width"], known: Float[Tensor, "1 1 height width"]
) -> Float[Tensor, "1 channel height width"]:
    """The smooth continuation at half the resolution: it has no detail to lose."""
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    small = F.avg_pool2d(image * known, 2, ceil_mode=True) / share.clamp(min=1e-6)
    filled = smoothly_filled(small, (share > 0).float())
    return F.interpolate(filled, image.shape[-2:], mode="bilinear")


def smoothly_filled(
    image: Float[Tensor, "1 channel height width"], known: Float[Tensor, "1 1 height width"]
) -> Float[Tensor, "1 channel height width"]:
    """Continue the pixels where `known` is 1 into the others, from coarse to fine (pull-push, relaxed)."""
    if min(image.shape[-2:]) == 1:
        total = known.sum(dim=(-2, -1), keepdim=True)
        mean = (image * known).sum(dim=(-2, -1), keepdim=True) / total.clamp(min=1e-6)
        return torch.where(total > 0, mean, 0.5).expand_as(image)  # all person: no background, so grey
    weight = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(image * known, 2, ceil_mode=True) / weight.clamp(min=1e-6)
    guess = F.interpolate(smoothly_filled(coarse, (weight > 0).float()), image.shape[-2:], mode="bilinear")
    for _ in range(8):  # towards the membrane that the known pixels span: no blocks of the coarse scales
        guess = torch.lerp(guess, image, known)
        guess = F.avg_pool2d(F.pad(guess, (1,) * 4, mode="replicate"), 3, 1)
    return torch.lerp(guess, image, known)
