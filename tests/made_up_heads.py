"""Test data: made-up heads before made-up cameras, for the tests of tracking."""

import torch
from torch import Tensor

from sdtalk.camera import FACING, FOCAL_PX, Camera
from sdtalk.tracking.face_model import FaceModel

FACE = FaceModel.bundled()


def turned(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotations head space -> camera space of a head turned by angles in degrees."""
    rotations = []
    for axis, degrees in zip(((0, 2), (1, 2), (0, 1)), (yaw, pitch, roll), strict=True):
        cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
        rotation = torch.eye(3, dtype=degrees.dtype).repeat(len(degrees), 1, 1)
        i, j = axis
        rotation[:, i, i], rotation[:, j, j], rotation[:, i, j], rotation[:, j, i] = cos, cos, -sin, sin
        rotations.append(rotation)
    return FACING.to(yaw.dtype) @ rotations[0] @ rotations[1] @ rotations[2]


def random_cameras(count: int, seed: int = 0) -> Camera:
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(6, count, generator=generator, dtype=torch.float64) * 2 - 1
    rotation = turned(40 * random[0], 25 * random[1], 30 * random[2])
    translation = torch.stack([0.3 * random[3], 0.3 * random[4], 10.5 + 3.5 * random[5]], dim=1)
    return Camera.from_pose(rotation, translation)


def seen(mesh: Tensor, camera: Camera) -> Tensor:
    """Landmarks as the mesh network gives them: z in px of the scale at the head, 0 at its origin."""
    mesh = mesh.expand(len(camera), -1, -1)
    depth = camera.to_camera_space(mesh)[..., 2:] / camera.translation[:, None, 2:]
    return torch.cat([camera.project(mesh), FOCAL_PX * (depth - 1)], dim=-1)


def with_opening(opening: float) -> Tensor:
    change = opening - FACE.mouth_opening(FACE.mean_face[None])[0]
    return (FACE.mean_face + change * FACE.opening_mode)[None]
