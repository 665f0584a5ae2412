"""Visible label: a line of text in a corner of every frame, which says that the video was made."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

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


class DeviceLabel:
    """A label for frames on a device: the same bytes as those of `labelled`."""

    def __init__(self, text: str, size: tuple[int, int], device: torch.device) -> None:
        """Move a label to a device.

        Args:
            text: What to write.
            size: Width and height of the frames in px.
            device: Where they are.
        """
        label = draw_label(text, min(size))
        self._place = _corner(label, size)
        drawn = torch.from_numpy(label).to(device).int()
        self._ink, self._alpha = drawn[..., :3] * drawn[..., 3:], 255 - drawn[..., 3:]
        self._covered = drawn[..., 3:] > 0

    def draw(self, frames: UInt8[Tensor, "frame height width channel"]) -> None:
        """Put it into frames, in place; nothing waits for the device."""
        place = frames[(slice(None), *self._place)]
        colours = place[..., :3].int()
        if frames.shape[-1] == 4:
            alpha = place[..., 3:]
            colours = torch.where(self._covered, (colours * alpha + 127) // 255, colours)
            place[..., 3:] = alpha.masked_fill(self._covered, 255)
        place[..., :3] = ((colours * self._alpha + self._ink + 127) // 255).to(torch.uint8)


def _corner(label: UInt8[np.ndarray, "height width 4"], size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a frame where a label lies."""
    width, height = size
    edge = min(min(size) // 40, width - label.shape[1])
    return slice(height - edge - label.shape[0], height - edge), slice(
        width - edge - label.shape[1], width - edge
    )


def label_share(frame: UInt8[np.ndarray, "height width 3"], text: str) -> float:
    """How much the lower right corner of a frame looks like a label: correlation, 1 for one that was just drawn.

    Args:
        frame: Of any size, as it was written or made smaller.
        text: What the label would say.
    """
    height, width = frame.shape[:2]
    label = draw_label(text, min(height, width))
    rows, columns = _corner(label, (width, height))
    label = label.astype(np.float32)
    seen = frame[rows, columns].mean(-1)
    ink = label[..., 0] * label[..., 3]  # white where text is
    seen, ink = seen - seen.mean(), ink - ink.mean()
    return float((seen * ink).sum() / max(1e-6, np.sqrt((seen**2).sum() * (ink**2).sum())))


def labelled(
    batches: Iterator[UInt8[np.ndarray, "frame height width channel"]], text: str, size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, "frame height width channel"]]:
    """Put a label into the lower right corner of every frame; no text leaves the frames as they are.

    Where frames are transparent, its box is black and opaque: it can be read over anything, and stays in a GIF.

    Args:
        batches: Frames, RGB or RGBA (straight alpha).
        text: What to write.
        size: Width and height of the frames in px.
    """
    if not text:
        yield from batches
        return
    label = draw_label(text, min(size))
    rows, columns = _corner(label, size)
    label = label.astype(np.uint16)
    ink, alpha = label[..., :3] * label[..., 3:], 255 - label[..., 3:]
    for frames in batches:
        corner = frames[:, rows, columns]
        if frames.shape[-1] == 4:
            covered = label[..., 3] > 0
            below = (corner[..., :3] * corner[..., 3:].astype(np.uint16) + 127) // 255
            corner[..., :3] = np.where(covered[..., None], below, corner[..., :3])
            corner[..., 3] |= np.where(covered, 255, 0).astype(np.uint8)
        corner[..., :3] = (corner[..., :3] * alpha + ink + 127) // 255
        yield frames
