"""CPU rasteriser, stage 2: which splats touch which tile, front to back.

Every (splat, tile) pair is an *entry* with a slot of its own, numbered splat by splat. The backward pass writes the
gradients of an entry to its slot, so threads never meet and sums have one order: results repeat bit by bit.
Threads share the work by bands of tile rows; each goes through all splats.
"""

from sdtalk.rendering.cpu.kernel import kernel


@kernel
def count_entries(first_row, last_row, order, tiles, columns, starts):
    """Count the entries of every tile in some rows of tiles.

    Args:
        first_row: First row of tiles.
        last_row: End of the rows.
        order: [M] visible Gaussians, front to back.
        tiles: [N, 4] from `project`.
        columns: Tiles per row.
        starts: [tiles + 1] zeros; element t + 1 becomes the count of tile t.
    """
    for g in order:
        left, right, top, bottom = tiles[g]
        for row in range(max(top, first_row), min(bottom, last_row)):
            for column in range(left, right):
                starts[row * columns + column + 1] += 1


@kernel
def fill_entries(first_row, last_row, order, tiles, columns, slots, starts, entries):
    """Write [entry, (Gaussian, slot)] of some rows of tiles, tile by tile, front to back within a tile.

    Args:
        first_row: First row of tiles.
        last_row: End of the rows.
        order: As for `count_entries`, like tiles and columns.
        tiles: See order.
        columns: See order.
        slots: [N + 1] first slot of every Gaussian.
        starts: [tiles + 1] first entry of every tile.
        entries: [E, 2] out.
    """
    cursor = starts.copy()
    for g in order:
        left, right, top, bottom = tiles[g]
        for row in range(max(top, first_row), min(bottom, last_row)):
            slot = slots[g] + (row - top) * (right - left)
            for column in range(left, right):
                tile = row * columns + column
                entries[cursor[tile], 0], entries[cursor[tile], 1] = g, slot
                cursor[tile] += 1
                slot += 1
