"""Dental arches: teeth of textbook proportions, drawn inside of an open mouth where the photo shows none.

Upper teeth keep their place on the skull, lower teeth follow the jaw. The painter only lights them; without
them it paints the mean of all teeth, a soft light band. Widths and heights of
crowns are the usual means of dental anatomy; where the edges lie was found by correlation with people talking.
"""

from dataclasses import dataclass, fields
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.tracking.completion import MM, SKULL
from sdtalk.tracking.face_model import FaceModel

UPPER_WIDTHS_MM = (8.5, 6.5, 7.5, 7.0, 7.0, 10.0)
UPPER_HEIGHTS_MM = (10.5, 9.0, 10.0, 8.5, 8.5, 7.5)
UPPER_EDGES_MM = (0.0, 0.7, 0.0, 0.6, 0.9, 1.2)
"""How far each edge ends before the central one's: the line of a smile."""

LOWER_WIDTHS_MM = (5.0, 5.5, 7.0, 7.0, 7.0, 11.0)
LOWER_HEIGHTS_MM = (9.0, 9.5, 11.0, 8.5, 8.0, 7.5)
LOWER_EDGES_MM = (0.0, 0.0, -0.3, 0.5, 0.8, 1.0)

HALF_LENGTH_MM = 42.0
"""Of an arch, along its front."""

GUM_MM = 4.0
HEIGHT_MM = 16.0
"""Of the drawing of an arch."""

BELOW_MM = 0.6
"""Of it, below the edges of the front teeth: lower front teeth may end a little higher."""

PX_PER_MM = 2
SAMPLES = 6
"""Per px of the drawing and direction."""

UPPER_RADII_MM = (28.0, 36.0)
LOWER_RADII_MM = (25.0, 32.0)
"""Half axes of the ellipses that arches follow seen from above: across, towards the throat."""

UPPER_EDGE_MM = (-25.0, -14.0)
"""Where the edges of the upper front teeth lie: above the base of the nose, and before it."""

LOWER_EDGE_MM = (-22.5, -16.5)
"""The same for the lower front teeth while the mouth is closed: the upper ones cover them."""

TONGUE_EDGE_MM = (-27.0, -30.0)
"""The same for the lower end of what the tongue shows, behind the lower teeth."""

TONGUE_RADII_MM = (26.0, 20.0)
TONGUE_MM = 30.0
"""How wide it is."""

STRIP_COLUMNS = 29


@dataclass(frozen=True)
class DentalArches:
    """Both arches, and a tongue behind the lower one, as a textured mesh that hangs on the face mesh.

    Attributes:
        picture: What is drawn: brightness of upper teeth, of lower teeth, how far there is gum or tongue.
        picture_xy: Where the points lie in it, px.
        weights: The points as combinations of the face mesh of a closed mouth: affine with the whole face, and
            shifted to the base of its nose.
        triangles: Of the points.
    """

    picture: Float[Tensor, "3 height width"]
    picture_xy: Float[Tensor, "point 2"]
    weights: Float[Tensor, "point 478"]
    triangles: Int[Tensor, "triangle 3"]

    @classmethod
    @cache
    def average(cls) -> "DentalArches":
        """Of average size, on the CPU."""
        upper = _drawn(UPPER_WIDTHS_MM, UPPER_HEIGHTS_MM, UPPER_EDGES_MM)
        lower = _drawn(LOWER_WIDTHS_MM, LOWER_HEIGHTS_MM, LOWER_EDGES_MM).flip(1)
        none, rows, columns = torch.zeros_like(upper[:1]), float(upper.shape[1]), float(upper.shape[2])
        picture = torch.cat(
            [
                torch.stack([upper[0], none[0], upper[1]]),
                torch.stack([none[0], lower[0], lower[1]]),
                torch.stack([none[0], none[0], _tongue()]),
            ],
            1,
        )
        across = torch.linspace(0, columns, STRIP_COLUMNS)
        ends = (rows, 0, rows, 2 * rows, 3 * rows, 2 * rows)
        lines = [torch.stack([across, torch.full_like(across, y)], -1) for y in ends]
        places = [_places(UPPER_RADII_MM, UPPER_EDGE_MM, 1.0), _places(LOWER_RADII_MM, LOWER_EDGE_MM, -1.0)]
        places.append(_places(TONGUE_RADII_MM, TONGUE_EDGE_MM, 1.0))
        triangles = torch.cat([_strip(2 * STRIP_COLUMNS * part) for part in range(3)])
        return cls(picture, torch.cat(lines), _hung(torch.cat(places)), triangles)

    @classmethod
    @cache
    def on(cls, device: torch.device) -> "DentalArches":
        """Of average size, moved to a device once; a GPU makes the host wait for every copy."""
        with torch.inference_mode(False):  # whoever needs gradients may use them, too
            average = cls.average()
            return cls(**{f.name: getattr(average, f.name).to(device) for f in fields(cls)})

    def placed(
        self,
        rest_xy: Float[Tensor, "window 478 2"],
        skull: Float[Tensor, "window 1 2"],
        jaw: Float[Tensor, "window 1 2"],
    ) -> Float[Tensor, "window point 2"]:
        """Where the points lie in a picture.

        Args:
            rest_xy: The photo's mesh in the frame's pose.
            skull: How far the upper teeth have moved from there.
            jaw: How far the lower ones have moved from where they are while the mouth is closed.
        """
        upper, lower, tongue = (self.weights @ rest_xy).chunk(3, 1)
        return torch.cat([upper + skull, lower + jaw, tongue + jaw], 1)


def _strip(first: int) -> Int[Tensor, "triangle 3"]:
    """Triangles between two lines of points."""
    near = torch.arange(first, first + STRIP_COLUMNS - 1)
    far = near + STRIP_COLUMNS
    return torch.cat([torch.stack([near, near + 1, far], 1), torch.stack([near + 1, far + 1, far], 1)])


def _places(
    radii: tuple[float, float], edge: tuple[float, float], towards_gum: float
) -> Float[Tensor, "point 3"]:
    """Head-space points of an arch on the average face: along its edge, then along its gum."""
    across, deep = radii
    angles = torch.linspace(0, torch.pi / 2, 400)
    x, z = across * angles.sin(), deep * (angles.cos() - 1)
    length = torch.cat([x.new_zeros(1), (x.diff().square() + z.diff().square()).sqrt().cumsum(0)])
    wanted = torch.linspace(-1, 1, STRIP_COLUMNS) * HALF_LENGTH_MM
    at = torch.searchsorted(length, wanted.abs().clamp(max=float(length[-1]))).clamp(max=399)
    nose = FaceModel.bundled().mean_face[SKULL].mean(0)
    below = edge[0] - towards_gum * BELOW_MM
    points = torch.stack([x[at] * wanted.sign(), torch.full_like(wanted, below), z[at] + edge[1]], -1)
    gum = points + points.new_tensor([0.0, towards_gum * HEIGHT_MM, 0.0])
    return nose + MM * torch.cat([points, gum])


def _hung(points: Float[Tensor, "point 3"]) -> Float[Tensor, "point 478"]:
    """Weights of the face mesh that move points as an affine map of the face would, fixed to the base of the nose."""
    face = FaceModel.bundled()
    one = torch.ones(len(face.mean_face), 1)
    known = torch.cat([face.mean_face, one], 1).double()
    share = face.pose_weights.double()[:, None].sqrt()
    fit = torch.linalg.pinv(known * share) * share.T  # [4, 478]
    wanted = torch.cat([points, torch.ones(len(points), 1)], 1).double()
    at_nose = torch.zeros(1, len(known), dtype=torch.float64)
    at_nose[:, SKULL] = 1 / len(SKULL)
    nose = torch.cat([face.mean_face[SKULL].mean(0), torch.ones(1)]).double()
    return ((wanted - nose) @ fit + at_nose).float()


def _drawn(
    widths: tuple[float, ...], heights: tuple[float, ...], edges: tuple[float, ...]
) -> Float[Tensor, "2 height width"]:
    """An arch unrolled, gum above, edges below: brightness of teeth, gum."""
    fine = PX_PER_MM * SAMPLES
    along = (torch.arange(round(2 * HALF_LENGTH_MM * fine)) + 0.5) / fine - HALF_LENGTH_MM
    up = HEIGHT_MM - BELOW_MM - (torch.arange(round(HEIGHT_MM * fine)) + 0.5)[:, None] / fine
    ends = torch.tensor(widths).cumsum(0)
    tooth = torch.searchsorted(ends, along.abs()).clamp(max=len(widths) - 1)
    width, height, edge = (torch.tensor(x)[tooth] for x in (widths, heights, edges))
    # 0 in the middle of a tooth, 1 at its neighbours
    aside = ((along.abs() - ends[tooth]) / width * 2 + 1).abs()
    bottom = edge + 1.3 * aside**6 + 0.3 * aside.square()  # round corners
    neck = edge + height - 3.2 * aside**2.5  # gum reaches down between teeth
    share = (up - bottom) / height
    line = 0.05 + 0.15 * (share - 0.35).clamp(min=0)  # they touch near their edges
    apart = 0.5 + 0.5 * _step((1 - aside) * width / 2 - line, 0.35)
    present = _step(up - bottom, 0.35) * _step(neck - up, 0.5) * apart
    gum = _step(up - neck, 0.5) * _step(max(heights) + GUM_MM - up, 3.0)
    share = share.clamp(0, 1)
    bright = (1 - 0.35 * aside**4) * (0.86 + 0.2 * share - 0.22 * share.square())
    return F.avg_pool2d(torch.stack([bright * present, gum])[None], SAMPLES)[0]


def _tongue() -> Float[Tensor, "height width"]:
    """How far a tongue is seen: round, its ridge in the light."""
    fine = PX_PER_MM * SAMPLES
    along = (torch.arange(round(2 * HALF_LENGTH_MM * fine)) + 0.5) / fine - HALF_LENGTH_MM
    up = HEIGHT_MM - (torch.arange(round(HEIGHT_MM * fine)) + 0.5)[:, None] / fine
    across = (2 * along / TONGUE_MM).square()
    top = HEIGHT_MM - 3.0 - 5.0 * across
    return F.avg_pool2d(((_step(top - up, 6.0)) * _step(1 - across, 0.8))[None, None], SAMPLES)[0, 0]


def _step(distance_mm: Tensor, softness_mm: float) -> Tensor:
    return torch.sigmoid(4 * distance_mm / softness_mm)
