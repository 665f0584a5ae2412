"""FLAME landmarks: the part of FLAME that a fit evaluates, a few hundred times smaller than the whole.

A landmark is a fixed mixture of three vertices, and a vertex is skinned to joints of which only the jaw and the eyes
turn here: neck and root stay at rest, because all motion of the head is the camera's (reference section 7). So a
landmark is the sum of a part that stays with the skull and of parts that turn about each joint, and every part is
linear in the coefficients of shape and expression.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.camera import UNIT_M
from sdtalk.flame.layer import FlameModel, rotation_matrices
from sdtalk.tracking.landmarks68 import CONTOUR

TURNING = [2, 3, 4]
"""FLAME's joints that turn: jaw, then the two eyes."""

_CORRECTIVES = slice(9, 36)
"""The pose correctives that belong to them, nine a joint; the first nine are the neck's."""


@dataclass(frozen=True)
class FlameLandmarks:
    """Landmarks as a function of coefficients and joint angles; head-space units, double precision.

    landmark = still @ z + still_corrective @ f + sum over joints of R (turning @ z + turning_corrective @ f) with
    z = (1, coefficients) and f = the entries of all R - 1.

    Attributes:
        still: What stays with the skull.
        turning: What turns about each joint, relative to the joint.
        still_corrective: FLAME's pose correctives of the first.
        turning_corrective: And of the second.
        contour: Whether a landmark belongs to the face's contour.
    """

    still: Float[Tensor, "landmark 3 code"]
    turning: Float[Tensor, "joint landmark 3 code"]
    still_corrective: Float[Tensor, "landmark 3 entry"]
    turning_corrective: Float[Tensor, "joint landmark 3 entry"]
    contour: Bool[Tensor, " landmark"]

    @classmethod
    def of(cls, model: FlameModel, shapes: int, expressions: int) -> "FlameLandmarks":
        """Collect what the landmarks need of a model.

        Args:
            model: The whole model.
            shapes: How many of the leading coefficients of shape there are; the rest are 0.
            expressions: And of expression.
        """
        corners = model.triangles[model.landmark_triangles]  # landmark, 3
        bases = torch.cat(
            [
                model.template[..., None],
                model.shape_basis[..., :shapes],
                model.expression_basis[..., :expressions],
            ],
            dim=-1,
        )
        bases = bases.double() / UNIT_M
        shares = model.landmark_weights.double()[..., None] * model.skinning_weights.double()[corners]
        joints = torch.einsum("jv,vxk->jxk", model.joint_regressor.double(), bases)[TURNING]
        parts = torch.einsum("lcj,lcxk->jlxk", shares, bases[corners])
        correctives = torch.einsum(
            "lcj,lcxm->jlxm", shares, model.pose_basis.double()[corners][..., _CORRECTIVES] / UNIT_M
        )
        about = torch.einsum("lj,jxk->jlxk", shares.sum(1)[:, TURNING], joints)
        resting = [j for j in range(shares.shape[-1]) if j not in TURNING]
        return cls(
            still=parts[resting].sum(0) + about.sum(0),
            turning=parts[TURNING] - about,
            still_corrective=correctives[resting].sum(0),
            turning_corrective=correctives[TURNING],
            contour=model.landmark_numbers < CONTOUR.stop,
        )

    def with_shape(self, shape: Float[Tensor, " shape"]) -> "FlameLandmarks":
        """The landmarks of one person: the leading coefficients become constants."""
        count = 1 + len(shape)
        known = torch.cat([shape.new_ones(1), shape])

        def folded(basis: Tensor) -> Tensor:
            return torch.cat([(basis[..., :count] @ known)[..., None], basis[..., count:]], dim=-1)

        return replace(self, still=folded(self.still), turning=folded(self.turning))

    def place(
        self, code: Float[Tensor, "batch coefficient"], angles: Float[Tensor, "batch joint 3"]
    ) -> Float[Tensor, "batch landmark 3"]:
        """Landmarks in head space.

        Args:
            code: Coefficients of shape, then of expression.
            angles: Axis-angle rotations of jaw and eyes.
        """
        return self._placed(code, rotation_matrices(angles))[0]

    def derivatives(
        self, code: Float[Tensor, "batch coefficient"], angles: Float[Tensor, "batch joint 3"]
    ) -> tuple[
        Float[Tensor, "batch landmark 3"],
        Float[Tensor, "batch landmark 3 coefficient"],
        Float[Tensor, "batch landmark 3 angle"],
    ]:
        """Landmarks in head space, and how they change with the coefficients and with the joints' nine angles."""
        rotations = rotation_matrices(angles)
        placed, parts = self._placed(code, rotations)
        by_code = self.still[..., 1:] + torch.einsum("bjxy,jlyk->blxk", rotations, self.turning[..., 1:])
        turns = rotation_derivatives(angles, rotations)
        corrective = self.still_corrective + torch.einsum(
            "bjxy,jlym->blxm", rotations, self.turning_corrective
        )
        by_angle = torch.einsum("bjxya,bjly->blxja", turns, parts)
        by_angle += torch.einsum("blxjm,bjma->blxja", corrective.unflatten(-1, (-1, 9)), turns.flatten(2, 3))
        return placed, by_code, by_angle.flatten(3)

    def _placed(
        self, code: Float[Tensor, "batch coefficient"], rotations: Float[Tensor, "batch joint 3 3"]
    ) -> tuple[Float[Tensor, "batch landmark 3"], Float[Tensor, "batch joint landmark 3"]]:
        """Landmarks, and the parts that turn before they are turned."""
        z = torch.cat([torch.ones_like(code[:, :1]), code], dim=1)
        entries = (rotations - torch.eye(3).to(rotations)).flatten(1)
        parts = torch.einsum("jlxk,bk->bjlx", self.turning, z)
        parts = parts + torch.einsum("jlxm,bm->bjlx", self.turning_corrective, entries)
        still = torch.einsum("lxk,bk->blx", self.still, z)
        still = still + torch.einsum("lxm,bm->blx", self.still_corrective, entries)
        return still + torch.einsum("bjxy,bjly->blx", rotations, parts), parts


def rotation_derivatives(
    vectors: Float[Tensor, "*batch 3"], rotations: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch 3 3 3"]:
    """How rotation matrices change with their axis-angle vectors; the last axis is the vector's.

    G. Gallego and A. Yezzi, "A compact formula for the derivative of a 3-D rotation in exponential coordinates", 2015.
    """
    unit = torch.eye(3).to(vectors)
    crosses = torch.linalg.cross(unit[:, :, None].expand(3, 3, 3), unit.expand(3, 3, 3), dim=1)  # axis, 3, 3
    square = vectors.square().sum(-1)[..., None, None]
    sideways = torch.linalg.cross(vectors[..., None, :].expand_as(rotations), (unit - rotations).mT)
    axis = (vectors[..., None] * vectors[..., None, :] + sideways) / square.clamp(min=1e-12)
    axis = torch.where(square > 1e-12, axis, unit)
    return torch.einsum("...ac,cij,...jk->...ika", axis, crosses, rotations)
