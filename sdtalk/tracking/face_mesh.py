"""Face mesh: the attention network that finds 478 landmarks in a face crop (reference/tracker.md 2, 3.2, 5).

A backbone finds 468 points. Lips and eyes are then cut out of its feature map, straightened, and looked at
again by heads of their own; these also give five points an iris. "Left" is the left in the picture, the
subject's right.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.tracking.layers import SameConv, residual_blocks

INPUT_PX = 192
MESH_SURFACE = 468
IRIS_POINTS = 5
MAP_PX = 48
"""Side of the feature map that the regions are cut from."""

REGION_PX = 16
"""Side of a region cut from the feature map."""

REGION_MARGIN = 1.5

# fmt: off
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291,  # lower outer
    185, 40, 39, 37, 0, 267, 269, 270, 409,  # upper outer
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308,  # lower inner
    191, 80, 81, 82, 13, 312, 311, 310, 415,  # upper inner
    76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306,  # lower, next to the outer line
    184, 74, 73, 72, 11, 302, 303, 304, 408,  # upper, next to the outer line
    62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292,  # lower, next to the inner line
    183, 42, 41, 38, 12, 268, 271, 272, 407,  # upper, next to the inner line
)
LEFT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133,  # lower contour
    246, 161, 160, 159, 158, 157, 173,  # upper contour
    130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30, 29, 27, 28, 56, 190,  # first ring round it
    226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189,  # second ring
    35, 124, 46, 53, 52, 65,  # eyebrow, inner line
    143, 111, 117, 118, 119, 120, 121, 128, 245,  # below the eye
    156, 70, 63, 105, 66, 107, 55, 193,  # eyebrow, outer line
)
RIGHT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362,
    466, 388, 387, 386, 385, 384, 398,
    359, 255, 339, 254, 253, 252, 256, 341, 463, 467, 260, 259, 257, 258, 286, 414,
    446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413,
    265, 353, 276, 283, 282, 295,
    372, 340, 346, 347, 348, 349, 350, 357, 465,
    383, 300, 293, 334, 296, 336, 285, 417,
)
# fmt: on
EYE_CONTOUR = 16
"""The first points of an eye's list: its contour, whose mean depth the iris gets."""

LIPS_LEVEL, LEFT_EYE_LEVEL, RIGHT_EYE_LEVEL = (61, 291), (33, 133), (362, 263)
"""The two points of each region whose connecting line is level in its crop."""


class RegionHead(nn.Module):
    """The second half of a region's network: a 4x4 map to positions in the region."""

    def __init__(self, points: int) -> None:
        super().__init__()
        self.blocks = residual_blocks(128, [128, 128, (128, 2), 128, 128], nn.PReLU)
        self.narrow = nn.Sequential(SameConv(128, 32), nn.PReLU(32))
        self.last = residual_blocks(32, [32], nn.PReLU)
        self.positions = nn.Conv2d(32, 2 * points, 2)

    def forward(self, x: Float[Tensor, "batch 128 4 4"]) -> Float[Tensor, "batch point 2"]:
        """Returns positions in px of a region of 64 px."""
        return self.positions(self.last(self.narrow(self.blocks(x)))).reshape(len(x), -1, 2)


class Region(nn.Module):
    """A part of the face, looked at closely."""

    def __init__(self, indices: Sequence[int], level: tuple[int, int], *, iris: bool) -> None:
        super().__init__()
        self.indices, self.level = list(indices), level
        self.trunk = residual_blocks(32, [32, 32, (64, 2), 64, 64, (128, 2)], nn.PReLU)
        self.head = RegionHead(len(self.indices))
        self.iris = RegionHead(IRIS_POINTS) if iris else None

    def forward(
        self, features: Float[Tensor, "batch 32 48 48"], mesh: Float[Tensor, "batch 468 3"]
    ) -> Float[Tensor, "batch point 2"]:
        """Returns the region's points, then the iris where there is one, in px of the face crop."""
        matrix = region_to_map(mesh[:, self.indices, :2], mesh[:, self.level, :2])
        trunk = self.trunk(cut_region(features, matrix))
        found = [self.head(trunk)] + ([self.iris(trunk)] if self.iris is not None else [])
        # A head's unit is a quarter of a region pixel, the crop's a quarter of a map pixel: only the shift
        # scales.
        shift = matrix[:, None, :, 2] * (INPUT_PX / MAP_PX)
        return torch.cat(found, dim=1) @ matrix[:, :, :2].transpose(1, 2) + shift


class FaceMesh(nn.Module):
    """The network: a 192 px crop of a face in [0, 1] to landmarks and a face flag."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, 16, 3, 2), nn.PReLU(16))
        self.to_map = residual_blocks(16, [16, 16, (32, 2)], nn.PReLU)
        widths: list[int | tuple[int, int]] = [32, 32]
        for width in (64, 128, 128, 128):
            widths += [(width, 2), width, width]
        self.to_mesh = residual_blocks(32, widths, nn.PReLU)
        self.narrow = nn.Sequential(SameConv(128, 32), nn.PReLU(32))
        self.last = residual_blocks(32, [32], nn.PReLU)
        self.mesh, self.flag = nn.Conv2d(32, 3 * MESH_SURFACE, 3), nn.Conv2d(32, 1, 3)
        self.lips = Region(LIPS, LIPS_LEVEL, iris=False)
        self.left_eye = Region(LEFT_EYE, LEFT_EYE_LEVEL, iris=True)
        self.right_eye = Region(RIGHT_EYE, RIGHT_EYE_LEVEL, iris=True)

    def forward(
        self, crops: Float[Tensor, "batch 3 192 192"]
    ) -> tuple[Float[Tensor, "batch 478 3"], Float[Tensor, " batch"]]:
        """Returns x, y, z in px of the crop (z: smaller is nearer) and the logit of "this is a face"."""
        features = self.to_map(self.stem(crops))
        code = self.last(self.narrow(self.to_mesh(features)))
        mesh = self.mesh(code).reshape(len(crops), MESH_SURFACE, 3)
        lips, left, right = (r(features, mesh) for r in (self.lips, self.left_eye, self.right_eye))
        return _refined(mesh, lips, left, right), self.flag(code).reshape(-1)


def _refined(
    mesh: Float[Tensor, "batch 468 3"],
    lips: Float[Tensor, "batch 80 2"],
    left: Float[Tensor, "batch 76 2"],
    right: Float[Tensor, "batch 76 2"],
) -> Float[Tensor, "batch 478 3"]:
    """Replace x, y (never z) of the regions' points and append the irises at the mean depth of their eye."""
    points = F.pad(mesh, (0, 0, 0, 2 * IRIS_POINTS))
    points[:, LIPS, :2] = lips
    iris = MESH_SURFACE
    for indices, found in ((LEFT_EYE, left), (RIGHT_EYE, right)):
        own = [*indices, *range(iris, iris + IRIS_POINTS)]
        points[:, own, :2] = found
        points[:, iris : iris + IRIS_POINTS, 2] = mesh[:, indices[:EYE_CONTOUR], 2].mean(dim=1, keepdim=True)
        iris += IRIS_POINTS
    return points


def region_to_map(
    points: Float[Tensor, "batch point 2"], level: Float[Tensor, "batch 2 2"]
) -> Float[Tensor, "batch 2 3"]:
    """Where a region's crop lies in the feature map.

    The crop is the box of the points along the axis through the two `level` points, 1.5 times as large; width
    and height are independent.

    Args:
        points: The region's mesh points, px of the face crop.
        level: The two points on the axis, px of the face crop.

    Returns:
        Affine matrices from px of the region (pixel edges, 0 to 16) to px of the map (pixel edges, 0 to 48).
    """
    points, level = points * (MAP_PX / INPUT_PX), level * (MAP_PX / INPUT_PX)
    across = level[:, 1] - level[:, 0]
    angle = torch.atan2(across[:, 1], across[:, 0])
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([cos, -sin, sin, cos], dim=-1).reshape(-1, 2, 2)  # region axes -> map axes
    straight = points @ turn  # = turn^T applied to each point
    low, high = straight.amin(dim=1), straight.amax(dim=1)
    linear = turn * (REGION_MARGIN * (high - low) / REGION_PX)[:, None, :]
    centre = turn @ ((low + high) / 2)[..., None]
    half = linear.new_full((2, 1), REGION_PX / 2)
    return torch.cat([linear, centre - linear @ half], dim=-1)


def cut_region(
    features: Float[Tensor, "batch channel 48 48"], matrix: Float[Tensor, "batch 2 3"]
) -> Float[Tensor, "batch channel 16 16"]:
    """Sample the feature map bilinearly; a sample outside of the outer pixel centres is 0 as a whole."""
    line = torch.arange(REGION_PX, device=features.device) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
    positions = (at @ matrix.transpose(1, 2) - 0.5).reshape(-1, REGION_PX, REGION_PX, 2)
    inside = ((positions >= 0) & (positions <= MAP_PX - 1)).all(dim=-1)
    grid = positions * (2 / (MAP_PX - 1)) - 1
    cut = F.grid_sample(features, grid, padding_mode="border", align_corners=True)
    return cut * inside[:, None]
