"""CPU kernel that pastes a moved head into its photo: every pixel that changed, at the photo's own resolution."""

import math

import numpy as np

from sdtalk.rendering.cpu.kernel import fast_kernel, inlined_kernel

RED, GREEN, BLUE, ALPHA, SHIFT_X, SHIFT_Y, DETAIL, CHANGED = range(8)
"""Channels of what is pasted, see `full_frame.FullFrame.changes`."""


@inlined_kernel
def spot(position, length):
    """The pixel before a position, the one after, and the share of the latter; at the border both are the last."""
    position = min(max(position, np.float32(0)), np.float32(length - 1))
    first = int(math.floor(position))
    return first, min(first + 1, length - 1), position - np.float32(first)


@fast_kernel
def paste(first, last, head, fine, behind, place, box, frame):
    """Paste rows first:last of the head's box into a frame that shows the photo.

    Args:
        first: Start of the range of rows, counted from the box's top.
        last: End of the range.
        head: [size, size, 8] in the order of the names above; colours premultiplied, shifts in px of the frame.
        fine: [rows, columns, 3] of the box: what the photo shows beyond the crop that the head was made of.
        behind: [side, side, 3] what stands behind the person in the crop.
        place: (left, top, side) of the crop in px of the frame.
        box: (left, top) of the box, whole px of the frame.
        frame: [height, width, 3] uint8, in and out.
    """
    left, top, side = place
    size, behind_size = head.shape[0], behind.shape[0]
    half, one, white = np.float32(0.5), np.float32(1), np.float32(255)
    rows, columns = fine.shape[0], fine.shape[1]
    values = np.empty(8, np.float32)
    for row in range(first, last):
        down = (np.float32(row + box[1]) + half - top) / side
        v0, v1, v = spot(down * size - half, size)
        b0, b1, b = spot(down * behind_size - half, behind_size)
        line = frame[box[1] + row]
        for column in range(columns):
            across = (np.float32(column + box[0]) + half - left) / side
            u0, u1, u = spot(across * size - half, size)
            near, far = head[v0], head[v1]
            changed = (one - v) * ((one - u) * near[u0, CHANGED] + u * near[u1, CHANGED])
            changed += v * ((one - u) * far[u0, CHANGED] + u * far[u1, CHANGED])
            if changed <= 0:
                continue
            for c in range(7):
                upper = (one - u) * near[u0, c] + u * near[u1, c]
                values[c] = upper + v * ((one - u) * far[u0, c] + u * far[u1, c] - upper)
            x0, x1, x = spot(np.float32(column) + values[SHIFT_X], columns)
            y0, y1, y = spot(np.float32(row) + values[SHIFT_Y], rows)
            a0, a1, a = spot(across * behind_size - half, behind_size)
            through = one - values[ALPHA]
            for c in range(3):
                upper = (one - x) * fine[y0, x0, c] + x * fine[y0, x1, c]
                detail = upper + y * ((one - x) * fine[y1, x0, c] + x * fine[y1, x1, c] - upper)
                upper = (one - a) * behind[b0, a0, c] + a * behind[b0, a1, c]
                scene = upper + b * ((one - a) * behind[b1, a0, c] + a * behind[b1, a1, c] - upper)
                moved = values[c] + values[DETAIL] * detail + through * scene
                was = np.float32(line[box[0] + column, c])
                new = was + changed * (min(max(moved, np.float32(0)), one) * white - was)
                line[box[0] + column, c] = np.uint8(new + half)
