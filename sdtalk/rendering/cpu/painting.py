"""CPU kernel of the window renderer: a painter's correction becomes a window's pixels, right in the frame."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, inlined_kernel


@inlined_kernel
def interpolated(coarse, row, column, step):
    """Bilinear value at a pixel of a plane that has one value for every step x step pixels."""
    half, last = np.float32(0.5), coarse.shape[0] - 1
    y = min(max((np.float32(row) + half) / step - half, np.float32(0)), np.float32(last))
    x = min(max((np.float32(column) + half) / step - half, np.float32(0)), np.float32(last))
    top, left = int(y), int(x)
    low, right = min(top + 1, last), min(left + 1, last)
    down, across = y - np.float32(top), x - np.float32(left)
    upper = coarse[top, left] + across * (coarse[top, right] - coarse[top, left])
    lower = coarse[low, left] + across * (coarse[low, right] - coarse[low, left])
    return upper + down * (lower - upper)


@fast_kernel
def show_teeth(pixel, shade, teeth, row, column, freedom, fade):
    """Let a pixel [3] show more or less of drawn upper and lower teeth; see `WindowInputs.painted`."""
    for jaw in range(2):
        if (
            teeth[jaw, 0, row, column] != 0
            or teeth[jaw, 1, row, column] != 0
            or teeth[jaw, 2, row, column] != 0
        ):
            shown = freedom * fade * np.float32(math.tanh(shade[3 + jaw]))
            for c in range(3):
                pixel[c] += shown * teeth[jaw, c, row, column]


@inlined_kernel
def paint_pixel(w, row, column, limits, layers, corrections, shade, pixel):
    """Compute the colours of one pixel of a window, as `WindowInputs.painted` does; arguments as of `paint`.

    Args:
        w: Which window.
        row: Of the pixel.
        column: See row.
        limits: See `paint`, like layers and corrections.
        layers: See limits.
        corrections: See limits.
        shade: [5] to work in.
        pixel: [3] out.
    """
    base, _, _, detail, silent, freedom, colourful, teeth = layers
    fine, coarse = corrections
    fade, light, step = limits
    colour, free, third = colourful[w], freedom[w], np.float32(1) / np.float32(3)
    for k in range(fine.shape[1]):
        shade[k] = interpolated(coarse[w, k], row, column, step)
    grey = (shade[0] + shade[1] + shade[2]) * third
    fine_grey = (fine[w, 0, row, column] + fine[w, 1, row, column] + fine[w, 2, row, column]) * third
    for c in range(3):
        pixel[c] = base[w, c, row, column]
    if len(teeth) > 0:
        show_teeth(pixel, shade, teeth[w], row, column, free, fade)
    unseen = silent[w, row, column]
    for c in range(3):
        lit = grey + colour * (shade[c] - grey)
        own = fine_grey + colour * (fine[w, c, row, column] - fine_grey)
        added = lit + detail[w, row, column] * (own - lit)
        if unseen > 0:
            brighter = np.float32(math.exp(min(max(lit, -light), light))) - np.float32(1)
            added += unseen * (pixel[c] * brighter - added)
        pixel[c] += free * added


@fast_kernel
def paint(first, last, frames, places, limits, layers, corrections, zoom, picture):
    """Paint windows first:last, as `WindowInputs.painted` computes them, into pictures.

    Args:
        first: Of the windows.
        last: Behind the last one.
        frames: How many pictures there are; windows from this number on are those of pictures in the mirror.
        places: [window, 2] left and top of each in its picture, which may lie outside, in px of the window: multiples
            of zoom.
        limits: (fade, light, step) `FADE`, `LIGHT` and `SHADE_PX` of `window_inputs`.
        layers: (base [window, 3, size, size], opaque, mask, detail, silent [window, size, size], freedom, colourful
            [window], teeth [window, 2, 3, size, size], or [0, 2, 3, size, size]) of `WindowInputs`.
        corrections: (fine [window, channel, size, size], coarse [window, channel, size / step, size / step]).
        zoom: So many px of the window, across and down, are one of the picture.
        picture: [frame, 4, height, width] colours, premultiplied, and alpha; painted in place.
    """
    opaque, mask = layers[1], layers[2]
    size, part = mask.shape[1], np.float32(1) / np.float32(zoom * zoom)
    shade, pixel, change = np.empty(5, np.float32), np.empty(3, np.float32), np.empty(4, np.float32)
    for w in range(first, last):
        frame, mirrored = w % frames, w >= frames
        for top in range(0, size, zoom):
            y = (places[w, 1] + top) // zoom
            if y < 0 or y >= picture.shape[2]:
                continue
            for left in range(0, size, zoom):
                x = (places[w, 0] + (size - zoom - left if mirrored else left)) // zoom
                if x < 0 or x >= picture.shape[3]:
                    continue
                if zoom == 1 and mask[w, top, left] <= 0:  # half of all pixels
                    continue
                change[:] = 0
                for row in range(top, top + zoom):
                    for column in range(left, left + zoom):
                        share = part * mask[w, row, column]
                        if share <= 0:
                            continue
                        paint_pixel(w, row, column, limits, layers, corrections, shade, pixel)
                        for c in range(3):
                            change[c] += share * (pixel[c] - picture[frame, c, y, x])
                        change[3] += share * (opaque[w, row, column] - picture[frame, 3, y, x])
                for c in range(4):
                    picture[frame, c, y, x] += change[c]
