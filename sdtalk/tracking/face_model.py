"""Face model: the average face, its surface, and the few numbers that describe mouth and eyes."""

from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdtalk.weights.assets import bundled

ASSET = "face.safetensors"

# Point numbers of the face mesh, each list from the subject's right to the left (image left to right).
UPPER_INNER_LIP = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308]
LOWER_INNER_LIP = [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]
UPPER_OUTER_LIP = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291]
LOWER_OUTER_LIP = [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291]
BETWEEN_LIP_RINGS = [
    76,
    184,
    74,
    73,
    72,
    11,
    302,
    303,
    304,
    408,
    306,
    77,
    90,
    180,
    85,
    16,
    315,
    404,
    320,
    307,
]
BETWEEN_LIP_RINGS += [
    62,
    183,
    42,
    41,
    38,
    12,
    268,
    271,
    272,
    407,
    292,
    96,
    89,
    179,
    86,
    15,
    316,
    403,
    319,
    325,
]
LIPS = sorted({*UPPER_INNER_LIP, *LOWER_INNER_LIP, *UPPER_OUTER_LIP, *LOWER_OUTER_LIP, *BETWEEN_LIP_RINGS})
# Eyes from the outer to the inner corner, subject's right eye first.
UPPER_LIDS = ([33, 246, 161, 160, 159, 158, 157, 173, 133], [263, 466, 388, 387, 386, 385, 384, 398, 362])
LOWER_LIDS = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [263, 249, 390, 373, 374, 380, 381, 382, 362])
# Lower and upper edge of the brows, the subject's right one first.
BROWS = [46, 53, 52, 65, 55, 70, 63, 105, 66, 107, 276, 283, 282, 295, 285, 300, 293, 334, 296, 336]
IRIS_CENTRES = (468, 473)
IRIS_POINTS = (list(range(468, 473)), list(range(473, 478)))

GAP_UPPER, GAP_LOWER = [82, 13, 312], [87, 14, 317]
"""Pairs of inner-lip points around the middle whose mean height difference is the mouth's opening."""

EYE_PAIRS = [(160, 144), (158, 153), (33, 133), (387, 373), (385, 380), (263, 362)]
"""For the right, then the left eye of the subject: outer lid gap, inner lid gap, width."""

MOUTH_NUMBERS = 5
"""Length of a mouth code: the opening and four shape coefficients."""

CANONICAL_OPENING = 0.35
"""Opening of the canonical face: its upper and lower lip lie apart, so a motion field can tell them apart."""


@dataclass(frozen=True)
class FaceModel:
    """Average face and its mouth motion, computed by `training/tracker/face_model.py`; head space, units of 0.2 m.

    The face is mirror-symmetric in x. Its irises are 0.315 units (63 mm) apart and its origin lies where
    FLAME's does, approximately: the eyeball centres are put at (±0.1575, 0.165, 0.17).

    Attributes:
        mean_face: The average face of the training clips.
        triangles: Surface, counter-clockwise from outside; eyes are closed by strips between the lids.
        mouth_triangles: Strip between the inner lips that closes the mouth.
        mirror: For each point the point on the other side of the face.
        pose_weights: How much a point counts in the camera fit.
        opening_gap: Height of the inner-lip gap that counts as opening 1.
        opening_mode: Mean displacement per unit of opening.
        mouth_modes: Displacement per unit of each shape coefficient; all symmetric, none changes the opening.
        mouth_readout: Inner products with what the opening leaves unexplained give the shape coefficients.
        lid_mode: Displacement of the points around the right eye per unit of its mean lid gap (measured by
            `training/tracker/lid_and_brow_modes.py`); the left eye's is the mirrored one.
        brow_mode: Displacement of brows and forehead per unit of the brows' mean height; symmetric (measured there,
            too).
    """

    mean_face: Float[Tensor, "478 3"]
    triangles: Int[Tensor, "triangle 3"]
    mouth_triangles: Int[Tensor, "mouth_triangle 3"]
    mirror: Int[Tensor, "478"]
    pose_weights: Float[Tensor, "478"]
    opening_gap: Float[Tensor, ""]
    opening_mode: Float[Tensor, "478 3"]
    mouth_modes: Float[Tensor, "4 478 3"]
    mouth_readout: Float[Tensor, "4 478 3"]
    lid_mode: Float[Tensor, "478 3"]
    brow_mode: Float[Tensor, "478 3"]

    @classmethod
    @cache
    def bundled(cls) -> "FaceModel":
        """The face model of the package, on the CPU."""
        return cls(**load_file(bundled(ASSET)))

    @classmethod
    @cache
    def on(cls, device: torch.device) -> "FaceModel":
        """The face model of the package, moved to a device once; a GPU makes the host wait for every copy."""
        with torch.inference_mode(False):  # whoever needs gradients may use it, too
            return cls.bundled().to(device)

    def save(self, path: Path) -> None:
        """Write the model as safetensors."""
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, path)

    def to(self, device: torch.device | str) -> "FaceModel":
        """Move to a device; the package's own face stays where it once was moved to, too."""
        if self.mean_face.device == torch.device(device):
            return self
        return _bundled_on(str(device)) if self is FaceModel.bundled() else self._moved(device)

    def _moved(self, device: torch.device | str) -> "FaceModel":
        return FaceModel(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def canonical_face(self) -> Float[Tensor, "478 3"]:
        """The average face with the mouth slightly open, the space motion fields live in."""
        change = CANONICAL_OPENING - self.mouth_opening(self.mean_face[None])[0]
        return self.mean_face + change * self.opening_mode

    def mouth_opening(self, mesh: Float[Tensor, "frame 478 3"]) -> Float[Tensor, " frame"]:
        """How far the lips are apart: 0 closed, 1 wide open for talking (a speaker's 95th percentile)."""
        height = mesh[..., 1]
        return (height[:, GAP_UPPER] - height[:, GAP_LOWER]).mean(1) / self.opening_gap

    def mouth_code(self, mesh: Float[Tensor, "frame 478 3"]) -> Float[Tensor, "frame 5"]:
        """Describe mouths by their opening and four coefficients of the shape of lips, jaw and cheeks.

        A unit of a coefficient is its standard deviation while talking. The coefficients are relative to the
        average face, so they contain the person's looks; subtract the person's own mean to compare people.
        """
        opening = self.mouth_opening(mesh)
        change = opening - self.mouth_opening(self.mean_face[None])
        shape = mesh - self.mean_face - change[:, None, None] * self.opening_mode
        coefficients = shape.flatten(1) @ self.mouth_readout.flatten(1).T
        return torch.cat([opening[:, None], coefficients], dim=1)

    def mouth_displacement(self, code: Float[Tensor, "frame 5"]) -> Float[Tensor, "frame 478 3"]:
        """Displacement of the mesh that a change of the mouth code stands for."""
        modes = torch.cat([self.opening_mode[None], self.mouth_modes])
        return (code @ modes.flatten(1)).unflatten(1, (-1, 3))

    def lid_displacement(self, change: Float[Tensor, "frame 6"]) -> Float[Tensor, "frame 478 3"]:
        """Displacement of the mesh that a change of the eye state stands for; only lid gaps are looked at."""
        left = self.lid_mode[self.mirror]
        left = torch.cat([-left[:, :1], left[:, 1:]], 1)
        gaps = torch.stack([change[:, 0:2].mean(1), change[:, 3:5].mean(1)], 1)
        return (gaps @ torch.stack([self.lid_mode, left]).flatten(1)).unflatten(1, (-1, 3))


@cache
def _bundled_on(device: str) -> FaceModel:
    with torch.inference_mode(False):  # for whoever trains later, too
        return FaceModel.bundled()._moved(device)


def eye_state(mesh: Float[Tensor, "frame 478 3"]) -> Float[Tensor, "frame 6"]:
    """Measure the eyes: for the subject's right, then left eye the outer and inner lid gap and the width.

    As the published code does from 68 landmarks in px, but three-dimensional and in head-space units, so that
    turning the head does not look like a blink.
    """
    ends = torch.tensor(EYE_PAIRS, device=mesh.device)
    return (mesh[:, ends[:, 0]] - mesh[:, ends[:, 1]]).norm(dim=-1)


def iris_places(mesh: Float[Tensor, "frame 478 3"]) -> Float[Tensor, "frame 2 3"]:
    """Where the subject's right, then left iris is, from the middle between the corners of its eye."""
    seen = [
        mesh[:, iris].mean(1) - mesh[:, [lids[0], lids[-1]]].mean(1)
        for iris, lids in zip(IRIS_POINTS, UPPER_LIDS, strict=True)
    ]
    return torch.stack(seen, dim=1)
