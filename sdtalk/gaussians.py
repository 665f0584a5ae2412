"""Gaussians: the type a head is made of, and the offsets by which a motion field moves them."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

DELTA_CHANNELS = 11
"""Numbers in the offsets of a Gaussian: means 3, quats 4, scales 3, opacity 1."""

MIN_SCALE = 1e-5
"""Smallest standard deviation after motion, in head-space units (2 micrometres)."""


@dataclass(frozen=True)
class GaussianDelta:
    """Offsets a motion field adds to Gaussians; zero everywhere is the identity."""

    means: Float[Tensor, "batch gaussian 3"]
    quats: Float[Tensor, "batch gaussian 4"]
    scales: Float[Tensor, "batch gaussian 3"]
    opacities: Float[Tensor, "batch gaussian"]

    @classmethod
    def of(cls, offsets: Float[Tensor, "batch gaussian 11"]) -> "GaussianDelta":
        """Take apart what a network says: means, quats, scales, opacities."""
        return cls(offsets[..., 0:3], offsets[..., 3:7], offsets[..., 7:10], offsets[..., 10])

    @property
    def packed(self) -> Float[Tensor, "batch gaussian 11"]:
        """What `of` takes apart."""
        return torch.cat([self.means, self.quats, self.scales, self.opacities[..., None]], dim=-1)

    def only(self, index: Int[Tensor, " kept"]) -> "GaussianDelta":
        """Those of some of the Gaussians."""
        return GaussianDelta(**{f.name: getattr(self, f.name)[:, index] for f in fields(self)})

    @staticmethod
    def concatenate(parts: "list[GaussianDelta]") -> "GaussianDelta":
        """Join offsets along the Gaussian axis, in order."""
        return GaussianDelta(
            **{f.name: torch.cat([getattr(p, f.name) for p in parts], dim=1) for f in fields(GaussianDelta)}
        )


@dataclass(frozen=True)
class Gaussians:
    """A batch of 3D Gaussians in head space. Every field holds an activated value, ready for the rasteriser.

    Attributes:
        means: Centres, head-space units.
        quats: Rotations wxyz, unit length.
        scales: Standard deviations along the rotated axes, > 0.
        opacities: In [0, 1].
        features: The first three channels are RGB.
    """

    means: Float[Tensor, "batch gaussian 3"]
    quats: Float[Tensor, "batch gaussian 4"]
    scales: Float[Tensor, "batch gaussian 3"]
    opacities: Float[Tensor, "batch gaussian"]
    features: Float[Tensor, "batch gaussian channel"]

    def moved_by(self, delta: GaussianDelta, bounded: bool = True) -> "Gaussians":
        """Add offsets, then bring every field back into its domain.

        Args:
            delta: What to add.
            bounded: False leaves sums as they are, as the published code does (reference Q5); the rasteriser takes
                such Gaussians, nothing else should.
        """
        if not bounded:
            return Gaussians(
                means=self.means + delta.means,
                quats=self.quats + delta.quats,
                scales=self.scales + delta.scales,
                opacities=self.opacities + delta.opacities,
                features=self.features.expand(delta.means.shape[0], -1, -1),
            )
        return Gaussians(
            means=self.means + delta.means,
            quats=F.normalize(self.quats + delta.quats, dim=-1),
            scales=(self.scales + delta.scales).clamp_min(MIN_SCALE),
            opacities=(self.opacities + delta.opacities).clamp(0.0, 1.0),
            features=self.features.expand(delta.means.shape[0], -1, -1),
        )

    def to(self, device: torch.device | str) -> "Gaussians":
        """Move every field to a device."""
        return Gaussians(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def only(self, index: Int[Tensor, " kept"]) -> "Gaussians":
        """Some of the Gaussians."""
        return Gaussians(**{f.name: getattr(self, f.name)[:, index] for f in fields(self)})

    def none(self) -> "Gaussians":
        """No Gaussians, for the same batch."""
        return Gaussians(**{f.name: getattr(self, f.name)[:, :0] for f in fields(self)})

    def __getitem__(self, index: slice) -> "Gaussians":
        return Gaussians(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @staticmethod
    def concatenate(parts: "list[Gaussians]") -> "Gaussians":
        """Join sets along the Gaussian axis, in order."""
        return Gaussians(
            **{f.name: torch.cat([getattr(p, f.name) for p in parts], dim=1) for f in fields(Gaussians)}
        )
