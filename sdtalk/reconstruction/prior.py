"""Plane prior of mini: depth, canonical positions and head weights from the tracked mesh.

The face mesh is drawn into the lifting plane; beyond the face the depth is that of an average head. Lifting the
photo's own pixels to this depth already gives a convincing head (measured, see the design notes), so the network
learns residuals only.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.reconstruction.activations import FREE_OFFSET
from sdtalk.reconstruction.mesh_raster import distance_to, draw_mesh, fill_outwards
from sdtalk.smoothstep import smoothstep
from sdtalk.tracking.face_model import LOWER_LIDS, UPPER_LIDS, FaceModel

SKULL_CENTRE = (0.0, 0.16, -0.18)
SKULL_RADII = (0.45, 0.66, 0.52)
"""An ellipsoid for hair, ears and the back of the head: 18 x 26 x 21 cm, in head-space units."""

BLEND_REACH = 0.35
"""Distance from the face over which the depth goes from the mesh's to the ellipsoid's, head-space units."""

MOTION_REACH = 0.16
"""Distance from the face over which facial motion fades out, head-space units (3 cm: the skin under the chin)."""

MOUTH_DEPTH = 0.02
EYE_DEPTH = 0.02
"""How far what shows between the lips and between the lids lies behind them, head-space units."""

MIN_THICKNESS = 0.1
"""The hidden layer lies at least this far behind the visible one, head-space units."""

NAPE_TOP, NAPE_END = 0.2, -0.15
"""Heights between which the back of the head gives way to the neck, head-space units (eyes are at 0.165)."""

CHIN, FOREHEAD = 152, 10
"""Mesh points that span the height of a face."""

NECK_FADE = 0.4
"""Below the chin the head's motion fades out over this share of the height of the face (design, section 2)."""


@dataclass(frozen=True)
class PlanePrior:
    """Priors for every cell of the lifting plane.

    Attributes:
        offset: Height of the visible surface over the plane along the ray to the camera, head-space units.
        back_offset: The same for the hidden side of the head.
        canonical: Position on the canonical face.
        support: How far a cell takes part in facial motion: 1 on the skin, 0 between lips and lids and far away.
        surround: How far a cell lies around the face: 0 on it, eyes and mouth included, 1 farther away.
        head_weight: 1 moves with the head, 0 stays with the shoulders.
        brows: Displacement per unit of the brows' rise, as far as a cell takes part in facial motion.
    """

    offset: Float[Tensor, "1 size size"]
    back_offset: Float[Tensor, "1 size size"]
    canonical: Float[Tensor, "3 size size"]
    support: Float[Tensor, "1 size size"]
    surround: Float[Tensor, "1 size size"]
    head_weight: Float[Tensor, "1 size size"]
    brows: Float[Tensor, "3 size size"]

    def flat(self) -> "PlanePrior":
        """The same, knowing nothing of depth: the layers are planes before and behind the lifting plane."""
        front = torch.full_like(self.offset, FREE_OFFSET)
        return replace(self, offset=front, back_offset=-front)


@torch.no_grad()
def plane_prior(camera: Camera, mesh: Float[Tensor, "1 478 3"], face: FaceModel, size: int) -> PlanePrior:
    """Compute the priors of one person.

    Args:
        camera: The source camera.
        mesh: The tracked mesh of the source picture, head space.
        face: The canonical face and its triangles.
        size: Cells of the plane on a side.
    """
    plane = camera.lifting_plane(size)[0]
    rays = lifting_rays(camera, plane[None])[0]
    cells = camera.project(mesh)[0] * (size / camera.width)
    heights = (mesh @ camera.plane_normal[..., None])[0, :, 0]
    values = torch.cat([heights[:, None], face.canonical_face, face.brow_mode], dim=1)
    triangles = torch.cat([face.triangles, face.mouth_triangles])
    drawn = draw_mesh(cells, heights, values, triangles, size)
    on_face = drawn.triangle >= 0
    mouth = drawn.triangle >= len(face.triangles)
    eyes = on_face & _between_lids(triangles)[drawn.triangle.clamp_min(0)]
    cell_units = (plane[0] - plane[1]).norm()
    distance = distance_to(on_face) * cell_units

    skull, middle = (h.reshape(1, size, size) for h in _skull_heights(plane, rays))
    residual = fill_outwards(drawn.values[:1] - skull, on_face)
    offset = skull + residual * _fade(distance / BLEND_REACH)
    lifted = (plane + rays * offset.reshape(-1, 1)).T.reshape(3, size, size)
    canonical = lifted + fill_outwards(drawn.values[1:4] - lifted, on_face)
    offset = offset - MOUTH_DEPTH * mouth - EYE_DEPTH * eyes
    near = _fade(distance / MOTION_REACH)[None]
    support = near * ~(mouth | eyes)
    thick = _fade((NAPE_TOP - lifted[1:2]) / (NAPE_TOP - NAPE_END))
    back = torch.lerp(
        offset - MIN_THICKNESS, torch.minimum(2 * middle - skull, offset - MIN_THICKNESS), thick
    )
    weight = head_weight(lifted.reshape(3, -1).T, mesh[0]).reshape(offset.shape)
    brows = fill_outwards(drawn.values[4:], on_face) * support
    return PlanePrior(offset, back, canonical, support, 1 - near, weight, brows)


def lifting_rays(camera: Camera, plane: Float[Tensor, "batch point 3"]) -> Float[Tensor, "batch point 3"]:
    """Directions from plane points to the camera, scaled to rise one unit over the plane per unit.

    The paper lifts along the plane's normal; along the ray a lifted point stays on its own pixel, which is what lets
    a prior depth reproduce the photo without learning.
    """
    towards = camera.centre[:, None] - plane
    return towards / (towards @ camera.plane_normal[..., None])


def head_weight(points: Float[Tensor, "point 3"], mesh: Float[Tensor, "478 3"]) -> Float[Tensor, " point"]:
    """How far points move with the head: 1 down to the chin, then falling smoothly to 0."""
    face_height = (mesh[FOREHEAD, 1] - mesh[CHIN, 1]).clamp_min(1e-3)
    return _fade((mesh[CHIN, 1] - points[:, 1]) / (NECK_FADE * face_height))


def _between_lids(triangles: Int[Tensor, "triangle 3"]) -> Bool[Tensor, " triangle"]:
    """Which triangles close an eye: those whose corners are all on the lids of one eye."""
    found = torch.zeros(len(triangles), dtype=torch.bool, device=triangles.device)
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        lids = torch.tensor(sorted({*upper, *lower}), device=triangles.device)
        found |= torch.isin(triangles, lids).all(1)
    return found


def _fade(x: Tensor) -> Tensor:
    """1 up to 0, then smoothly to 0 at 1 (cubic Hermite)."""
    return 1 - smoothstep(x)


def _skull_heights(
    plane: Float[Tensor, "point 3"], rays: Float[Tensor, "point 3"]
) -> tuple[Float[Tensor, " point"], Float[Tensor, " point"]]:
    """Heights at which the rays meet the front of the ellipsoid, and halfway through it.

    Outside its outline both are the height at which the ray passes it closest, so that hair and shoulders start
    from the middle of the head.
    """
    radii = plane.new_tensor(SKULL_RADII)
    start = (plane - plane.new_tensor(SKULL_CENTRE)) / radii
    direction = rays / radii
    a = direction.square().sum(-1)
    b = (start * direction).sum(-1)
    c = start.square().sum(-1) - 1
    middle = -b / a
    return middle + (b * b - a * c).clamp_min(0).sqrt() / a, middle
