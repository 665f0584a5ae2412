"""Geometry loss: displacements of face points by the motion fields against those of the tracked mesh."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.model import SDTalk
from sdtalk.motion.motion_field import MotionField
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import LIPS, LOWER_LIDS, UPPER_LIDS, FaceModel

SURFACE_POINTS = 1500
RIM_POINTS = 250
RIM_REACH = 0.2  # a little further than facial motion reaches, see sdtalk.reconstruction.prior
RIM_DEPTH = 0.15
LIP_WEIGHT = 4.0
LID_WEIGHT = 8.0
CODE_NOISE = 0.03
UNIT = 0.01  # displacements are weighed in units of 2 mm

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the canonical face and just outside it; `set` is one for all samples, or one for each.

    Attributes:
        vertices: The corners of the triangles they lie on.
        weights: Their barycentric coordinates there.
        positions: Where they are on the canonical face.
        importance: How much each counts.
    """

    vertices: Int[Tensor, "set point 3"]
    weights: Float[Tensor, "set point 3"]
    positions: Float[Tensor, "set point 3"]
    importance: Float[Tensor, "set point"]

    def moved(
        self, mesh: Float[Tensor, "batch 478 3"], mesh_target: Float[Tensor, "batch 478 3"]
    ) -> Float[Tensor, "batch point 3"]:
        """How the points go from one mesh to another."""
        row = torch.arange(len(mesh), device=mesh.device)[:, None, None]
        return ((mesh_target - mesh)[row, self.vertices] * self.weights[..., None]).sum(2)


class SurfaceSampler:
    """Draws random points of the face, lips and lids more often."""

    def __init__(self, face: FaceModel) -> None:
        self.face, self.canonical = face, face.canonical_face
        corners = self.canonical[face.triangles]
        area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
        lips = torch.isin(face.triangles, torch.tensor(LIPS)).any(1)
        lids = torch.isin(face.triangles, torch.tensor([*UPPER_LIDS, *LOWER_LIDS]).flatten()).any(1)
        self.chance = area.sqrt() * (1 + 3 * lips + 3 * lids)
        self.rim = outer_rim(torch.cat([face.triangles, face.mouth_triangles]))
        self.importance = torch.ones(len(self.canonical))
        self.importance[LIPS] += LIP_WEIGHT
        self.importance[[i for lid in (*UPPER_LIDS, *LOWER_LIDS) for i in lid]] += LID_WEIGHT

    def draw(self, generators: list[torch.Generator], device: torch.device | str = "cpu") -> SurfacePoints:
        """One set of points for each generator (on the CPU)."""
        drawn = [self._draw(generator) for generator in generators]
        vertices, weights, positions = (torch.stack(part) for part in zip(*drawn, strict=True))
        importance = (self.importance[vertices] * weights).sum(-1)
        return SurfacePoints(*(part.to(device) for part in (vertices, weights, positions, importance)))

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        chosen = torch.multinomial(self.chance, SURFACE_POINTS, replacement=True, generator=generator)
        weights = -torch.rand(SURFACE_POINTS, 3, generator=generator).clamp_min(1e-6).log()
        vertices, weights = self.face.triangles[chosen], weights / weights.sum(1, keepdim=True)
        rim = self.rim[torch.randint(len(self.rim), (RIM_POINTS,), generator=generator)]
        vertices = torch.cat([vertices, rim[:, None].expand(-1, 3)])
        weights = torch.cat([weights, torch.tensor([[1.0, 0.0, 0.0]]).expand(RIM_POINTS, -1)])
        positions = (self.canonical[vertices] * weights[..., None]).sum(1)
        positions[-RIM_POINTS:] += self._outwards(positions[-RIM_POINTS:], generator)
        return vertices, weights, positions

    def _outwards(
        self, rim: Float[Tensor, "point 3"], generator: torch.Generator
    ) -> Float[Tensor, "point 3"]:
        """Away from the middle of the face and back: the skin beyond the mesh goes where the mesh's rim goes."""
        away = (rim - self.canonical.mean(0)) * torch.tensor([1.0, 1.0, 0.0])
        reach = torch.rand(len(rim), 2, generator=generator) * torch.tensor([RIM_REACH, RIM_DEPTH])
        step = torch.nn.functional.normalize(away, dim=-1) * reach[:, :1]
        return step - torch.tensor([0.0, 0.0, 1.0]) * reach[:, 1:]


def outer_rim(triangles: Int[Tensor, "triangle 3"]) -> Int[Tensor, " vertex"]:
    """Vertices of the edges that belong to one triangle only."""
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).sort(dim=1).values
    unique, counts = edges.unique(dim=0, return_counts=True)
    return unique[counts == 1].unique()


def predicted_displacement(
    field: MotionField, positions: Float[Tensor, "set point 3"], batch: Batch
) -> Float[Tensor, "batch point 3"]:
    """Displacement the field gives to canonical positions between the source's and the target's state."""
    code = field.encode(positions)
    target = field(code, batch["target_mouth"], batch["target_eyes"])
    return target.means - field(code, batch["source_mouth"], batch["source_eyes"]).means


def surface_loss(field: MotionField, points: SurfacePoints, batch: Batch) -> Float[Tensor, ""]:
    """Squared error of the displacement at points of the face, lips and lids weighing more.

    Args:
        field: The coarse field.
        points: Where to compare.
        batch: `source_` and `target_` of mesh, mouth and eyes.
    """
    wanted = points.moved(batch["source_mesh"], batch["target_mesh"])
    error = (predicted_displacement(field, points.positions, batch) - wanted) / UNIT
    return (error.square().sum(-1) * points.importance).mean()


def completion_loss(
    field: MotionField, canonical: Float[Tensor, "point 3"], batch: Batch
) -> Float[Tensor, ""]:
    """The same at the completion points.

    Args:
        field: The fine field.
        canonical: The completion points of the canonical face.
        batch: `source_` and `target_` of points, mouth and eyes.
    """
    wanted = batch["target_points"] - batch["source_points"]
    error = (predicted_displacement(field, canonical[None], batch) - wanted) / UNIT
    return error.square().sum(-1).mean()


def completion_field(model: SDTalk) -> MotionField | None:
    """The field that moves the completion points: without a fine one the coarse one; None where there are none."""
    if model.fine_field is None and model.config.completion_branch:
        return model.coarse_field
    return model.fine_field


class GeometryLoss:
    """Both losses on a batch of training, whose numbers depend on the batch alone, however it is spread."""

    def __init__(self) -> None:
        face = FaceModel.bundled()
        self.sampler = SurfaceSampler(face)
        self.canonical = CompletionTemplate.bundled().place(face.canonical_face[None])[0]

    def __call__(self, model: SDTalk, batch: Batch) -> Float[Tensor, ""]:
        """Loss of the fields a model has.

        Args:
            model: With fields that hear mouth codes, on the batch's device.
            batch: As `training.data.loader.PairLoader` makes them; `window_offset` is the source of chance.
        """
        device = batch["source_mesh"].device
        seeds = [int(play * 2**31) for play in batch["window_offset"][:, 0].tolist()]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        batch = batch | with_code_noise(batch, generators)
        loss = surface_loss(model.coarse_field, self.sampler.draw(generators, device), batch)
        if (inside := completion_field(model)) is not None:
            loss = loss + completion_loss(inside, self.canonical.to(device), batch)
        return loss


def with_code_noise(batch: Batch, generators: list[torch.Generator]) -> Batch:
    """Mouth codes made a little wrong: those of the audio encoder are, and nothing should depend on their noise."""
    mouth = batch["source_mouth"]
    noise = torch.stack([torch.randn(2, mouth.shape[1], generator=g) for g in generators]) * CODE_NOISE
    noise = noise.to(mouth.device)
    return {"source_mouth": mouth + noise[:, 0], "target_mouth": batch["target_mouth"] + noise[:, 1]}
