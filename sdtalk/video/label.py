"""Visible label: a line of text in a corner of every frame, which says that the video was made."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

AI_GENERATED = "AI-generated"
LONGEST_LABEL = 40
"""Characters; more would not be readable in a corner."""
TEXT_HEIGHT = 1 / 28
SMALLEST_TEXT_PX = 9
INK, BOX = (255, 255, 255, 235), (0, 0, 0, 140)


def draw_label(text: str, size: int) -> UInt8[np.ndarray, "height width 4"]:
    """Draw a label for frames of a size: white on a dark, half-transparent, rounded box, RGBA.

    Args:
        text: One line.
        size: Side of the frames in px; the label is never wider.
    """
    # Pillow brings this font along: nothing to look for on the machine
    font = ImageFont.load_default(max(SMALLEST_TEXT_PX, size * TEXT_HEIGHT))
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text))
    margin = max(2, (bottom - top) // 2)
    image = Image.new("RGBA", (right - left + 2 * margin, bottom - top + 2 * margin))
    drawing = ImageDraw.Draw(image)
    drawing.rounded_rectangle((0, 0, image.width - 1, image.height - 1), margin, BOX)
    drawing.text((margin - left, margin - top), text, INK, font)
    if image.width > size:
        image = image.resize((size, max(1, image.height * size // image.width)), Image.Resampling.LANCZOS)
    return np.array(image)


def labelled(
    batches: Iterator[UInt8[np.ndarray, "frame size size channel"]], text: str, size: int
) -> Iterator[UInt8[np.ndarray, "frame size size channel"]]:
    """Put a label into the lower right corner of every frame; no text leaves the frames as they are.

    Where frames are transparent, its box is black and opaque: it can be read over anything, and stays in a GIF.

    Args:
        batches: Frames, RGB or RGBA (straight alpha).
        text: What to write.
        size: Side of the frames in px.
    """
    if not text:
        yield from batches
        return
    label = draw_label(text, size).astype(np.uint16)
    ink, alpha = label[..., :3] * label[..., 3:], 255 - label[..., 3:]
    edge = min(size // 40, size - label.shape[1])
    rows = slice(size - edge - label.shape[0], size - edge)
    columns = slice(size - edge - label.shape[1], size - edge)
    for frames in batches:
        corner = frames[:, rows, columns]
        if frames.shape[-1] == 4:
            covered = label[..., 3] > 0
            below = (corner[..., :3] * corner[..., 3:].astype(np.uint16) + 127) // 255
            corner[..., :3] = np.where(covered[..., None], below, corner[..., :3])
            corner[..., 3] |= np.where(covered, 255, 0).astype(np.uint8)
        corner[..., :3] = (corner[..., :3] * alpha + ink + 127) // 255
        yield frames
