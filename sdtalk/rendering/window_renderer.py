"""Window renderer, the neural renderer of mini: paints mouth and eyes of a frame where the photo is silent."""

from dataclasses import dataclass
from functools import partial
from types import EllipsisType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.rendering.device_constants import numbers, point_list
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_inputs import FADE, LIGHT, SHADE_PX, WindowInputs, window_inputs
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.rendering.window_squares import WindowSquares, cut_on_host, overlap
from sdtalk.tracking.face_model import FaceModel

MOUTH_WIDTH, EYE_WIDTH = 24, 12
"""Channels of the painters at half the resolution."""

PAINTED_PX = 16
"""Sides of what painters take are multiples of this, see `WindowPainter`."""

MOUTH_CUT, EYE_CUT = 192, 128
"""Sides of the squares of the photo that the windows are drawn from, px."""


@dataclass(frozen=True)
class PhotoFace:
    """A photo and the face mesh on it.

    Attributes:
        image: RGB in [0, 1], with its margin.
        mesh: The face mesh in head space.
        xy: The mesh in px of `image`.
    """

    image: Float[Tensor, "batch 3 height width"]
    mesh: Float[Tensor, "batch 478 3"]
    xy: Float[Tensor, "batch 478 2"]

    def cut(
        self, points: Int[Tensor, " point"], side: int, on_host: bool
    ) -> tuple[Float[Tensor, "batch 3 side side"], Float[Tensor, "batch 478 2"]]:
        """Squares of the photo around some points of the mesh, and the mesh in px of them; all that windows look at.

        Args:
            points: Of the mesh.
            side: Of the squares in px, or as much as the photo has.
            on_host: As for `WindowRenderer.paint`.
        """
        height, width = self.image.shape[-2:]
        free = numbers((float(max(width - side, 0)), float(max(height - side, 0))), self.image.device)
        corners = (self.xy[:, points].mean(1) - side / 2).round().clamp_min(0).minimum(free)
        moved = self.xy - corners[:, None]
        if not on_host:
            squares = WindowSquares.at(corners, min(side, height, width), height, width)
            return squares.cut(self.image), moved
        places = corners.int().tolist()
        cuts = [p[:, y : y + side, x : x + side] for p, (x, y) in zip(self.image, places, strict=True)]
        return torch.stack(cuts), moved


class WindowRenderer(nn.Module):
    """Rasterised frames -> frames whose mouth and eyes are the photo's, moved on the mesh and corrected.

    Everywhere else a frame stays as it was rasterised. In the photo's own state mouth and eyes are the photo's pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        fast = torch.channels_last  # of the weights, on a CPU
        self.mouth = WindowPainter(MOUTH, MOUTH_WIDTH).to(memory_format=fast)  # type: ignore[call-overload]
        self.eyes = WindowPainter(RIGHT_EYE, EYE_WIDTH).to(memory_format=fast)  # type: ignore[call-overload]

    def forward(
        self,
        photo: PhotoFace,
        mesh: Float[Tensor, "frame 478 3"],
        camera: Camera,
        colours: Float[Tensor, "frame 3 height width"],
        alpha: Float[Tensor, "frame 1 height width"],
    ) -> tuple[Float[Tensor, "frame 3 height width"], Float[Tensor, "frame 1 height width"]]:
        """Paint the windows.

        Args:
            photo: Of the person; one, or one a frame.
            mesh: The face mesh in the state of each frame, head space.
            camera: One a frame.
            colours: Rasterised, premultiplied by alpha.
            alpha: How far a pixel shows the person.

        Returns:
            Colours and alpha, as they came in but for the windows.
        """
        picture = torch.cat([colours, alpha], dim=1)
        self.paint(photo, mesh, camera, picture)
        return picture[:, :3], picture[:, 3:]

    def paint(
        self,
        photo: PhotoFace,
        mesh: Float[Tensor, "frame 478 3"],
        camera: Camera,
        picture: Float[Tensor, "frame 4 height width"],
        on_host: bool | None = None,
        zoom: int = 1,
    ) -> None:
        """Paint the windows of colours and alpha, in place; otherwise as `forward`.

        Args:
            photo: See there.
            mesh: See there.
            camera: See there.
            picture: Colours, premultiplied, and alpha; lies in memory row by row.
            on_host: Whether the host looks at where windows lie, for which it would wait for a GPU. None: on a CPU.
            zoom: So many px of the camera, across and down, are one of the picture; on the host, without gradients.
        """
        width, device = zoom * picture.shape[-1], picture.device
        on_host = device.type == "cpu" if on_host is None else on_host
        rest, moved = camera.project(photo.mesh.expand_as(mesh)), camera.project(mesh)
        heights = -camera.to_camera_space(mesh)[..., 2]

        def around(points: Int[Tensor, " point"], side: int) -> WindowGeometry:
            cut, xy = photo.cut(points, side, on_host)
            return WindowGeometry(cut, xy.expand(len(mesh), -1, -1), rest, moved, heights)

        lids = point_list(RIGHT_EYE.outline, device)
        right, left = around(lids, EYE_CUT), around(FaceModel.on(device).mirror[lids], EYE_CUT)
        paint = partial(_paint_on_host, zoom=zoom) if on_host else _paint_on_device
        paint(MOUTH, self.mouth, around(point_list(MOUTH.outline, device), MOUTH_CUT), picture)
        paint(RIGHT_EYE, self.eyes, right.followed_by(left.mirrored(width)), picture)


def _corners(window: FaceWindow, geometry: WindowGeometry, zoom: int = 1) -> Float[Tensor, "window 2"]:
    """Left and top of windows around their outlines, whole px of a picture's, see `WindowRenderer.paint`."""
    outline = point_list(window.outline, geometry.moved_xy.device)
    return ((geometry.moved_xy[:, outline].mean(1) - window.size / 2) / zoom).round() * zoom


def _corrected(
    window: FaceWindow,
    painter: WindowPainter,
    geometry: WindowGeometry,
    behind: Float[Tensor, "window 4 size size"],
    narrow: bool = False,
) -> tuple[WindowInputs, Float[Tensor, "window channel size size"], Float[Tensor, "window 1 size size"]]:
    """What is painted on, the painter's correction, and how far a pixel shows the person.

    Narrow: the painter is not shown what no mask reaches, which spares a third of its work. What it sees of the
    window's border is nearer then, and some pixels near it are a little different.
    """
    inputs = window_inputs(window, geometry, behind[:, :3])
    dtype = next(painter.parameters()).dtype
    # one after the other, which takes less time than both at once
    planes, told = inputs.planes, inputs.numbers.to(dtype)
    part = _reached(inputs.mask) if narrow else (..., slice(None), slice(None))
    some = planes[part].to(dtype).contiguous(memory_format=torch.channels_last)
    correction = painter(some, told).float()
    if narrow:
        whole = correction.new_zeros(*correction.shape[:2], window.size, window.size)
        whole[part] = correction
        correction = whole
    opaque = torch.maximum(behind[:, 3:], inputs.mesh)
    return inputs, correction * opaque, opaque


def _reached(mask: Float[Tensor, "window 1 size size"]) -> tuple[EllipsisType, slice, slice]:
    """The rows and columns that a mask reaches, and a few more: painters take multiples of `PAINTED_PX`."""
    slices = []
    for axis in (1, 0):
        reached = (mask.amax((0, 1)) > 0).any(axis).nonzero()[:, 0].tolist()
        # from whole blocks of light and shade on
        low = reached[0] // SHADE_PX * SHADE_PX if reached else 0
        length = -(-(reached[-1] + 1 - low) // PAINTED_PX) * PAINTED_PX if reached else PAINTED_PX
        low = min(low, mask.shape[-1] - length)
        slices.append(slice(low, low + length))
    return ..., slices[0], slices[1]


def _paint_on_device(
    window: FaceWindow,
    painter: WindowPainter,
    geometry: WindowGeometry,
    picture: Float[Tensor, "frame 4 height width"],
) -> None:
    """As `_paint_on_host`, which looks at places; here nobody waits for where they are."""
    frames, sides = len(picture), picture.shape[-2:]
    corners = _corners(window, geometry)
    squares = [
        WindowSquares.at(part, window.size, *sides, mirrored=mirrored)
        for part, mirrored in zip(corners.split(frames), (False, True), strict=False)
    ]
    behind = torch.cat([square.cut(picture) for square in squares])
    inputs, correction, opaque = _corrected(window, painter, geometry.within(corners), behind)
    if picture.device.type == "cuda" and not torch.is_grad_enabled():
        from sdtalk.rendering.triton import window_painting

        window_painting.paint(inputs, correction, opaque, corners, picture)
        return
    painted = torch.cat([inputs.painted(correction), opaque], dim=1)
    # the windows of both eyes may overlap: each counts as its mask says
    for square, part, mask in zip(squares, painted.split(frames), inputs.mask.split(frames), strict=True):
        square.paint(picture, part, mask)


def _paint_on_host(
    window: FaceWindow,
    painter: WindowPainter,
    geometry: WindowGeometry,
    picture: Float[Tensor, "frame 4 height width"],
    zoom: int,
) -> None:
    """Paint one kind of window, in place; geometry beyond the number of frames is that of frames in the mirror."""
    size, frames = window.size, len(picture)
    corners = _corners(window, geometry, zoom)
    places = corners.long().tolist()
    for i in range(frames, len(places)):  # where the windows of frames in the mirror lie in the frames
        places[i][0] = zoom * picture.shape[-1] - size - places[i][0]
    behind = torch.stack(
        [
            cut_on_host(picture[i % frames], left // zoom, top // zoom, size // zoom)
            for i, (left, top) in enumerate(places)
        ]
    )
    if zoom > 1:
        behind = F.interpolate(
            behind, scale_factor=float(zoom)
        )  # to the nearest: what is painted is averaged again
    behind = torch.cat([behind[:frames], behind[frames:].flip(-1)])
    inputs, correction, opaque = _corrected(window, painter, geometry.within(corners), behind, zoom > 1)
    if picture.device.type == "cpu" and not torch.is_grad_enabled():
        paint_in_place(inputs, correction, opaque, places, picture, zoom)
        return
    painted = torch.cat([inputs.painted(correction), opaque], dim=1)
    painted, mask = (torch.cat([x[:frames], x[frames:].flip(-1)]) for x in (painted, inputs.mask))
    for i, (left, top) in enumerate(places):
        whole, part = overlap(picture[i % frames], left, top, size)
        # the windows of both eyes may overlap: each counts as its mask says
        before = picture[i % frames][whole]
        picture[i % frames][whole] = torch.lerp(before, painted[i][part], mask[i][part])


def paint_in_place(
    inputs: WindowInputs,
    correction: Float[Tensor, "window channel size size"],
    opaque: Float[Tensor, "window 1 size size"],
    places: list[list[int]],
    picture: Float[Tensor, "frame 4 height width"],
    zoom: int = 1,
) -> None:
    """Paint finished windows by a compiled kernel, on the CPU.

    Args:
        inputs: What was painted on; beyond the number of frames, in the mirror.
        correction: The painter's, zero where nothing shows the person.
        opaque: How far a pixel of a window shows the person.
        places: Left and top of each window in its frame, px of the window.
        picture: Colours, premultiplied, and alpha.
        zoom: So many px of the window, across and down, are one of the picture.
    """
    from sdtalk.rendering.cpu import painting

    size = correction.shape[-1]
    planes = (inputs.mask, inputs.detail, inputs.silent)
    numbers = (inputs.freedom, inputs.colourful)
    teeth = correction.new_empty(0, 2, 3, size, size) if inputs.teeth is None else inputs.teeth
    layers = [inputs.base, opaque[:, 0], *(x[:, 0] for x in planes), *(x[:, 0, 0, 0] for x in numbers), teeth]
    coarse = F.avg_pool2d(correction, SHADE_PX)
    limits = np.float32(FADE), np.float32(LIGHT), np.float32(SHADE_PX)
    painting.paint(
        0,
        len(places),
        len(picture),
        np.array(places),
        limits,
        tuple(x.contiguous().numpy() for x in layers),
        tuple(x.contiguous().numpy() for x in (correction, coarse)),
        zoom,
        picture.numpy(),
    )
