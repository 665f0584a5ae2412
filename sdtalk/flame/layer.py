"""FLAME layer: shape, expression and pose to 5,023 vertices, by linear blend skinning.

Its arrays are licensed and do not come with the package; `sdtalk.flame.file` reads them. A model of any size
works here, so tests make one up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdtalk.camera import UNIT_M

PARENTS = (-1, 0, 1, 1, 1)
"""The joint each joint hangs on; in order the root, the neck, the jaw, the left and the right eye."""

COMPLETION_MASKS = ("left_eyeball", "right_eyeball", "right_eye_region", "lips", "left_eye_region")
"""The vertex masks whose vertices the completion branch takes, in the published order (reference section 6)."""


@dataclass(frozen=True)
class FlameParameters:
    """What a FLAME head is made of, for a batch of heads; rotations are axis-angle vectors in radians.

    Attributes:
        shape: Coefficients of the person, in standard deviations.
        expression: Coefficients of the expression, in standard deviations.
        rotation: Of the whole head about the root joint; zero where the camera holds the head's pose.
        neck: Of the head about the neck.
        jaw: Of the lower jaw.
        eyes: Of the left, then of the right eyeball.
    """

    shape: Float[Tensor, "batch shapes"]
    expression: Float[Tensor, "batch expressions"]
    rotation: Float[Tensor, "batch 3"]
    neck: Float[Tensor, "batch 3"]
    jaw: Float[Tensor, "batch 3"]
    eyes: Float[Tensor, "batch 6"]

    @classmethod
    def zeros(cls, batch: int, model: "FlameModel") -> "FlameParameters":
        """The average head at rest, with as many coefficients as a model has, in its type and on its device."""
        sizes = (model.shape_basis.shape[2], model.expression_basis.shape[2], 3, 3, 3, 6)
        return cls(*(model.template.new_zeros(batch, size) for size in sizes))

    @classmethod
    def cat(cls, parts: Sequence["FlameParameters"]) -> "FlameParameters":
        """Join batches, one after the other."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def to(self, device: torch.device | str) -> "FlameParameters":
        """Move to a device."""
        return FlameParameters(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __len__(self) -> int:
        return self.shape.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "FlameParameters":
        return FlameParameters(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class FlameModel:
    """The arrays of a FLAME model, in metres, and the points of its surface that others ask for.

    Attributes:
        template: The average head at rest.
        shape_basis: Displacement per unit of each coefficient of the person.
        expression_basis: Displacement per unit of each coefficient of the expression.
        pose_basis: Displacement per unit of R - 1 of neck, jaw, left and right eye, row by row.
        joint_regressor: Shares of the vertices in each joint's position.
        skinning_weights: How far a vertex follows each joint; rows sum to 1.
        triangles: The surface.
        landmark_triangles: For each landmark the triangle it lies on.
        landmark_weights: Its barycentric coordinates there.
        landmark_numbers: Which landmark of `sdtalk.tracking.landmarks68.all_landmarks` each is: of the 68, a pupil (68,
            69), or a point of the face mesh (from 70 on).
        completion_rows: The vertices of the completion branch, in the order of `COMPLETION_MASKS`.
    """

    template: Float[Tensor, "vertex 3"]
    shape_basis: Float[Tensor, "vertex 3 shapes"]
    expression_basis: Float[Tensor, "vertex 3 expressions"]
    pose_basis: Float[Tensor, "vertex 3 36"]
    joint_regressor: Float[Tensor, "5 vertex"]
    skinning_weights: Float[Tensor, "vertex 5"]
    triangles: Int[Tensor, "triangle 3"]
    landmark_triangles: Int[Tensor, " landmark"]
    landmark_weights: Float[Tensor, "landmark 3"]
    landmark_numbers: Int[Tensor, " landmark"]
    completion_rows: Int[Tensor, " completion"]

    @classmethod
    def load(cls, path: Path) -> "FlameModel":
        """Read what `save` wrote, on the CPU."""
        return cls(**load_file(path))

    def save(self, path: Path, notes: Mapping[str, str]) -> None:
        """Write the model as safetensors, with notes on where it comes from as the file's metadata."""
        tensors = {f.name: getattr(self, f.name).contiguous() for f in fields(self)}
        save_file(tensors, path, metadata=dict(notes))

    def to(self, device: torch.device | str) -> "FlameModel":
        """Move to a device."""
        return FlameModel(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def vertices(self, parameters: FlameParameters) -> Float[Tensor, "batch vertex 3"]:
        """Place the vertices; differentiable.

        Returns:
            Positions in head space, in units of 0.2 m (FLAME metres times five, as in the published code).
        """
        shaped = self.template + _blend(self.shape_basis, parameters.shape)
        shaped = shaped + _blend(self.expression_basis, parameters.expression)
        joints = self.joint_regressor @ shaped
        pose = (parameters.rotation, parameters.neck, parameters.jaw, parameters.eyes)
        rotations = rotation_matrices(torch.cat(pose, dim=1).unflatten(1, (-1, 3)))
        at_rest = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
        posed = shaped + _blend(self.pose_basis, (rotations[:, 1:] - at_rest).flatten(1))
        return self._skin(posed, joints, rotations) / UNIT_M

    def _skin(
        self,
        points: Float[Tensor, "batch vertex 3"],
        joints: Float[Tensor, "batch 5 3"],
        rotations: Float[Tensor, "batch 5 3 3"],
    ) -> Float[Tensor, "batch vertex 3"]:
        """Move points with the joints: joint j takes x to R_j (x - rest_j) + place_j, a vertex to the weighted mean."""
        turns, places = [rotations[:, 0]], [joints[:, 0]]
        for joint, parent in enumerate(PARENTS[1:], start=1):
            bone = (joints[:, joint] - joints[:, parent])[..., None]
            places.append(places[parent] + (turns[parent] @ bone)[..., 0])
            turns.append(turns[parent] @ rotations[:, joint])
        turn, place = torch.stack(turns, dim=1), torch.stack(places, dim=1)
        shift = place - (turn @ joints[..., None])[..., 0]
        mean_turn = torch.einsum("vj,bjik->bvik", self.skinning_weights, turn)
        return (mean_turn @ points[..., None])[..., 0] + self.skinning_weights @ shift

    def landmarks(self, vertices: Float[Tensor, "batch vertex 3"]) -> Float[Tensor, "batch landmark 3"]:
        """Take the landmarks off a surface, in whatever units and space its vertices are."""
        corners = vertices[:, self.triangles[self.landmark_triangles]]
        return (corners * self.landmark_weights[..., None]).sum(2)


def _blend(
    basis: Float[Tensor, "vertex 3 coefficient"], coefficients: Float[Tensor, "batch coefficient"]
) -> Float[Tensor, "batch vertex 3"]:
    return (coefficients @ basis.flatten(0, 1).T).unflatten(1, (-1, 3))


def rotation_matrices(vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula as the published code has it: 1e-8 is added to each component, but only inside the norm.

    So the zero vector gives the identity and the right derivatives there (reference Q17).
    """
    wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))  # 1e-8 is nothing in half precision
    angle = (wide + 1e-8).norm(dim=-1, keepdim=True)
    x, y, z = (wide / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    angle = angle[..., None]
    identity = torch.eye(3, dtype=wide.dtype, device=wide.device)
    return (identity + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)).to(vectors.dtype)
