"""Kernels of the invisible mark for a CPU: how much a block of a frame hides, and the mark added to it."""

import inspect

import numba
import numpy as np

from sdtalk.provenance.strength import BLOCK, ROUNDING, ROW_STEP, SHIFT


def _kernel(function):
    # unwrapped, since the tests' type checker wraps every function of the package
    return numba.njit(nogil=True, cache=True)(inspect.unwrap(function))


@_kernel
def activity(frame, channels, found):
    """Sum of the differences between neighbours in each block, across and down; of every fourth row.

    Args:
        frame: [height, width * channels] uint8.
        channels: Of a pixel.
        found: [rows, columns] int32, out.
    """
    height, width = frame.shape
    step = BLOCK * channels
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            first, last = column * step, min(column * step + step, width)
            total = np.int32(0)
            for y in range(row * BLOCK, min(row * BLOCK + BLOCK, height - 1), ROW_STEP):
                here, below, beside = (
                    frame[y, first:last],
                    frame[y + 1, first:last],
                    frame[y, first + channels :],
                )
                for i in range(last - first):
                    total += abs(np.int32(below[i]) - np.int32(here[i]))
                for i in range(min(last - first, len(beside))):
                    total += abs(np.int32(beside[i]) - np.int32(here[i]))
            found[row, column] = total


@_kernel
def add(frame, channels, gain, tile):
    """Add the mark to a frame, in place.

    Args:
        frame: [height, width * channels] uint8.
        channels: Of a pixel.
        gain: [rows, columns] int16, of each block.
        tile: [side, side * channels] int8; repeats, and a block never crosses its edge.
    """
    height, width = frame.shape
    step = BLOCK * channels
    for y in range(height):
        line, pattern = frame[y], tile[y % tile.shape[0]]
        for column in range(gain.shape[1]):
            strength = np.int16(gain[y // BLOCK, column])
            first, count = column * step, min(step, width - column * step)
            pixels, part = line[first : first + count], pattern[first % tile.shape[1] :]
            for i in range(count):
                change = (np.int16(part[i]) * strength + np.int16(ROUNDING)) >> np.int16(SHIFT)
                pixels[i] = np.uint8(min(max(np.int16(pixels[i]) + change, 0), 255))  # type: ignore[arg-type]
