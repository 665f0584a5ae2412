"""Window renderer, the neural renderer of mini: paints mouth and eyes of a frame where the photo is silent."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_inputs import FADE, LIGHT, SHADE_PX, WindowInputs, window_inputs
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.tracking.face_model import FaceModel

MOUTH_WIDTH, EYE_WIDTH = 24, 12
"""Channels of the painters at half the resolution."""

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
        self, points: list[int], side: int
    ) -> tuple[Float[Tensor, "batch 3 side side"], Float[Tensor, "batch 478 2"]]:
        """Squares of the photo around some points of the mesh, and the mesh in px of them; all that windows look at."""
        size = self.image.new_tensor([self.image.shape[-1] - side, self.image.shape[-2] - side]).clamp_min(0)
        corners = (self.xy[:, points].mean(1) - side / 2).round().clamp_min(0).minimum(size)
        places = corners.int().tolist()
        cuts = [p[:, y : y + side, x : x + side] for p, (x, y) in zip(self.image, places, strict=True)]
        return torch.stack(cuts), self.xy - corners[:, None]


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
    ) -> None:
        """Paint the windows of colours and alpha, in place; otherwise as `forward`."""
        width = picture.shape[-1]
        rest, moved = camera.project(photo.mesh.expand_as(mesh)), camera.project(mesh)
        heights = -camera.to_camera_space(mesh)[..., 2]
        left_eye = FaceModel.bundled().mirror.tolist()

        def around(points: list[int], side: int) -> WindowGeometry:
            cut, xy = photo.cut(points, side)
            return WindowGeometry(cut, xy.expand(len(mesh), -1, -1), rest, moved, heights)

        lids = list(RIGHT_EYE.outline)
        right, left = around(lids, EYE_CUT), around([left_eye[i] for i in lids], EYE_CUT)
        _paint(MOUTH, self.mouth, around(list(MOUTH.outline), MOUTH_CUT), picture)
        _paint(RIGHT_EYE, self.eyes, right.followed_by(left.mirrored(width)), picture)


def _paint(
    window: FaceWindow,
    painter: WindowPainter,
    geometry: WindowGeometry,
    picture: Float[Tensor, "frame 4 height width"],
) -> None:
    """Paint one kind of window, in place; geometry beyond the number of frames is that of frames in the mirror."""
    size, frames = window.size, len(picture)
    corners = (geometry.moved_xy[:, list(window.outline)].mean(1) - size / 2).round()
    places = corners.long().tolist()
    for i in range(frames, len(places)):  # where the windows of frames in the mirror lie in the frames
        places[i][0] = picture.shape[-1] - size - places[i][0]
    behind = torch.stack([_cut(picture[i % frames], left, top, size) for i, (left, top) in enumerate(places)])
    behind = torch.cat([behind[:frames], behind[frames:].flip(-1)])
    inputs = window_inputs(window, geometry.within(corners), behind[:, :3])
    dtype = next(painter.parameters()).dtype
    # one after the other, which takes less time than both at once
    planes = inputs.planes.to(dtype).contiguous(memory_format=torch.channels_last)
    correction = painter(planes, inputs.numbers.to(dtype))
    opaque = torch.maximum(behind[:, 3:], inputs.mesh)
    correction = correction.float() * opaque
    if picture.device.type == "cpu" and not torch.is_grad_enabled():
        paint_in_place(inputs, correction, opaque, places, picture)
        return
    painted = torch.cat([inputs.painted(correction), opaque], dim=1)
    painted, mask = (torch.cat([x[:frames], x[frames:].flip(-1)]) for x in (painted, inputs.mask))
    for i, (left, top) in enumerate(places):
        whole, part = _overlap(picture[i % frames], left, top, size)
        # the windows of both eyes may overlap: each counts as its mask says
        before = picture[i % frames][whole]
        picture[i % frames][whole] = torch.lerp(before, painted[i][part], mask[i][part])


def paint_in_place(
    inputs: WindowInputs,
    correction: Float[Tensor, "window channel size size"],
    opaque: Float[Tensor, "window 1 size size"],
    places: list[list[int]],
    picture: Float[Tensor, "frame 4 height width"],
) -> None:
    """Paint finished windows by a compiled kernel, on the CPU.

    Args:
        inputs: What was painted on; beyond the number of frames, in the mirror.
        correction: The painter's, zero where nothing shows the person.
        opaque: How far a pixel of a window shows the person.
        places: Left and top of each window in its frame.
        picture: Colours, premultiplied, and alpha.
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
        picture.numpy(),
    )


def _cut(
    picture: Float[Tensor, "4 height width"], left: int, top: int, size: int
) -> Float[Tensor, "4 size size"]:
    """A square of a picture; nothing where it reaches beyond the border."""
    whole, part = _overlap(picture, left, top, size)
    window = picture.new_zeros(len(picture), size, size)
    window[part] = picture[whole]
    return window


def _overlap(picture: Tensor, left: int, top: int, size: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a square lies in a picture, and which part of the square that is."""
    whole, part = [slice(None)], [slice(None)]
    for first, length in ((top, picture.shape[-2]), (left, picture.shape[-1])):
        low, high = min(max(first, 0), length), min(max(first + size, 0), length)
        whole.append(slice(low, high))
        part.append(slice(low - first, high - first) if high > low else slice(0, 0))
    return tuple(whole), tuple(part)
