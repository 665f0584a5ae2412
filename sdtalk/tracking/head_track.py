"""HeadTrack and Portrait: what tracking hands to everything behind it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.image import Crop

MESH_POINTS = 478
"""Points of the attention face mesh: 468 of the surface and two irises of five."""

COMPLETION_POINTS = 1920
"""Template points of the completion branch: eyeballs, lids, lips, teeth, oral cavity (paper: FLAME's)."""

EYE_NUMBERS = 6
"""Eye state: for each eye two lid gaps and the width, as the published code, but in head-space units."""


@dataclass(frozen=True)
class HeadTrack:
    """Where a head is and what its face does, for a batch of frames in one crop.

    Attributes:
        camera: One camera a frame; 512 px, focal 3072 px.
        mesh: The face mesh in head space.
        completion_points: The template points of the completion branch, placed on the mesh, in head space.
        eyes: Subject's right eye then left eye, each (outer lid gap, inner lid gap, width), head-space units.
            From the FLAME tracker for the published weights: as `landmarks68.eye_numbers_px`.
        completion_rows: Which of the template's learned vectors the completion points belong to, the same for the
            whole batch; None: all, in order.
    """

    camera: Camera
    mesh: Float[Tensor, "batch 478 3"]
    completion_points: Float[Tensor, "batch completion 3"]
    eyes: Float[Tensor, "batch 6"]
    completion_rows: Int[Tensor, " completion"] | None = None

    def to(self, device: torch.device | str) -> "HeadTrack":
        """Move to a device."""
        return HeadTrack(
            self.camera.to(device),
            self.mesh.to(device),
            self.completion_points.to(device),
            self.eyes.to(device),
            None if self.completion_rows is None else self.completion_rows.to(device),
        )

    def __len__(self) -> int:
        return self.mesh.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "HeadTrack":
        return HeadTrack(
            self.camera[index],
            self.mesh[index],
            self.completion_points[index],
            self.eyes[index],
            self.completion_rows,
        )


@dataclass(frozen=True)
class Portrait:
    """A picture of one person, ready for reconstruction.

    Attributes:
        image: The 512 px crop, RGB in [0, 1].
        mask: Probability that a pixel shows the person.
        track: The head in the crop.
        crop: Where the crop lies in the original picture.
        note: What the user should know (for example that the largest of several faces was taken), or "".
        picture: The whole picture; None: it is not kept.
    """

    image: Float[Tensor, "1 3 height width"]
    mask: Float[Tensor, "1 1 height width"]
    track: HeadTrack
    crop: Crop
    note: str = ""
    picture: UInt8[np.ndarray, "whole_height whole_width 3"] | None = None
