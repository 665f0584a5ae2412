"""CUDA kernel of the window renderer, in Triton: a painter's correction becomes a window's pixels, right in the frame.

It follows `rendering.cpu.painting`, and takes the place of some forty operations for each kind of window.
"""

import torch
import torch.nn.functional as F
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from sdtalk.rendering.triton.kernel import kernel
from sdtalk.rendering.window_inputs import FADE, LIGHT, SHADE_PX, WindowInputs

PIXELS = 256
"""Pixels of a program."""


@kernel
def place_between(at, last, STEP: tl.constexpr):
    """Two neighbours of a pixel among values for every STEP pixels, and how far it lies towards the second one."""
    place = tl.minimum(tl.maximum((at + 0.5) / STEP - 0.5, 0.0), last)
    before = place.to(tl.int32)
    return before, tl.minimum(before + 1, last), place - before


@kernel
def interpolated(coarse, rows, columns, side, mask):
    """Bilinear values of a plane with rows of a length."""
    top, low, down = rows
    left, right, across = columns
    a = tl.load(coarse + top * side + left, mask=mask, other=0.0)
    b = tl.load(coarse + top * side + right, mask=mask, other=0.0)
    c = tl.load(coarse + low * side + left, mask=mask, other=0.0)
    d = tl.load(coarse + low * side + right, mask=mask, other=0.0)
    upper, lower = a + across * (b - a), c + across * (d - c)
    return upper + down * (lower - upper)


@kernel
def paint_windows(
    base,
    opaque,
    mask,
    detail,
    silent,
    teeth,
    freedom,
    colourful,
    fine,
    coarse,
    corners,
    picture,
    height,
    width,
    SIZE: tl.constexpr,
    STEP: tl.constexpr,
    CHANNELS: tl.constexpr,
    FADE: tl.constexpr,
    LIGHT: tl.constexpr,
    GROUP: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Paint one window into every picture, as `WindowInputs.painted` computes it: a program is some pixels of one.

    Args:
        base: [window, 3, SIZE, SIZE], as all up to `colourful` of `WindowInputs`.
        opaque: [window, SIZE, SIZE] alpha of the windows.
        mask: [window, SIZE, SIZE].
        detail: [window, SIZE, SIZE].
        silent: [window, SIZE, SIZE].
        teeth: [window, 2, 3, SIZE, SIZE]; not looked at where there are three channels.
        freedom: [window].
        colourful: [window].
        fine: [window, CHANNELS, SIZE, SIZE] the correction.
        coarse: [window, CHANNELS, SIZE / STEP, SIZE / STEP] its means.
        corners: [window, 2] left and top of each in its picture, whole px, which may lie outside.
        picture: [frame, 4, height, width] colours, premultiplied, and alpha; painted in place.
        height: Of the pictures.
        width: Of the pictures.
        SIZE: Side of the windows.
        STEP: Px of a coarse value.
        CHANNELS: Of the correction: 3, or 5 with teeth.
        FADE: As in `window_inputs`.
        LIGHT: As in `window_inputs`.
        GROUP: 0: the first windows, as many as pictures; 1: the next ones, those of pictures in the mirror.
        PIXELS: So many.
    """
    frame, plane = tl.program_id(1), SIZE * SIZE
    window = GROUP * tl.num_programs(1) + frame
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    column, row = pixel % SIZE, pixel // SIZE
    # far outside is outside, and whole numbers have an end
    left = tl.minimum(tl.maximum(tl.load(corners + 2 * window), -1e6), 1e6).to(tl.int32)
    top = tl.minimum(tl.maximum(tl.load(corners + 2 * window + 1), -1e6), 1e6).to(tl.int32)
    x, y = left + column, top + row
    if GROUP == 1:
        x = width - 1 - x
    at = window * plane + pixel
    share = tl.load(mask + at, mask=pixel < plane, other=0.0)
    here = (share > 0.0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    side: tl.constexpr = SIZE // STEP
    rows, columns = place_between(row, side - 1, STEP), place_between(column, side - 1, STEP)
    coarse += window * CHANNELS * side * side
    fine += window * CHANNELS * plane + pixel
    base += window * 3 * plane + pixel
    colour, free = tl.load(colourful + window), tl.load(freedom + window)
    s0 = interpolated(coarse, rows, columns, side, here)
    s1 = interpolated(coarse + side * side, rows, columns, side, here)
    s2 = interpolated(coarse + 2 * side * side, rows, columns, side, here)
    f0 = tl.load(fine, mask=here, other=0.0)
    f1 = tl.load(fine + plane, mask=here, other=0.0)
    f2 = tl.load(fine + 2 * plane, mask=here, other=0.0)
    grey, fine_grey = (s0 + s1 + s2) / 3.0, (f0 + f1 + f2) / 3.0
    sharp, unseen = tl.load(detail + at, mask=here, other=0.0), tl.load(silent + at, mask=here, other=0.0)
    show_upper, show_lower = 0.0, 0.0
    if CHANNELS == 5:
        upper = interpolated(coarse + 3 * side * side, rows, columns, side, here)
        lower = interpolated(coarse + 4 * side * side, rows, columns, side, here)
        # tanh, which Triton's own functions lack
        show_upper = free * FADE * (1.0 - 2.0 / (tl.exp(2.0 * upper) + 1.0))
        show_lower = free * FADE * (1.0 - 2.0 / (tl.exp(2.0 * lower) + 1.0))
    target = picture + frame * 4 * height * width + y * width + x
    for c in tl.static_range(3):
        if c == 0:
            shade, own = s0, f0
        elif c == 1:
            shade, own = s1, f1
        else:
            shade, own = s2, f2
        value = tl.load(base + c * plane, mask=here, other=0.0)
        if CHANNELS == 5:
            jaws = teeth + (window * 6 + c) * plane + pixel
            value += show_upper * tl.load(jaws, mask=here, other=0.0)
            value += show_lower * tl.load(jaws + 3 * plane, mask=here, other=0.0)
        lit = grey + colour * (shade - grey)
        added = lit + sharp * (fine_grey + colour * (own - fine_grey) - lit)
        if CHANNELS == 5:
            brighter = tl.exp(tl.minimum(tl.maximum(lit, -LIGHT), LIGHT)) - 1.0
            added += unseen * (value * brighter - added)
        before = tl.load(target + c * height * width, mask=here, other=0.0)
        tl.store(target + c * height * width, before + share * (value + free * added - before), mask=here)
    before = tl.load(target + 3 * height * width, mask=here, other=0.0)
    shown = tl.load(opaque + at, mask=here, other=0.0)
    tl.store(target + 3 * height * width, before + share * (shown - before), mask=here)


def paint(
    inputs: WindowInputs,
    correction: Float[Tensor, "window channel size size"],
    opaque: Float[Tensor, "window 1 size size"],
    corners: Float[Tensor, "window 2"],
    picture: Float[Tensor, "frame 4 height width"],
) -> None:
    """Paint finished windows; without gradients.

    Args:
        inputs: What was painted on; beyond the number of frames, in the mirror.
        correction: The painter's, zero where nothing shows the person.
        opaque: How far a pixel of a window shows the person.
        corners: Left and top of each window in its frame, or in the frame's mirror image.
        picture: Colours, premultiplied, and alpha; lies in memory row by row.
    """
    size, frames = correction.shape[-1], len(picture)
    assert picture.is_contiguous()
    teeth = inputs.base if inputs.teeth is None else inputs.teeth
    layers = [inputs.base, opaque, inputs.mask, inputs.detail, inputs.silent, teeth]
    layers += [inputs.freedom, inputs.colourful, correction, F.avg_pool2d(correction, SHADE_PX), corners]
    layers = [x.contiguous() for x in layers]
    with torch.cuda.device_of(picture):
        # the windows of both eyes may overlap: each counts as its mask says
        for group in range(len(correction) // frames):
            paint_windows[(-(-(size**2) // PIXELS), frames)](
                *layers,
                picture,
                *picture.shape[2:],
                SIZE=size,
                STEP=SHADE_PX,
                CHANNELS=correction.shape[1],
                FADE=FADE,
                LIGHT=LIGHT,
                GROUP=group,
                PIXELS=PIXELS,
            )
