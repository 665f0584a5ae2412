"""Test model: a made-up FLAME that looks like a face, so that fits to it are as well posed as to the real one.

5,023 vertices: the 478 points of our average face, random points of its surface and of a skull, and two eyeballs where
FLAME has them. Landmarks are the points of `landmarks68` and the eyeballs' fronts. Coefficients move the vertices by
random smooth fields whose size falls as 1 / k, as that of the components of real faces does: 3 mm for the first of
shape, 2 mm for the first of expression. The jaw turns about the ears and takes along what lies under the line of the
lips; eyes turn about their middles and correct nothing else.
"""

import math
from functools import cache

import torch
from torch import Tensor

from sdtalk.flame.layer import FlameModel, FlameParameters
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.landmarks68 import MESH_NUMBERS

METRES = 0.2
SURFACE, SKULL, EYEBALL = 2000, 1453, 546
EYES = {"left": (0.0315, 0.033, 0.034), "right": (-0.0315, 0.033, 0.034)}
EARS = [234, 454]
WAVES = 12  # a field is the sum of so many


def smooth_fields(points: Tensor, count: int, wavelength_m: float, random: torch.Generator) -> Tensor:
    """Random smooth displacement fields of standard deviation 1 at points [n, 3]: [n, 3, count]."""
    directions = torch.randn(3, count * WAVES, generator=random)
    phases = 2 * math.pi * torch.rand(count * WAVES, generator=random)
    waves = torch.cos(points @ directions * (2 * math.pi / wavelength_m / math.sqrt(3)) + phases)
    sizes = torch.randn(3, count, WAVES, generator=random) * math.sqrt(2 / WAVES)
    return torch.einsum("nkw,xkw->nxk", waves.unflatten(1, (count, WAVES)), sizes)


def _surface(face: FaceModel, random: torch.Generator) -> Tensor:
    chosen = face.triangles[torch.randint(len(face.triangles), (SURFACE,), generator=random)]
    share = torch.rand(SURFACE, 3, generator=random)
    return (face.mean_face[chosen] * (share / share.sum(1, keepdim=True))[..., None]).sum(1) * METRES


def _ball(count: int, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Tensor:
    """Points spread evenly over an ellipsoid; the first three are its front."""
    index = torch.arange(count - 3) + 0.5
    height, angle = 1 - 2 * index / len(index), index * 2.399963
    ring = (1 - height.square()).sqrt()
    points = torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)
    front = torch.tensor([[0.05, 0.0, 1.0], [-0.025, 0.043, 1.0], [-0.025, -0.043, 1.0]])
    return torch.tensor(centre) + torch.cat([front, points]) * torch.tensor(radii)


def _skinning(template: Tensor, first_eyeball: int) -> Tensor:
    """Shares of root, neck, jaw, left eye, right eye."""
    weights = torch.zeros(len(template), 5)
    below = torch.sigmoid((-0.0375 - template[:, 1]) / 0.001) * torch.sigmoid((template[:, 2] + 0.02) / 0.005)
    weights[:, 2], weights[:, 1] = below, 1 - below
    weights[first_eyeball:] = 0
    weights[first_eyeball : first_eyeball + EYEBALL, 3] = 1
    weights[first_eyeball + EYEBALL :, 4] = 1
    return weights


def _regressor(skinning: Tensor) -> Tensor:
    shares = torch.zeros(5, len(skinning))
    shares[:2] = 1 / len(skinning)
    shares[2, EARS] = 0.5
    shares[3:] = skinning[:, 3:].T / EYEBALL
    return shares


def _completion(template: Tensor, first_eyeball: int) -> Tensor:
    skin = template[:first_eyeball]
    mouth = torch.tensor([0.0, -0.037, 0.06])

    def nearest(place: Tensor, count: int) -> Tensor:
        return (skin - place).norm(dim=1).topk(count, largest=False).indices.sort().values

    left, right = (nearest(torch.tensor(EYES[side]) + torch.tensor([0, 0, 0.012]), 287) for side in EYES)
    return torch.cat([torch.arange(first_eyeball, len(template)), right, nearest(mouth, 254), left])


@cache
def face_like_flame() -> FlameModel:
    random = torch.Generator().manual_seed(0)
    face = FaceModel.bundled()
    balls = [_ball(EYEBALL, EYES[side], (0.012, 0.012, 0.012)) for side in ("left", "right")]
    skull = _ball(SKULL, (0.0, 0.0, -0.03), (0.075, 0.1, 0.09))
    template = torch.cat([face.mean_face * METRES, _surface(face, random), skull, *balls])
    first_eyeball = len(template) - 2 * EYEBALL
    falling = 1 / torch.arange(1.0, 301)
    skinning = _skinning(template, first_eyeball)
    correctives = torch.cat([torch.ones(18), torch.zeros(18)])
    # The landmarks are corners of triangles of the mesh; the pupils are the fronts of the right and left eyeball.
    touching = [int((face.triangles == n).any(1).nonzero()[0]) for n in MESH_NUMBERS]
    corner = (face.triangles[touching] == torch.tensor(MESH_NUMBERS)[:, None]).float()
    fronts = torch.tensor([[first_eyeball + EYEBALL], [first_eyeball]]) + torch.arange(3)
    return FlameModel(
        template=template,
        shape_basis=0.003 * falling * smooth_fields(template, 300, 0.15, random),
        expression_basis=0.002 * falling[:100] * smooth_fields(template, 100, 0.08, random),
        pose_basis=0.0005 * correctives * smooth_fields(template, 36, 0.1, random),
        joint_regressor=_regressor(skinning),
        skinning_weights=skinning,
        triangles=torch.cat([face.triangles, fronts]),
        landmark_triangles=torch.tensor([*touching, len(face.triangles), len(face.triangles) + 1]),
        landmark_weights=torch.cat([corner, torch.full((2, 3), 1 / 3)]),
        landmark_numbers=torch.arange(70),
        completion_rows=_completion(template, first_eyeball),
    )


def random_heads(count: int, seed: int, people: int | None = None) -> FlameParameters:
    """Heads with any shape, expression, jaw between closed and wide open, and look.

    Args:
        count: How many.
        seed: Of the random numbers.
        people: How many shapes there are; None: each head has its own.
    """
    random = torch.Generator().manual_seed(seed)
    shape = torch.randn(people or count, 300, generator=random)
    open_by = 0.35 * torch.rand(count, 1, generator=random)
    jaw = torch.cat([open_by, 0.02 * torch.randn(count, 2, generator=random)], dim=1)
    look = torch.tensor([0.15, 0.25, 0.0]) * torch.randn(count, 3, generator=random)
    return FlameParameters(
        shape=shape.expand(count, -1),
        expression=torch.randn(count, 100, generator=random),
        rotation=torch.zeros(count, 3),
        neck=torch.zeros(count, 3),
        jaw=jaw,
        eyes=look.repeat(1, 2),
    )
