"""Invisible mark: luma noise of one 8-bit step or so, the same in every frame, that `detection` finds again."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int8, UInt8
from torch import Tensor

from sdtalk import __version__
from sdtalk.provenance.pattern import tile, tile_times
from sdtalk.provenance.strength import (
    BLOCK,
    LARGEST_STEP,
    ROUNDING,
    ROW_STEP,
    SHIFT,
    TILE_DEVIATION,
    block_power,
    gains,
    repeated,
)


def version_number(version: str = __version__) -> int:
    """What our mark says: a version of SDTalk, 5 bits for the first part, 6 and 5 for the others.

    Args:
        version: Such as "0.2.0"; what follows three numbers is left out, and numbers that are too large become smaller.
    """
    first, second, third = (int("".join(filter(str.isdigit, part)) or 0) for part in version.split(".")[:3])
    return min(first, 31) << 11 | min(second, 63) << 5 | min(third, 31)


def version_of(number: int) -> str:
    """The version in a mark."""
    return f"{number >> 11}.{number >> 5 & 63}.{number & 31}"


@lru_cache(8)
def _steps(number: int, times: int) -> Int8[np.ndarray, "side side"]:
    """A tile as small integers."""
    return np.round(TILE_DEVIATION * tile(number, times)).clip(-LARGEST_STEP, LARGEST_STEP).astype(np.int8)


@lru_cache(4)
def _prepared(
    number: int, height: int, width: int, channels: int
) -> tuple[Int8[np.ndarray, "side byte"], Float32[Tensor, "row column"]]:
    """A tile for pixels of 3 or 4 channels, of which alpha is not marked, and its power in each block."""
    steps = _steps(number, tile_times(min(height, width)))
    colours = np.array([1, 1, 1, 0], np.int8)[:channels]
    return (steps[..., None] * colours).reshape(len(steps), -1), block_power(steps, height, width)


def add_mark(frames: UInt8[np.ndarray, "frame height width channel"], number: int | None = None) -> None:
    """Put the mark into frames, in place; its PSNR is 45 dB or more in each.

    Args:
        frames: RGB, or RGBA with straight alpha, where only what can be seen is marked; contiguous.
        number: What it says, 0 to 65,535; None: this version of SDTalk.
    """
    from sdtalk.provenance import mark_kernels  # imports a compiler, which takes a quarter of a second

    count, height, width, channels = frames.shape
    steps, power = _prepared(version_number() if number is None else number, height, width, channels)
    lines = frames.reshape(count, height, width * channels)
    assert np.shares_memory(lines, frames), "frames are contiguous"
    unseen = frames[..., :3].copy() if channels == 4 else None
    activity = np.empty((count, -(-height // BLOCK), -(-width // BLOCK)), np.int32)
    for frame, found in zip(lines, activity, strict=True):
        mark_kernels.activity(frame, channels, found)
    for frame, gain in zip(lines, gains(torch.from_numpy(activity), channels, power).numpy(), strict=True):
        mark_kernels.add(frame, channels, gain, steps)
    if unseen is not None:
        np.copyto(frames[..., :3], unseen, where=frames[..., 3:] == 0)


def marked(
    batches: Iterator[UInt8[np.ndarray, "frame height width channel"]],
) -> Iterator[UInt8[np.ndarray, "frame height width channel"]]:
    """Put the mark into batches of frames, as they come; see `add_mark`."""
    for frames in batches:
        add_mark(frames)
        yield frames


class DeviceMark:
    """The mark for frames on a device: the same bytes as those of `add_mark`."""

    def __init__(
        self, height: int, width: int, channels: int, device: torch.device, number: int | None = None
    ) -> None:
        """Move the mark to a device.

        Args:
            height: Of the frames in px.
            width: The same.
            channels: 3, or 4 with alpha.
            device: Where they are.
            number: As for `add_mark`.
        """
        number = version_number() if number is None else number
        steps = _steps(number, tile_times(min(height, width)))
        self._steps = torch.from_numpy(repeated(steps, height, width).astype(np.int16)).to(device)[..., None]
        self._power, self._channels = block_power(steps, height, width).to(device), channels

    def draw(self, frames: UInt8[Tensor, "frame height width channel"]) -> None:
        """Put it into frames, in place; nothing waits for the device."""
        height, width = self._steps.shape[:2]
        gain = gains(_activity(frames), self._channels, self._power)
        gain = gain.repeat_interleave(BLOCK, 1)[:, :height].repeat_interleave(BLOCK, 2)[:, :, :width, None]
        change = (self._steps * gain + ROUNDING) >> SHIFT
        colours = frames[..., :3]
        if self._channels == 4:
            change = change.masked_fill(frames[..., 3:] == 0, 0)
        colours.copy_((colours + change).clamp(0, 255))


def _activity(frames: UInt8[Tensor, "frame height width channel"]) -> Tensor:
    """As the kernel of the same name."""
    height, width = frames.shape[1:3]
    values = frames.to(torch.int32)
    across = (values[:, :, 1:] - values[:, :, :-1]).abs().sum(-1)
    down = (values[:, 1:] - values[:, :-1]).abs().sum(-1)
    rest = (0, -width % BLOCK, 0, -height % BLOCK)
    total = F.pad(across, (0, 1))[:, : height - 1] + down
    total = F.pad(total, (0, 0, 0, 1))
    blocks = F.pad(total, rest).unflatten(1, (-1, BLOCK)).unflatten(3, (-1, BLOCK))
    return blocks[:, :, ::ROW_STEP].sum((2, 4)).to(torch.int32)
