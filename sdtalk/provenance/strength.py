"""Strength of the invisible mark: little where a frame is flat, more where its own texture hides it."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int8, Int16, Int32
from torch import Tensor

BLOCK, ROW_STEP = 8, 4
"""Side in px of the squares that have one strength each; rows from one to the next of those that are looked at."""
TILE_DEVIATION, LARGEST_STEP = 20, 100
"""Standard deviation of the tile's 8-bit numbers, and the largest of them."""
SHIFT, ROUNDING = 10, 512
"""Number times gain, over 2^10, is what is added to a pixel, in 8-bit steps."""
FLAT, TEXTURED = 50, 205
"""Gains: standard deviations of 1 and 4 steps."""
QUIET, BUSY = 1.5, 16.0
"""Mean difference between neighbours, in 8-bit steps: up to where a block is flat, and from where it is textured."""
BUDGET = 1.95
"""Largest mean square of what is added to a frame: with rounding (1/12), the PSNR against the unmarked one is 45 dB."""


def gains(
    activity: Int32[Tensor, "frame row column"], channels: int, power: Float32[Tensor, "row column"]
) -> Int16[Tensor, "frame row column"]:
    """Strengths of blocks.

    Args:
        activity: Sum of absolute differences between neighbours, across and down, in every fourth row of each block.
        channels: Of a pixel.
        power: Share of the frame's pixels that a block has, times its mean square of the tile's numbers.
    """
    found = activity[:, None].float()
    # a block beside a flat one is at an edge: its flat part would show more than its texture hides
    padded = F.pad(found, (1, 1, 1, 1), mode="replicate")
    row = torch.minimum(torch.minimum(padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]), found)
    least = torch.minimum(torch.minimum(padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]), row)[:, 0]
    share = ((least / (BLOCK * BLOCK // ROW_STEP * 2 * channels) - QUIET) / (BUSY - QUIET)).clamp(0, 1)
    wanted = FLAT + (TEXTURED - FLAT) * share
    added = (wanted.square() * power).double().sum((1, 2), keepdim=True) / 4**SHIFT
    return (wanted * (BUDGET / added).sqrt().clamp(max=1)).to(torch.int16)


def block_power(
    steps: Int8[np.ndarray, "side side"], height: int, width: int
) -> Float32[Tensor, "row column"]:
    """What `gains` wants to know of a tile.

    Args:
        steps: Its numbers.
        height: Of the frames in px.
        width: The same.
    """
    square = repeated(steps, height, width).astype(np.float32) ** 2
    square = np.pad(square, ((0, -height % BLOCK), (0, -width % BLOCK)))
    blocks = square.reshape(square.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum((1, 3))
    return torch.from_numpy(blocks / np.float32(height * width))


def repeated(
    steps: Int8[np.ndarray, "side side"], height: int, width: int
) -> Int8[np.ndarray, "height width"]:
    """A tile all over a frame."""
    times = -(-height // len(steps)), -(-width // len(steps))
    return np.tile(steps, times)[:height, :width]
