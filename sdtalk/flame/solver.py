"""The solver behind `sdtalk.flame.fit`: damped Gauss-Newton over pictures that may share a shape."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.camera import FOCAL_PX, FRAME_SIZE
from sdtalk.flame.landmarks import FlameLandmarks
from sdtalk.flame.layer import rotation_matrices

OUTLIER = 10.0
"""Landmarks further off than so many times the noise hardly count (Geman and McClure's error). Generous, because the
landmarks of another annotation than FLAME's are off by a few px, and all the same way, without being outliers."""

CONTOUR_SHARE = 0.25
"""What a landmark of the contour counts: in a turned head the annotated contour slides over the skin, FLAME's
does not."""

ANGLE_SPREAD = [0.2, 0.03, 0.03, *([0.2, 0.3, 0.003] * 2)]
"""Expected standard deviations of jaw and eyes about x, y, z, in radians: a jaw opens, an eye does not roll."""

_STEPS = 20
_WIDENING = [4.0, 3.0, 2.0]
"""The first steps forgive more, for they start from the average face."""
_SETTLED = 1e-4


@dataclass(frozen=True)
class Heads:
    """What is sought.

    Attributes:
        rotation: Head space to the camera's.
        translation: Of head space's origin, in the camera's space.
        angles: Axis-angle vectors of jaw and eyes.
        expression: Leading coefficients.
        shape: Leading coefficients, one row a picture, or one row for all; no columns where the person is known.
    """

    rotation: Float[Tensor, "batch 3 3"]
    translation: Float[Tensor, "batch 3"]
    angles: Float[Tensor, "batch joint 3"]
    expression: Float[Tensor, "batch expression"]
    shape: Float[Tensor, "person shape"]

    def code(self) -> Float[Tensor, "batch coefficient"]:
        """Coefficients of shape and expression of every picture."""
        return torch.cat([self.shape.expand(len(self.rotation), -1), self.expression], dim=1)

    def moved(self, step: Float[Tensor, "batch unknown"], reshaped: Float[Tensor, "person shape"]) -> "Heads":
        """Take a step: the rotation's is in the camera's axes, the rest is added."""
        turn, shift, bend, change = step.split(
            [3, 3, self.angles[0].numel(), self.expression.shape[1]], dim=1
        )
        return Heads(
            rotation_matrices(turn) @ self.rotation,
            self.translation + shift,
            self.angles + bend.view_as(self.angles),
            self.expression + change,
            self.shape + reshaped,
        )

    def chosen(self, other: "Heads", better: Bool[Tensor, " person"]) -> "Heads":
        """The other's values where it is better."""
        frames = better.expand(len(self.rotation))
        return Heads(
            torch.where(frames[:, None, None], other.rotation, self.rotation),
            torch.where(frames[:, None], other.translation, self.translation),
            torch.where(frames[:, None, None], other.angles, self.angles),
            torch.where(frames[:, None], other.expression, self.expression),
            torch.where(better[:, None], other.shape, self.shape),
        )


class LandmarkProblem:
    """Landmarks of some pictures, and how well heads explain them."""

    def __init__(
        self, landmarks: FlameLandmarks, target: Float[Tensor, "batch landmark 2"], noise_px: float
    ) -> None:
        self.landmarks, self.target, self.reach_px = landmarks, target.nan_to_num(), OUTLIER * noise_px
        share = torch.where(landmarks.contour, CONTOUR_SHARE, 1.0).double()
        self.trust = target.isfinite().all(dim=2) * share / noise_px**2

    def solve(self, heads: Heads) -> Heads:
        """Follow the error downhill; a step that does not lower a person's is not taken, the next is shorter."""
        damping = torch.full_like(self.target[: len(heads.shape), 0, 0], 1e-3)
        for widening in _WIDENING + [1.0] * _STEPS:
            reach_px = widening * self.reach_px
            before, step, reshaped = self._step(heads, reach_px, damping)
            tried = heads.moved(step, reshaped)
            after = self._cost(tried, self._missed(tried), reach_px)
            better = after < before
            heads = heads.chosen(tried, better)
            damping = torch.where(better, damping / 4, damping * 8).clamp(1e-7, 1e4)
            settled = (after > (1 - _SETTLED) * before) & (better | (damping > 1))
            if widening == 1 and settled.all():
                break
        return heads

    def _missed(self, heads: Heads) -> Float[Tensor, "batch landmark 2"]:
        """By how many px the landmarks of heads lie beside the given ones."""
        points = self.landmarks.place(heads.code(), heads.angles)
        seen = points @ heads.rotation.mT + heads.translation[:, None]
        return FOCAL_PX * seen[..., :2] / seen[..., 2:] + FRAME_SIZE / 2 - self.target

    def _cost(
        self, heads: Heads, missed: Float[Tensor, "batch landmark 2"], reach_px: float
    ) -> Float[Tensor, " person"]:
        """What is minimised: Geman and McClure's error in units of the noise, and the unlikeliness of the head."""
        square = missed.square().sum(2)
        unlikely = (_resting(heads).square() * _precision(heads)).sum(1)
        frames = (self.trust * square / (1 + square / reach_px**2)).sum(1) + unlikely
        return _of_person(frames, heads) + heads.shape.square().sum(1)

    def _step(
        self, heads: Heads, reach_px: float, damping: Float[Tensor, " person"]
    ) -> tuple[Float[Tensor, " person"], Float[Tensor, "batch unknown"], Float[Tensor, "person shape"]]:
        """Cost, and the damped Gauss-Newton step, in the pictures' own unknowns and in the shapes.

        A picture's own unknowns are eliminated first (Schur's complement), so that many that share a shape cost
        as much as as many that do not.
        """
        missed, by_own, by_shape = self._derivatives(heads)
        weight = self.trust / (1 + missed.square().sum(2) / reach_px**2).square()
        weight = weight[..., None].expand_as(missed).flatten(1)
        weighted, missed_flat = by_own.mT * weight[:, None], missed.flatten(1)[..., None]
        precision = _precision(heads)
        own = _damped(weighted @ by_own + precision.diag(), damping.expand(len(missed)))
        own_slope = weighted @ missed_flat + (precision * _resting(heads))[..., None]
        mixed = weighted @ by_shape
        eliminated = torch.linalg.solve(own, torch.cat([mixed, own_slope], dim=2))
        by_shape_weighted = by_shape.mT * weight[:, None]
        curvature = _of_person(by_shape_weighted @ by_shape, heads)
        curvature = _damped(curvature + torch.eye(curvature.shape[1]).to(curvature), damping)
        curvature = curvature - _of_person(mixed.mT @ eliminated[..., :-1], heads)
        slope = _of_person(by_shape_weighted @ missed_flat - mixed.mT @ eliminated[..., -1:], heads)
        reshaped = -torch.linalg.solve(curvature, slope + heads.shape[..., None])
        step = -(eliminated[..., -1:] + eliminated[..., :-1] @ reshaped.expand(len(missed), -1, -1))
        return self._cost(heads, missed, reach_px), step[..., 0], reshaped[..., 0]

    def _derivatives(
        self, heads: Heads
    ) -> tuple[
        Float[Tensor, "batch landmark 2"],
        Float[Tensor, "batch coordinate unknown"],
        Float[Tensor, "batch coordinate shape"],
    ]:
        """The error in px, and how it changes with a picture's own unknowns and with the shape."""
        points, by_code, by_angle = self.landmarks.derivatives(heads.code(), heads.angles)
        turned = points @ heads.rotation.mT
        seen = turned + heads.translation[:, None]
        on_plane = seen[..., :2] / seen[..., 2:]
        missed = FOCAL_PX * on_plane + FRAME_SIZE / 2 - self.target
        unit = torch.eye(2).to(seen).expand(*seen.shape[:2], 2, 2)
        by_place = FOCAL_PX / seen[..., 2:, None] * torch.cat([unit, -on_plane[..., None]], dim=-1)
        # A small turn about axis a moves a point by a x point; (place row) . (a x point) = a . (point x place row)
        by_turn = torch.linalg.cross(turned[:, :, None].expand_as(by_place), by_place)
        by_point = by_place @ heads.rotation[:, None]
        by_code = by_point @ by_code
        count = heads.shape.shape[1]
        own = torch.cat([by_turn, by_place, by_point @ by_angle, by_code[..., count:]], dim=-1)
        return missed, own.flatten(1, 2), by_code[..., :count].flatten(1, 2)


def _resting(heads: Heads) -> Float[Tensor, "batch unknown"]:
    """A picture's own unknowns, as far as their usual value, 0, is known."""
    pose = torch.zeros_like(heads.translation)
    return torch.cat([pose, pose, heads.angles.flatten(1), heads.expression], dim=1)


def _precision(heads: Heads) -> Float[Tensor, " unknown"]:
    """How sure it is that a picture's own unknowns are 0; the camera may be anywhere."""
    angles = heads.expression.new_tensor(ANGLE_SPREAD) ** -2
    return torch.cat([angles.new_zeros(6), angles, torch.ones_like(heads.expression[0])])


def _of_person(values: Float[Tensor, "batch *rest"], heads: Heads) -> Float[Tensor, "person *rest"]:
    """Sum over the pictures of each person."""
    return values if len(heads.shape) == len(values) else values.sum(0, keepdim=True)


def _damped(
    curvature: Float[Tensor, "batch n n"], damping: Float[Tensor, " batch"]
) -> Float[Tensor, "batch n n"]:
    """Marquardt's damping: each unknown's own curvature is made larger by a share."""
    return curvature + torch.diag_embed(damping[:, None] * curvature.diagonal(dim1=1, dim2=2))
