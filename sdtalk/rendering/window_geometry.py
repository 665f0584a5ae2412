"""Window geometry: where the face mesh lies in photos and in windows, its axes, and the photo moved rigidly."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.rendering.device_constants import numbers, point_list
from sdtalk.rendering.moved_photo import affine_photo
from sdtalk.tracking.face_model import FaceModel

EYE_CORNERS = (33, 263)
"""Outer corners of the eyes: their distance is the unit of length of what the painter is told."""


@dataclass(frozen=True)
class WindowGeometry:
    """Where the mesh lies in a photo and in frames, or in windows of them.

    Attributes:
        photo: The photos, or cuts of them, RGB in [0, 1]; where there are fewer than windows, each is that of as many
            windows in a row.
        photo_xy: The photo's mesh, px of `photo`.
        rest_xy: The photo's mesh in the frame's pose, px of the frame (or window).
        moved_xy: The frame's mesh, px of the same.
        heights: Of the frame's mesh towards the camera.
    """

    photo: Float[Tensor, "photo 3 height width"]
    photo_xy: Float[Tensor, "window 478 2"]
    rest_xy: Float[Tensor, "window 478 2"]
    moved_xy: Float[Tensor, "window 478 2"]
    heights: Float[Tensor, "window 478"]

    def of_windows(self, of_photos: Float[Tensor, "photo *any"]) -> Float[Tensor, "window *any"]:
        """What belongs to photos, for every window."""
        return of_photos.repeat_interleave(len(self.photo_xy) // len(of_photos), 0)

    def mirrored(self, width: int) -> "WindowGeometry":
        """The same in the mirror, where a left eye is a right one; `width` of the frame (or window) in px."""
        device = self.photo.device
        mirror, flip = FaceModel.on(device).mirror, numbers((-1.0, 1.0), device)

        def reflected(xy: Tensor, across: int) -> Tensor:
            return xy[:, mirror] * flip + numbers((float(across), 0.0), device)

        return WindowGeometry(
            self.photo.flip(-1),
            reflected(self.photo_xy, self.photo.shape[-1]),
            reflected(self.rest_xy, width),
            reflected(self.moved_xy, width),
            self.heights[:, mirror],
        )

    def within(self, corners: Float[Tensor, "window 2"]) -> "WindowGeometry":
        """Px of windows instead of px of frames; `corners`: left and top of each."""
        offset = corners[:, None].to(self.rest_xy)
        return replace(self, rest_xy=self.rest_xy - offset, moved_xy=self.moved_xy - offset)

    def followed_by(self, other: "WindowGeometry") -> "WindowGeometry":
        """Both, one after the other."""
        return WindowGeometry(*(torch.cat([getattr(g, f.name) for g in (self, other)]) for f in fields(self)))


@dataclass(frozen=True)
class FaceAxes:
    """Directions of a face in a picture, from one eye to the other.

    Attributes:
        across: From the subject's right eye to the left one, unit length.
        down: From the eyes to the mouth, unit length.
        span: Distance of the eyes' outer corners, px.
    """

    across: Float[Tensor, "window 1 2"]
    down: Float[Tensor, "window 1 2"]
    span: Float[Tensor, "window 1"]

    @classmethod
    def of(cls, xy: Float[Tensor, "window 478 2"]) -> "FaceAxes":
        """The axes of meshes in a picture."""
        right = xy[:, EYE_CORNERS[1]] - xy[:, EYE_CORNERS[0]]
        span = right.norm(dim=-1, keepdim=True).clamp_min(1.0)
        across = (right / span)[:, None]
        return cls(across, torch.stack([-across[..., 1], across[..., 0]], -1), span)

    def along(self, axis: Tensor, start: Tensor, size: int) -> Float[Tensor, "window 1 size size"]:
        """Coordinate of every pixel along an axis, from a point on, in spans of the eyes."""
        steps = torch.arange(size, device=axis.device) + 0.5
        x = (steps - start[..., 0]) * axis[..., 0]
        y = (steps - start[..., 1]) * axis[..., 1]
        return ((y[:, :, None] + x[:, None, :]) / self.span[:, :, None])[:, None]

    def extent(self, polygon: Float[Tensor, "window corner 2"]) -> Float[Tensor, "window 2"]:
        """Width and height of a polygon, px."""
        sides = polygon @ torch.cat([self.across, self.down], 1).mT
        return sides.amax(1) - sides.amin(1)


def carried_photo(
    g: WindowGeometry, points: tuple[int, ...], shifts: list[Tensor], size: int
) -> list[Float[Tensor, "window 3 size size"]]:
    """The photo as a rigid head carries it around some points (affine, least squares), shifted by each of `shifts`."""
    which = point_list(points, g.rest_xy.device)
    rest, photo = g.rest_xy[:, which], g.photo_xy[:, which]
    middle, target = rest.mean(1, keepdim=True), photo.mean(1, keepdim=True)
    a, b = rest - middle, photo - target
    turn = _solved(a.mT @ a, a.mT @ b)  # row vectors: photo = target + (p - middle) @ turn
    carried = []
    for shift in shifts:
        start = target - (middle + shift) @ turn
        carried.append(affine_photo(g.photo, torch.cat([turn.mT, start.mT], dim=2), size))
    return carried


def _solved(
    matrix: Float[Tensor, "window 2 2"], right: Float[Tensor, "window 2 2"]
) -> Float[Tensor, "window 2 2"]:
    """Solve for x in matrix @ x = right, where the matrix is a sum of squares."""
    if matrix.device.type == "cpu":
        return torch.linalg.solve(matrix, right)
    return solved_by_cofactors(matrix, right)


def solved_by_cofactors(
    matrix: Float[Tensor, "window 2 2"], right: Float[Tensor, "window 2 2"]
) -> Float[Tensor, "window 2 2"]:
    """The same for GPUs: a solver asks them whether the matrix can be inverted, and the host waits for the answer."""
    (a, b), (c, d) = (row.unbind(1) for row in matrix.unbind(1))
    cofactors = torch.stack([d, -b, -c, a], 1).unflatten(1, (2, 2))
    return cofactors @ right / (a * d - b * c).clamp_min(1e-6)[:, None, None]
