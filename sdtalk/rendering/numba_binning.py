"""CPU rasteriser, stage 2: which splats touch which tile, front to back.

Every (splat, tile) pair is an *entry* with a slot of its own, numbered splat by splat. The backward pass writes the
gradients of an entry to its slot, so threads never meet and sums have one order: results repeat bit by bit.
"""

import math

import numba
import numpy as np

from sdtalk.rendering.numba_projection import CENTRE_X, CENTRE_Y, HALF_HEIGHT, HALF_WIDTH

TILE_WIDTH = 32
TILE_HEIGHT = 16
"""Size of a tile in px: measured best of eight shapes (features of a tile stay in the L2 cache)."""


@numba.njit(nogil=True, cache=True)
def touched_tiles(splat, columns, rows):
    """Columns and rows of tiles that a splat's box touches: left, right, top, bottom, ends excluded."""
    x, y, half_width, half_height = splat[CENTRE_X], splat[CENTRE_Y], splat[HALF_WIDTH], splat[HALF_HEIGHT]
    left = max(int(max(math.ceil(x - half_width), 0.0)) // TILE_WIDTH, 0)
    right = min(int(min(math.floor(x + half_width), 1e6)) // TILE_WIDTH + 1, columns)
    top = max(int(max(math.ceil(y - half_height), 0.0)) // TILE_HEIGHT, 0)
    bottom = min(int(min(math.floor(y + half_height), 1e6)) // TILE_HEIGHT + 1, rows)
    return left, right, top, bottom


@numba.njit(nogil=True, cache=True)
def count_entries(order, splats, columns, rows, slots, starts):
    """Count entries per splat and per tile.

    Args:
        order: [M] visible Gaussians, front to back.
        splats: [N, 8] from `project`.
        columns: Tiles per row.
        rows: Rows of tiles.
        slots: [N + 1] zeros; becomes the first slot of every Gaussian, in index order.
        starts: [tiles + 1] zeros; becomes the first entry of every tile.
    """
    for g in order:
        left, right, top, bottom = touched_tiles(splats[g], columns, rows)
        slots[g + 1] = max(right - left, 0) * max(bottom - top, 0)
        for row in range(top, bottom):
            for column in range(left, right):
                starts[row * columns + column + 1] += 1
    for g in range(slots.size - 1):
        slots[g + 1] += slots[g]
    for tile in range(starts.size - 1):
        starts[tile + 1] += starts[tile]


@numba.njit(nogil=True, cache=True)
def fill_entries(order, splats, columns, rows, slots, starts, entries):
    """Write [entry, (Gaussian, slot)], tile by tile, front to back within a tile."""
    cursor = starts.copy()
    for g in order:
        left, right, top, bottom = touched_tiles(splats[g], columns, rows)
        slot = slots[g]
        for row in range(top, bottom):
            for column in range(left, right):
                tile = row * columns + column
                entry = cursor[tile]
                entries[entry, 0], entries[entry, 1] = g, slot
                cursor[tile] = entry + 1
                slot += 1


def bin_splats(
    order: np.ndarray, splats: np.ndarray, columns: int, rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Build the tiles' lists.

    Args:
        order: Visible Gaussians, front to back.
        splats: [N, 8] from `project`.
        columns: Tiles per row.
        rows: Rows of tiles.

    Returns:
        entries [E, 2] of (Gaussian, slot), starts [tiles + 1] into them, slots [N + 1] of every Gaussian.
    """
    slots = np.zeros(len(splats) + 1, np.int64)
    starts = np.zeros(columns * rows + 1, np.int64)
    count_entries(order, splats, columns, rows, slots, starts)
    entries = np.empty((int(starts[-1]), 2), np.int32)
    fill_entries(order, splats, columns, rows, slots, starts, entries)
    return entries, starts, slots
