"""Sliding windows: cuts a stream of features, 50 a second, into the window that each video frame hears."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

ROWS_PER_FRAME = 2
"""50 features a second for 25 frames."""


def sliding_windows(
    blocks: Iterator[Float[Tensor, "row width"]], frames: int, before: int, length: int
) -> Iterator[Float[Tensor, "frame {length} width"]]:
    """Windows of `length` rows, two rows apart; zeros beyond the ends. Views, not copies.

    Args:
        blocks: The features of a recording in pieces of any size.
        frames: How many windows.
        before: Rows of zeros before the first feature, which the first windows hold.
        length: Rows of a window.
    """
    held, done = None, 0
    for block in blocks:
        held = pad(block, (0, 0, before, 0)) if held is None else torch.cat([held, block])
        ready = min((len(held) - length) // ROWS_PER_FRAME + 1, frames - done)
        if ready > 0:
            yield _unfolded(held, length)[:ready]
            held, done = held[ready * ROWS_PER_FRAME :], done + ready
    assert held is not None, "no features"
    if done < frames:
        missing = (frames - done - 1) * ROWS_PER_FRAME + length - len(held)
        yield _unfolded(pad(held, (0, 0, 0, max(missing, 0))), length)[: frames - done]


def _unfolded(rows: Tensor, length: int) -> Tensor:
    return rows.unfold(0, length, ROWS_PER_FRAME).transpose(1, 2)
