"""Window inputs: what the window painter corrects, and what it is told; all of it drawn from the photo and the mesh."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.colourfulness import colourfulness
from sdtalk.rendering.device_constants import point_list
from sdtalk.rendering.face_windows import FaceWindow
from sdtalk.rendering.moved_photo import moved_photo, polygon_distance
from sdtalk.rendering.unseen_mouth import unseen_mouth
from sdtalk.rendering.window_geometry import FaceAxes, WindowGeometry, carried_photo
from sdtalk.smoothstep import smoothstep
from sdtalk.tracking.face_model import FaceModel

PLANES = 17
"""Base, where the mesh is, photo as its upper and its lower anchor moved, four distances, three coordinates."""

TEETH_PLANES = 3
"""Where there are teeth: those drawn of both jaws, and where the photo is silent."""

DISTANCE_PX = 16.0
"""Distances are told up to here."""

BORDER_PX = 8
"""Towards the window's border the mask falls to 0."""

STILL_PX = 1.0
"""Lips or lids that have moved so far (root mean square) free 63 % of a correction; at rest the photo is the photo."""

DETAIL_PX = 2.5
"""So far around an opening the painter may change fine detail; further out, light and shade only: left free, it
learns to blur what the mesh does not place exactly. The same goes for drawn teeth."""

SHADE_PX = 8
"""What is finer than about this counts as detail; divides the sides of all windows."""

LOWER_TEETH_GAP = (0.25, 0.45)
"""Only mouths that stand as far open in the photo, height over width, show lower teeth that could follow the jaw."""

EDGE_PX = 0.7
"""Softness of the edges of openings."""

SILENT_PX = 1.5
"""The photo is silent so far inside of the opening; nearer to its edge lips are painted."""

FADE = 0.15
"""The painter may show so much more or less of drawn teeth. Free to hide them, it paints a flat light band instead."""

LIGHT = 1.5
"""Largest logarithm of light."""

SHUT_PX = 2.0
"""Openings less than so high in the photo show a line and nothing inside; such twice as high show all they show."""

SEEN_PX = (1.0, 0.5)
"""The photo's inside counts as seen up to the first distance outside of its opening, softened over the second."""


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
        colourful: How far the photo has colours; where it has none, a correction has none either.
        detail: How far a correction counts with its fine detail, not only with its light and shade.
        silent: How far a pixel shows the inside of a mouth that the photo does not show.
        teeth: What drawn upper and lower teeth add to the base there; None for windows without teeth.
    """

    planes: Float[Tensor, "window plane size size"]
    numbers: Float[Tensor, "window number"]
    base: Float[Tensor, "window 3 size size"]
    mesh: Float[Tensor, "window 1 size size"]
    mask: Float[Tensor, "window 1 size size"]
    freedom: Float[Tensor, "window 1 1 1"]
    colourful: Float[Tensor, "window 1 1 1"]
    detail: Float[Tensor, "window 1 size size"]
    silent: Float[Tensor, "window 1 size size"]
    teeth: Float[Tensor, "window 2 3 size size"] | None

    @property
    def distances(self) -> Float[Tensor, "window 2 size size"]:
        """Signed distances to opening and outline in units of 16 px, within [-1, 1], negative inside."""
        return self.planes[:, 10:12]

    def painted(
        self, correction: Float[Tensor, "window channel size size"]
    ) -> Float[Tensor, "window 3 size size"]:
        """The finished window.

        Args:
            correction: RGB to add, or where the photo is silent the logarithm of the light that falls there; for
                mouths also how much more or less of the upper and of the lower teeth to show.
        """
        coarse = F.avg_pool2d(correction, SHADE_PX)
        shade = F.interpolate(coarse, scale_factor=float(SHADE_PX), mode="bilinear", align_corners=False)
        light, detail = (
            x.mean(1, keepdim=True).lerp(x, self.colourful) for x in (shade[:, :3], correction[:, :3])
        )
        added = torch.lerp(light, detail, self.detail)
        if self.teeth is None:
            return self.base + self.freedom * added
        shown = (FADE * torch.tanh(shade[:, 3:, None]) * self.teeth).sum(1)
        mouth = self.base + self.freedom * shown
        lit = mouth * (light.clamp(-LIGHT, LIGHT).exp() - 1)
        return mouth + self.freedom * torch.lerp(added, lit, self.silent)


def number_count(window: FaceWindow) -> int:
    """Length of `WindowInputs.numbers`."""
    return 4 * (len(window.opening) + len(window.outline))


def plane_count(window: FaceWindow) -> int:
    """Channels of `WindowInputs.planes`."""
    return PLANES + (TEETH_PLANES if window.teeth else 0)


def correction_count(window: FaceWindow) -> int:
    """Channels of what `WindowInputs.painted` takes."""
    return 5 if window.teeth else 3


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
    device, all_points = g.photo.device, window.opening + window.outline
    drawn, mesh = moved_photo(g.photo, g.photo_xy, g.moved_xy, g.heights, _surface(device), size)
    opening, outline = point_list(window.opening, device), point_list(window.outline, device)
    anchors = dict.fromkeys((window.upper, window.lower))  # one, where both are the same
    shifts = [(g.moved_xy - g.rest_xy)[:, point_list(p, device)].mean(1)[:, None] for p in anchors]
    carried = carried_photo(g, all_points, shifts, size)
    upper, lower = carried[0], carried[-1]
    base = drawn + (1 - mesh) * (upper if behind is None else behind)
    polygons = [g.moved_xy[:, opening], g.moved_xy[:, outline], g.rest_xy[:, outline]]
    polygons += [g.rest_xy[:, opening] + shift for shift in shifts]
    inner, outer, outer_of_photo, *seen = polygon_distance(torch.cat(polygons), size).chunk(len(polygons))
    seen_upper, seen_lower = seen[0], seen[-1]
    axes = FaceAxes.of(g.rest_xy)
    aspect, from_upper, from_lower = _shown_inside(
        window, g, axes, (shifts[0], shifts[-1]), seen_upper, seen_lower
    )
    left = (1 - from_upper - from_lower).clamp_min(0)
    change = (g.moved_xy - g.rest_xy)[:, point_list(all_points, device)].square().sum(-1).mean(1)
    freedom = (1 - torch.exp(-change / STILL_PX**2))[:, None, None, None]
    colourful = g.of_windows(colourfulness(g.photo))[:, None, None, None]
    unseen, teeth, silent, told = base, None, torch.zeros_like(inner), list[Tensor]()
    if window.teeth:
        mouth = unseen_mouth(
            g.of_windows(g.photo.mean((2, 3), keepdim=True)),
            colourful,
            g.rest_xy,
            g.moved_xy,
            g.heights,
            -inner / axes.span[..., None, None],
            aspect,
        )
        share = freedom * left * torch.sigmoid(-inner / EDGE_PX)
        silent = left * torch.sigmoid((-inner - SILENT_PX) / EDGE_PX)
        unseen, teeth = torch.lerp(base, mouth.cavity, freedom), share[:, None] * mouth.teeth
        told = [share * mouth.drawn, silent]
    inside = from_upper * upper + from_lower * lower + left * unseen
    base = torch.lerp(base, inside, torch.sigmoid(-inner / EDGE_PX))
    if teeth is not None:
        base = base + teeth.sum(1)
    distances = tuple((d / DISTANCE_PX).clamp(-1, 1) for d in (inner, outer, seen_upper, seen_lower))
    starts = [g.moved_xy[:, point_list(p, device)].mean(1)[:, None] for p in (window.upper, window.lower)]
    coordinates = [axes.along(axes.across, starts[0], size)]
    coordinates += [axes.along(axes.down, start, size) for start in starts]
    planes = torch.cat([base, mesh, upper, lower, *distances, *[4 * c for c in coordinates], *told], 1)
    mask = _soft_mask(window, torch.minimum(outer, outer_of_photo))
    detail = torch.sigmoid(DETAIL_PX - inner) * (1 - silent)
    numbers = _numbers(g, point_list(all_points, device), axes)
    return WindowInputs(planes, numbers, base, mesh, mask, freedom, colourful, detail, silent, teeth)


@cache
def _surface(device: torch.device) -> Int[Tensor, "triangle 3"]:
    """Triangles of the whole face, its mouth closed by some."""
    face = FaceModel.on(device)
    with torch.inference_mode(False):  # whoever needs gradients may use them, too
        return torch.cat([face.triangles, face.mouth_triangles])


def _shown_inside(
    window: FaceWindow,
    g: WindowGeometry,
    axes: FaceAxes,
    shifts: tuple[Tensor, Tensor],
    seen_upper: Float[Tensor, "window 1 size size"],
    seen_lower: Float[Tensor, "window 1 size size"],
) -> tuple[Float[Tensor, " window"], Tensor, Tensor]:
    """Height over width of the photo's opening, and how far its inside shows as upper and as lower anchor moved.

    The distances are those to the photo's opening, moved with either.
    """
    opening = g.rest_xy[:, point_list(window.opening, g.rest_xy.device)]
    width, height = axes.extent(opening).unbind(-1)
    aspect = height / width.clamp_min(1.0)
    low, high = LOWER_TEETH_GAP
    shows_lower = ((aspect - low) / (high - low)).clamp(0, 1)[:, None, None, None]
    shows = ((height - SHUT_PX) / SHUT_PX).clamp(0, 1)[:, None, None, None]
    middle = opening.mean(1)[:, None] + (shifts[0] + shifts[1]) / 2
    below = torch.sigmoid(axes.along(axes.down, middle, window.size) * axes.span[:, :, None, None] / 2)
    from_lower = shows * below * shows_lower * _seen(seen_lower)
    return aspect, (1 - from_lower) * shows * _seen(seen_upper), from_lower


def _seen(distance: Tensor) -> Tensor:
    """How far the photo shows the inside at a distance from its opening."""
    return torch.sigmoid((SEEN_PX[0] - distance) / SEEN_PX[1])


def _soft_mask(window: FaceWindow, outer: Tensor) -> Tensor:
    share = smoothstep((window.none_px - outer) / (window.none_px - window.full_px))
    edge = (torch.arange(window.size, device=outer.device) + 0.5) / BORDER_PX
    edge = torch.minimum(edge, edge.flip(0)).clamp(max=1)
    return share * edge[:, None] * edge


def _numbers(
    g: WindowGeometry, points: Int[Tensor, " point"], axes: FaceAxes
) -> Float[Tensor, "window number"]:
    rest = g.rest_xy[:, points]
    turn = torch.cat([axes.across, axes.down], 1).mT / axes.span[..., None]
    shape = (rest - rest.mean(1, keepdim=True)) @ turn
    moved = (g.moved_xy - g.rest_xy)[:, points] @ turn
    return torch.cat([4 * shape.flatten(1), 10 * moved.flatten(1)], 1)
