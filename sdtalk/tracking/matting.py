"""Matting: a person mask made exact by the picture it belongs to: one person, no holes, hair strand by strand."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.box_filter import window_means

COARSE = 4
"""Regions are told apart at so many times fewer pixels; a gap must be as wide to part them."""

TWIG = 2
"""What hangs together only by parts thinner than twice this, coarse pixels, is something else behind the person."""

CLEAR = 0.1
"""Where the mask is lower, there is background for certain."""

DOUBTFUL = 0.2
"""A pixel whose mask is this far from 0 and from 1 may be either."""

RADIUS_PX, SMOOTHNESS = 12, 1e-4
"""Windows of the guided filter, px, and its epsilon: colours that differ by a hundredth are told apart."""

BAND_PX = 12
"""Only so close to the outline the mask is doubted."""

TRUST = 0.25
"""So much of the mask's doubt or certainty, -0.5 to 0.5, is added to the guided alpha."""

LOW, HIGH = 0.1, 0.9
"""Guided alpha below and above is 0 and 1: texture on either side shines through it faintly."""


def refined_masks(
    pictures: Float[Tensor, "batch 3 height width"],
    masks: Float[Tensor, "batch 1 height width"],
    seeds: Bool[Tensor, "batch 1 height width"],
) -> Float[Tensor, "batch 1 height width"]:
    """Refine masks that know the person, but not the outline.

    Args:
        pictures: RGB in [0, 1].
        masks: Probability that a pixel shows a person.
        seeds: Pixels of the person that is meant; what is not connected to them is background.
    """
    whole = one_person(masks, seeds)
    alpha = guided_filter(pictures, whole.float(), RADIUS_PX, SMOOTHNESS)
    believed = torch.where(whole, masks.clamp(min=0.5), masks.clamp(max=0.5)) - 0.5
    alpha = ((alpha + TRUST * believed - LOW) / (HIGH - LOW)).clamp(0, 1)
    share = F.avg_pool2d(whole.float(), 2, ceil_mode=True)  # at half the resolution: an eighth of the time
    far = (~_grown(x, BAND_PX // 2) for x in (share < 1, share > 0))
    inner, outer = (_enlarged(x, 2, masks.shape[-2:]) for x in far)
    return torch.where(inner, 1.0, torch.where(outer, 0.0, alpha))


def doubt(masks: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, " batch"]:
    """How much of a mask is neither person nor background, over what is more person than not."""
    doubtful = ((masks > DOUBTFUL) & (masks < 1 - DOUBTFUL)).sum((1, 2, 3))
    return doubtful / (masks > 0.5).sum((1, 2, 3)).clamp_min(1)


def one_person(
    masks: Float[Tensor, "batch 1 height width"], seeds: Bool[Tensor, "batch 1 height width"]
) -> Bool[Tensor, "batch 1 height width"]:
    """The pixels that belong to one person: connected to the seeds, and with holes filled that are not clearly any.

    Args:
        masks: Probability that a pixel shows a person.
        seeds: Some pixels of the one person; where none is well inside, everybody is kept.
    """
    coarse = F.avg_pool2d(masks, COARSE, ceil_mode=True)
    sown = F.max_pool2d(seeds.float(), COARSE, ceil_mode=True) > 0
    person = coarse > 0.5
    person = ~connected(~person, (coarse < CLEAR) & ~person)
    trunk = ~_grown(~person, TWIG)
    meant = _grown(connected(trunk, sown), TWIG + 1)
    person &= meant | ~(sown & trunk).any(dim=(2, 3), keepdim=True)
    # with a hole's rim, in cells that are mostly person
    filled = person & _grown(person & (coarse <= 0.5), 1)
    near, holes = (_enlarged(x, COARSE, masks.shape[-2:]) for x in (_grown(person, 1), filled))
    return (near & (masks > 0.5)) | holes


def connected(
    area: Bool[Tensor, "batch 1 height width"], seeds: Bool[Tensor, "batch 1 height width"]
) -> Bool[Tensor, "batch 1 height width"]:
    """The part of an area that is connected to seeds in it (over edges, not corners)."""
    found = area & seeds
    while True:
        grown = found
        for dim in (2, 3):
            grown = _swept(grown, area, dim)
        if torch.equal(grown, found):
            return found
        found = grown


def _swept(
    found: Bool[Tensor, "batch 1 height width"], area: Bool[Tensor, "batch 1 height width"], dim: int
) -> Bool[Tensor, "batch 1 height width"]:
    """Spread along one axis, both ways, up to the end of the area: a whole run of it at once."""
    index = torch.arange(area.shape[dim], device=area.device)
    index = index[:, None] if dim == 2 else index
    for flip in (False, True):
        a, f = (x.flip(dim) if flip else x for x in (area, found))
        last_found = torch.where(f, index, -1).cummax(dim).values
        last_gap = torch.where(a, -1, index).cummax(dim).values
        f = a & (last_found > last_gap)
        found = f.flip(dim) if flip else f
    return found


def guided_filter(
    guide: Float[Tensor, "batch 3 height width"],
    values: Float[Tensor, "batch 1 height width"],
    radius: int,
    epsilon: float,
) -> Float[Tensor, "batch 1 height width"]:
    """Make values follow the edges of a picture: in every window they are a linear function of its colours.

    He, Sun, Tang 2010 ("Guided Image Filtering", with a colour guide); the functions are fitted at half the resolution
    (He and Sun 2015, "Fast Guided Filter") and applied at the full one.

    Args:
        guide: RGB in [0, 1].
        values: What to filter.
        radius: Of the windows, px.
        epsilon: Variance of colours below which they count as one.
    """
    small, wanted = F.avg_pool2d(guide, 2, ceil_mode=True), F.avg_pool2d(values, 2, ceil_mode=True)
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    products = torch.cat([small[:, i : i + 1] * small[:, j : j + 1] for i, j in pairs], 1)
    means = window_means(torch.cat([small, wanted, small * wanted, products], 1), radius // 2)
    colour, value, mixed, squares = means.split([3, 1, 3, 6], 1)
    rr, rg, rb, gg, gb, bb = (
        squares[:, k] - colour[:, i] * colour[:, j] + epsilon * (i == j) for k, (i, j) in enumerate(pairs)
    )
    r, g, b = (mixed - colour * value).unbind(1)
    # the inverse of a symmetric 3 x 3 matrix by its cofactors
    crr, crg, crb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    cgg, cgb, cbb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * crr + rg * crg + rb * crb
    slope = torch.stack(
        [crr * r + crg * g + crb * b, crg * r + cgg * g + cgb * b, crb * r + cgb * g + cbb * b], 1
    )
    slope = slope / determinant[:, None]
    start = value - (slope * colour).sum(1, keepdim=True)
    line = window_means(torch.cat([slope, start], 1), radius // 2)
    line = F.interpolate(line, guide.shape[-2:], mode="bilinear", align_corners=False)
    return (line[:, :3] * guide).sum(1, keepdim=True) + line[:, 3:]


def _grown(area: Bool[Tensor, "batch 1 height width"], radius: int) -> Bool[Tensor, "batch 1 height width"]:
    """Grow by a square."""
    wide = F.max_pool2d(area.float(), (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(wide, (2 * radius + 1, 1), 1, (radius, 0)) > 0


def _enlarged(
    area: Bool[Tensor, "batch 1 height width"], times: int, size: torch.Size
) -> Bool[Tensor, "batch 1 high wide"]:
    """Every pixel as a square of pixels, cut to a size."""
    return F.interpolate(area.float(), scale_factor=times)[..., : size[0], : size[1]] > 0
