"""Window inputs: what the window painter corrects, and what it is told; all of it drawn from the photo and the mesh."""

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.rendering.face_windows import FaceWindow
from sdtalk.rendering.moved_photo import moved_photo, polygon_distance
from sdtalk.tracking.face_model import FaceModel

PLANES = 17
"""Base, where the mesh is, photo as its upper and its lower anchor moved, four distances, three coordinates."""

EYE_CORNERS = (33, 263)
"""Outer corners of the eyes: their distance is the unit of length of what the painter is told."""

DISTANCE_PX = 16.0
"""Distances are told up to here."""

BORDER_PX = 8
"""Towards the window's border the mask falls to 0."""

STILL_PX = 1.0
"""Lips or lids that have moved so far (root mean square) free 63 % of a correction; at rest the photo is the photo."""

LOWER_TEETH_GAP = (0.25, 0.45)
"""Only mouths that stand as far open in the photo, height over width, show lower teeth that could follow the jaw."""

SEEN_PX = (1.0, 0.5)
"""The photo's inside counts as seen up to the first distance outside of its opening, softened over the second."""


@dataclass(frozen=True)
class WindowGeometry:
    """Where the mesh lies in a photo and in frames, or in windows of them.

    Attributes:
        photo: The photo, or a cut of it, RGB in [0, 1].
        photo_xy: The photo's mesh, px of `photo`.
        rest_xy: The photo's mesh in the frame's pose, px of the frame (or window).
        moved_xy: The frame's mesh, px of the same.
        heights: Of the frame's mesh towards the camera.
    """

    photo: Float[Tensor, "window 3 height width"]
    photo_xy: Float[Tensor, "window 478 2"]
    rest_xy: Float[Tensor, "window 478 2"]
    moved_xy: Float[Tensor, "window 478 2"]
    heights: Float[Tensor, "window 478"]

    def mirrored(self, width: int) -> "WindowGeometry":
        """The same in the mirror, where a left eye is a right one; `width` of the frame (or window) in px."""
        mirror = FaceModel.bundled().mirror.to(self.photo.device)
        flip = self.photo_xy.new_tensor([-1.0, 1.0])

        def reflected(xy: Tensor, across: int) -> Tensor:
            return xy[:, mirror] * flip + xy.new_tensor([across, 0.0])

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
class WindowInputs:
    """What the painter works with.

    Attributes:
        planes: Its pictures.
        numbers: Shape of opening and outline in the photo, and how far they have moved.
        base: What it corrects: the moved photo, and inside of lips and lids the photo's own inside, moved rigidly.
        mesh: 1 where the mesh is.
        mask: How far the painted picture counts.
        freedom: How far it may differ from the base: 0 in the photo's own state.
    """

    planes: Float[Tensor, "window 17 size size"]
    numbers: Float[Tensor, "window number"]
    base: Float[Tensor, "window 3 size size"]
    mesh: Float[Tensor, "window 1 size size"]
    mask: Float[Tensor, "window 1 size size"]
    freedom: Float[Tensor, "window 1 1 1"]

    @property
    def distances(self) -> Float[Tensor, "window 2 size size"]:
        """Signed distances to opening and outline in units of 16 px, within [-1, 1], negative inside."""
        return self.planes[:, 10:12]

    def painted(self, correction: Float[Tensor, "window 3 size size"]) -> Float[Tensor, "window 3 size size"]:
        """The finished window."""
        return self.base + self.freedom * correction


def number_count(window: FaceWindow) -> int:
    """Length of `WindowInputs.numbers`."""
    return 4 * (len(window.opening) + len(window.outline))


@torch.no_grad()
def window_inputs(
    window: FaceWindow,
    geometry: WindowGeometry,
    behind: Float[Tensor, "window 3 size size"] | None = None,
) -> WindowInputs:
    """Draw everything the painter needs.

    Args:
        window: Which kind.
        geometry: Where the mesh lies.
        behind: What shows where there is no mesh; None: the photo, moved rigidly.
    """
    g, size = geometry, window.size
    face = FaceModel.bundled().to(g.photo.device)
    triangles = torch.cat([face.triangles, face.mouth_triangles])
    drawn, mesh = moved_photo(g.photo, g.photo_xy, g.moved_xy, g.heights, triangles, size)
    opening, outline = list(window.opening), list(window.outline)
    shifts = [(g.moved_xy - g.rest_xy)[:, list(p)].mean(1)[:, None] for p in (window.upper, window.lower)]
    upper, lower = _carried_photo(g, opening + outline, shifts, size)
    base = drawn + (1 - mesh) * (upper if behind is None else behind)
    polygons = [g.moved_xy[:, opening], g.moved_xy[:, outline], g.rest_xy[:, outline]]
    polygons += [g.rest_xy[:, opening] + shift for shift in shifts]
    inner, outer, outer_of_photo, seen_upper, seen_lower = polygon_distance(torch.cat(polygons), size).chunk(
        5
    )
    axes = _Axes.of(g.rest_xy)
    middle = g.rest_xy[:, opening].mean(1)[:, None] + (shifts[0] + shifts[1]) / 2
    below = torch.sigmoid(axes.along(axes.down, middle, size) * axes.span[:, :, None, None] / 2)
    low, high = LOWER_TEETH_GAP
    shows_lower = ((_aspect(g.rest_xy[:, opening], axes) - low) / (high - low)).clamp(0, 1)[
        :, None, None, None
    ]
    from_lower = below * shows_lower * _seen(seen_lower)
    shares = [(1 - from_lower) * _seen(seen_upper), from_lower]
    left = (1 - shares[0] - shares[1]).clamp_min(0)
    change = (g.moved_xy - g.rest_xy)[:, opening + outline].square().sum(-1).mean(1)
    freedom = (1 - torch.exp(-change / STILL_PX**2))[:, None, None, None]
    inside = shares[0] * upper + shares[1] * lower + left * _unseen(window, base, upper, freedom)
    base = torch.lerp(base, inside, torch.sigmoid(-inner / 0.7))
    distances = [(d / DISTANCE_PX).clamp(-1, 1) for d in (inner, outer, seen_upper, seen_lower)]
    anchors = [axes.along(axes.across, g.moved_xy[:, list(window.upper)].mean(1)[:, None], size)]
    anchors += [
        axes.along(axes.down, g.moved_xy[:, list(p)].mean(1)[:, None], size)
        for p in (window.upper, window.lower)
    ]
    planes = torch.cat([base, mesh, upper, lower, *distances, *[4 * a for a in anchors]], 1)
    mask = _soft_mask(window, torch.minimum(outer, outer_of_photo))
    return WindowInputs(planes, _numbers(g, opening + outline, axes), base, mesh, mask, freedom)


@dataclass(frozen=True)
class _Axes:
    """Directions of a face in the picture, from the photo's eyes in the frame's pose."""

    across: Float[Tensor, "window 1 2"]
    down: Float[Tensor, "window 1 2"]
    span: Float[Tensor, "window 1"]

    @classmethod
    def of(cls, xy: Tensor) -> "_Axes":
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


def _carried_photo(
    g: WindowGeometry, points: list[int], shifts: list[Tensor], size: int
) -> list[Float[Tensor, "window 3 size size"]]:
    """The photo as a rigid head carries it around some points (affine, least squares), shifted by each of `shifts`."""
    rest, photo = g.rest_xy[:, points], g.photo_xy[:, points]
    middle, target = rest.mean(1, keepdim=True), photo.mean(1, keepdim=True)
    a, b = rest - middle, photo - target
    turn = torch.linalg.solve(a.mT @ a, a.mT @ b)  # row vectors: photo = target + (p - middle) @ turn
    steps = torch.arange(size, device=rest.device) + 0.5
    across = steps[None, None, :, None] * turn[:, None, :1]
    down = steps[None, :, None, None] * turn[:, None, 1:]
    carried = []
    for shift in shifts:
        start = target - (middle + shift) @ turn
        xy = across + down + start[:, None]
        grid = xy / xy.new_tensor([g.photo.shape[3], g.photo.shape[2]]) * 2 - 1
        carried.append(F.grid_sample(g.photo, grid, align_corners=False, padding_mode="border"))
    return carried


def _aspect(polygon: Float[Tensor, "window corner 2"], axes: _Axes) -> Float[Tensor, " window"]:
    """Height over width of an opening."""
    sides = polygon @ torch.cat([axes.across, axes.down], 1).mT
    width, height = (sides.amax(1) - sides.amin(1)).unbind(-1)
    return height / width.clamp_min(1.0)


def _seen(distance: Tensor) -> Tensor:
    """How far the photo shows the inside at a distance from its opening."""
    return torch.sigmoid((SEEN_PX[0] - distance) / SEEN_PX[1])


def _unseen(window: FaceWindow, base: Tensor, around: Tensor, freedom: Tensor) -> Tensor:
    """The inside where the photo does not show it."""
    if window.unseen is None:
        return base
    tone = around.mean((2, 3), keepdim=True) * base.new_tensor(window.unseen)[:, None, None]
    return torch.lerp(base, tone, freedom)


def _soft_mask(window: FaceWindow, outer: Tensor) -> Tensor:
    share = ((window.none_px - outer) / (window.none_px - window.full_px)).clamp(0, 1)
    edge = (torch.arange(window.size, device=outer.device) + 0.5) / BORDER_PX
    edge = torch.minimum(edge, edge.flip(0)).clamp(max=1)
    return share * share * (3 - 2 * share) * edge[:, None] * edge


def _numbers(g: WindowGeometry, points: list[int], axes: _Axes) -> Float[Tensor, "window number"]:
    rest = g.rest_xy[:, points]
    turn = torch.cat([axes.across, axes.down], 1).mT / axes.span[..., None]
    shape = (rest - rest.mean(1, keepdim=True)) @ turn
    moved = (g.moved_xy - g.rest_xy)[:, points] @ turn
    return torch.cat([4 * shape.flatten(1), 10 * moved.flatten(1)], 1)
