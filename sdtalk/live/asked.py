"""Asked Gaussians: neighbours move alike, so of a patch of the photo's plane one is asked how it moves."""

import torch
from jaxtyping import Int
from torch import Tensor

PATCH = 2
"""Side of a patch in cells of the plane: at half the size about 2 px."""


def asked_gaussians(
    moved: Int[Tensor, " moved"], first: int, side: int
) -> tuple[Int[Tensor, " asked"], Int[Tensor, " moved"]]:
    """Choose the most central Gaussian of every patch.

    Args:
        moved: Which of all the reconstructed Gaussians the fields move, in ascending order: completion, then the two
            layers of the plane.
        first: How many of all belong to the completion; they are no neighbours, each is asked.
        side: Of the plane, in cells.

    Returns:
        Places in `moved` of those that are asked, ascending; and for each of `moved`, the place of its answer there.
    """
    cell = (moved - first) % (side * side)  # both layers have the same places
    row, column = cell // side, cell % side
    patch = row // PATCH * side + column // PATCH
    patch = torch.where(moved < first, moved - first, patch)  # one of their own, below zero
    middle = PATCH // 2
    off_centre = (row % PATCH - middle).abs() + (column % PATCH - middle).abs()
    groups, group = patch.unique(return_inverse=True)
    best = torch.full_like(groups, len(moved) * side)
    # the distance decides, then the order
    best = best.scatter_reduce(0, group, off_centre * len(moved) + torch.arange(len(moved)), "amin") % len(
        moved
    )
    asked, place = best.sort()
    return asked, place.argsort()[group]
