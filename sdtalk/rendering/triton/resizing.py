"""Triton kernel that doubles the sides of images, channels last: on a GPU much faster than PyTorch's own."""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from sdtalk.rendering.triton.kernel import kernel

BLOCK = 1024
"""Numbers that a program writes."""


@kernel
def double(source, target, rows, columns, channels, numbers, BLOCK: tl.constexpr):
    """Double images by bilinear interpolation: every new pixel lies a quarter of an old one from the nearest.

    Args:
        source: [image, rows, columns, channels]
        target: [image, 2 rows, 2 columns, channels] out.
        rows: Of the source.
        columns: Of the source.
        channels: Of both.
        numbers: Of an image of the target.
        BLOCK: Numbers of a program.
    """
    image = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = place < numbers
    channel, pixel = place % channels, place // channels
    x, y = pixel % (2 * columns), pixel // (2 * columns)
    near_x, near_y = x // 2, y // 2
    far_x = tl.minimum(tl.maximum(near_x + (x % 2) * 2 - 1, 0), columns - 1)
    far_y = tl.minimum(tl.maximum(near_y + (y % 2) * 2 - 1, 0), rows - 1)
    source += image * (rows * columns * channels)
    target += image * numbers
    near_line, far_line = near_y * columns, far_y * columns
    near_near = tl.load(source + (near_line + near_x) * channels + channel, mask=there).to(tl.float32)
    near_far = tl.load(source + (near_line + far_x) * channels + channel, mask=there).to(tl.float32)
    far_near = tl.load(source + (far_line + near_x) * channels + channel, mask=there).to(tl.float32)
    far_far = tl.load(source + (far_line + far_x) * channels + channel, mask=there).to(tl.float32)
    near, far = 0.75 * near_near + 0.25 * near_far, 0.75 * far_near + 0.25 * far_far
    tl.store(target + place, (0.75 * near + 0.25 * far).to(target.dtype.element_ty), mask=there)


@torch.no_grad()
def doubled(
    images: Float[Tensor, "image channel rows columns"],
) -> Float[Tensor, "image channel new_rows new_columns"]:
    """Images of twice the side, as by `F.interpolate(..., mode="bilinear", align_corners=False)`; without gradients."""
    images = images.contiguous(memory_format=torch.channels_last)
    count, channels, rows, columns = images.shape
    shape = count, channels, 2 * rows, 2 * columns
    target = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
    numbers = target[0].numel()
    double[triton.cdiv(numbers, BLOCK), count](images, target, rows, columns, channels, numbers, BLOCK=BLOCK)
    return target
