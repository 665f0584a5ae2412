"""Repainting: a frame's own lower face moved to other words, and the inside of the mouth painted into it.

Skin, beard and light are the frame's own: the frame is drawn on its own face mesh, moved. Around the face's outline a
ring of triangles that stand still outside lets chin and neck move without a seam. Between the lips nothing of the frame
can stay, since what teeth show changes with the old words: that is painted by the model from one frame of the shot that
shows the mouth open, so that teeth are the person's own and never flicker.
"""

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.dubbing.inner_mouth import OpenMouth, PaintedMouth, painted_mouth
from sdtalk.dubbing.lower_face import LowerFace
from sdtalk.full_frame import sampled_at
from sdtalk.image import to_tensor
from sdtalk.model import SDTalk
from sdtalk.rendering.moved_photo import moved_photo
from sdtalk.smoothstep import smoothly
from sdtalk.tracking.face_model import FaceModel

OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""The face's outline, once around."""

RING = 0.4
"""The ring's outer edge lies so much farther from the face's middle than its outline."""

MOVED_PX = 0.05
"""A square is drawn around the points that move more than this, px of the frame."""

SAME, OTHER = 0.6 / 255, 2 / 255
"""Colours that differ by less than the first keep the frame's own bits."""

MOST_GAIN = 1.4
"""Colours of the open mouth are made so much lighter or darker at most to match a frame."""


@torch.inference_mode()
def repaint(
    model: SDTalk,
    mouth: OpenMouth,
    face: LowerFace,
    number: int,
    code: Float[Tensor, " 5"],
    frame: UInt8[np.ndarray, "height width 3"],
) -> None:
    """Let a frame say other words, in place.

    Args:
        model: One with a window renderer.
        mouth: What the shot's mouth looks like inside.
        face: The shot's face.
        number: Of the frame, from the shot's first on.
        code: State of the mouth.
        frame: RGB; where nothing changes it keeps its bits.
    """
    if not face.strength[number] > 0:
        return
    mesh = face.mesh(number, code)
    seen, spoken = face.seen_xy[number : number + 1], face.spoken_xy(number, mesh)
    box = moving_box(seen, spoken)
    if box is None:
        return
    left, top, side = box
    cut = square_of(frame, left, top, side)
    was = to_tensor(cut)
    offset = torch.tensor([left, top], dtype=torch.float32)
    drawn, there = moved_photo(
        was,
        with_ring(seen, seen) - offset,
        with_ring(spoken, seen) - offset,
        with_ring_heights(face.heights[number : number + 1]),
        surface(),
        side,
    )
    new = torch.lerp(was, drawn, there)
    painted = painted_mouth(model, mouth, mesh, face.camera[number : number + 1])
    new = with_mouth(new, painted, face, number, offset)
    changed = smoothly((new - was).abs().amax(1, keepdim=True), SAME, OTHER)
    mixed = (
        (torch.lerp(was, new, changed).clamp(0, 1) * 255 + 0.5).to(torch.uint8)[0].permute(1, 2, 0).numpy()
    )
    put_back(frame, mixed, left, top)


def with_mouth(
    picture: Float[Tensor, "1 3 side side"],
    painted: PaintedMouth,
    face: LowerFace,
    number: int,
    offset: Float[Tensor, "2"],
) -> Float[Tensor, "1 3 side side"]:
    """A square of a frame with the painted inside of the mouth, in the frame's own light.

    Args:
        picture: The square, its lips already in place.
        painted: The inside.
        face: Where the camera's square lies.
        number: Of the frame.
        offset: Left and top of the square, px of the frame.
    """
    size, side = painted.colours.shape[-1], picture.shape[-1]
    scale = face.sides[number] / FRAME_SIZE
    start = face.corners[number] + painted.corner * scale - offset  # of the window, in px of the square
    # what the frame shows around the lips, at the window's resolution
    steps = (torch.arange(size) + 0.5) * scale - 0.5
    around = sampled_at(picture, (start[0] + steps)[None], (start[1] + steps)[:, None])
    gain = gain_on(painted.skin, around, painted.colours)
    first = [max(math.floor(float(x)), 0) for x in start]
    last = [min(math.ceil(float(x + size * scale)), side) for x in start]
    columns, rows = (
        ((torch.arange(a, b) + 0.5 - x) / scale - 0.5) for a, b, x in zip(first, last, start, strict=True)
    )
    inside = sampled_at(painted.inside, columns[None], rows[:, None]) * face.strength[number]
    colours = sampled_at(painted.colours * gain, columns[None], rows[:, None])
    part = picture[..., first[1] : last[1], first[0] : last[0]]
    result = picture.clone()
    result[..., first[1] : last[1], first[0] : last[0]] = torch.lerp(part, colours, inside)
    return result


def gain_on(
    skin: Float[Tensor, "1 1 size size"],
    wanted: Float[Tensor, "1 3 size size"],
    given: Float[Tensor, "1 3 size size"],
) -> Float[Tensor, "1 3 1 1"]:
    """What brings the mean colour of the skin to that of a frame."""
    ratio = (skin * wanted).sum((2, 3), keepdim=True) / (skin * given).sum((2, 3), keepdim=True).clamp_min(
        1e-3
    )
    return ratio.clamp(1 / MOST_GAIN, MOST_GAIN)


def ring_of(xy: Float[Tensor, "1 478 2"]) -> Float[Tensor, "1 36 2"]:
    """The ring's outer points: around a face as the frame shows it, wherever it is moved to."""
    outline = xy[:, list(OVAL)]
    return outline + RING * (outline - outline.mean(1, keepdim=True))


def with_ring(xy: Float[Tensor, "1 478 2"], seen: Float[Tensor, "1 478 2"]) -> Float[Tensor, "1 514 2"]:
    """A mesh and the ring around it."""
    return torch.cat([xy, ring_of(seen)], dim=1)


def with_ring_heights(heights: Float[Tensor, "1 478"]) -> Float[Tensor, "1 514"]:
    """Heights of a mesh and its ring, which lies behind it."""
    return torch.cat([heights, heights[:, list(OVAL)] - 1e3], dim=1)


@cache
def surface() -> Int[Tensor, "triangle 3"]:
    """Triangles of the face, its mouth closed by some, and of the ring."""
    face, count = FaceModel.bundled(), len(OVAL)
    inner, outer = torch.tensor(OVAL), torch.arange(count) + len(face.mean_face)
    ring = torch.cat(
        [
            torch.stack([inner, inner.roll(-1), outer], 1),
            torch.stack([inner.roll(-1), outer.roll(-1), outer], 1),
        ]
    )
    return torch.cat([face.triangles, face.mouth_triangles, ring])


def moving_box(
    seen: Float[Tensor, "1 478 2"], spoken: Float[Tensor, "1 478 2"]
) -> tuple[int, int, int] | None:
    """Left, top and side of a square around all that moves with some points, whole px; None: nothing moves."""
    moving = (spoken - seen).norm(dim=2)[0] > MOVED_PX
    if not moving.any():
        return None
    ring = torch.zeros(len(OVAL), dtype=torch.bool)
    on_outline = moving[list(OVAL)]
    ring |= on_outline | on_outline.roll(1) | on_outline.roll(-1)
    points = torch.cat([seen[0][moving], spoken[0][moving], ring_of(seen)[0][ring]])
    low, high = points.amin(0), points.amax(0)
    margin = (
        0.15 * float((high - low).amax()) + 4
    )  # triangles reach farther than the points of theirs that move
    side = math.ceil(float((high - low).amax()) + 2 * margin)
    middle = (low + high) / 2
    return round(float(middle[0]) - side / 2), round(float(middle[1]) - side / 2), side


def square_of(
    frame: UInt8[np.ndarray, "height width 3"], left: int, top: int, side: int
) -> UInt8[np.ndarray, "{side} {side} 3"]:
    """A square of a frame; beyond its border the border's pixels go on."""
    height, width = frame.shape[:2]
    rows = np.arange(top, top + side).clip(0, height - 1)
    columns = np.arange(left, left + side).clip(0, width - 1)
    return np.ascontiguousarray(frame.take(rows, 0).take(columns, 1))


def put_back(
    frame: UInt8[np.ndarray, "height width 3"], square: UInt8[np.ndarray, "side side 3"], left: int, top: int
) -> None:
    """Write a square into a frame, as far as it lies in it."""
    height, width = frame.shape[:2]
    side = len(square)
    first, last = max(top, 0), min(top + side, height)
    start, stop = max(left, 0), min(left + side, width)
    if first < last and start < stop:
        frame[first:last, start:stop] = square[first - top : last - top, start - left : stop - left]
