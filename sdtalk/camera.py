"""Cameras, and every axis convention of the project, once.

Head space: FLAME's axes (x to the subject's left, y up, z out of the face), one unit = 0.2 m.
Camera space: OpenCV (x right, y down, z forward). Pixels: pixel (i, j) has its centre at (i + 0.5, j + 0.5).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

FRAME_SIZE = 512
"""Side of the square frames all models work on, in pixels."""

FOCAL_PX = 3072.0
"""Focal length at 512 px: twelve half-widths, as in the published code."""

UNIT_M = 0.2
"""Length of one head-space unit in metres (FLAME metres times five)."""

FACING = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
"""Rotation head space -> camera space of a face that looks straight into the camera."""


@dataclass(frozen=True)
class Camera:
    """A batch of pinhole cameras around a head.

    Attributes:
        world_to_camera: Rigid transforms, head space -> OpenCV camera space (units of 0.2 m).
        intrinsics: Pinhole matrices in px.
        width: Image width in px.
        height: Image height in px.
    """

    world_to_camera: Float[Tensor, "batch 4 4"]
    intrinsics: Float[Tensor, "batch 3 3"]
    width: int = FRAME_SIZE
    height: int = FRAME_SIZE

    @classmethod
    def from_pose(
        cls,
        rotation: Float[Tensor, "batch 3 3"],
        translation: Float[Tensor, "batch 3"],
        size: int = FRAME_SIZE,
    ) -> "Camera":
        """Build the standard camera (12 half-widths focal length, centred) with x_camera = R x_head + t."""
        batch = rotation.shape[0]
        world_to_camera = torch.eye(4, dtype=rotation.dtype, device=rotation.device).repeat(batch, 1, 1)
        world_to_camera[:, :3, :3] = rotation
        world_to_camera[:, :3, 3] = translation
        focal, centre = FOCAL_PX * size / FRAME_SIZE, size / 2
        matrix = torch.tensor([[focal, 0.0, centre], [0.0, focal, centre], [0.0, 0.0, 1.0]])
        return cls(world_to_camera, matrix.to(rotation).repeat(batch, 1, 1), size, size)

    @classmethod
    def from_pytorch3d(cls, transform: Float[Tensor, "batch 3 4"], size: int = FRAME_SIZE) -> "Camera":
        """Build the standard camera from the published code's [R|T], PyTorch3D's convention.

        There x_camera = x_head R + T with row vectors, and camera space has x to the left and y up.
        """
        flip = transform.new_tensor([-1.0, -1.0, 1.0])
        rotation = flip[:, None] * transform[:, :, :3].transpose(1, 2)
        return cls.from_pose(rotation, flip * transform[:, :, 3], size)

    @property
    def rotation(self) -> Float[Tensor, "batch 3 3"]:
        """Rotation head space -> camera space."""
        return self.world_to_camera[:, :3, :3]

    @property
    def translation(self) -> Float[Tensor, "batch 3"]:
        """Position of the head-space origin in camera space."""
        return self.world_to_camera[:, :3, 3]

    @property
    def centre(self) -> Float[Tensor, "batch 3"]:
        """Position of the camera in head space."""
        return -(self.rotation.transpose(1, 2) @ self.translation[..., None])[..., 0]

    def to_camera_space(self, points: Float[Tensor, "batch point 3"]) -> Float[Tensor, "batch point 3"]:
        """Transform head-space points into camera space."""
        return points @ self.rotation.transpose(1, 2) + self.translation[:, None]

    def to_head_space(self, points: Float[Tensor, "batch point 3"]) -> Float[Tensor, "batch point 3"]:
        """Transform camera-space points into head space."""
        return (points - self.translation[:, None]) @ self.rotation

    def project(self, points: Float[Tensor, "batch point 3"]) -> Float[Tensor, "batch point 2"]:
        """Project head-space points to pixel positions (x right, y down)."""
        homogeneous = self.to_camera_space(points) @ self.intrinsics.transpose(1, 2)
        return homogeneous[..., :2] / homogeneous[..., 2:]

    def lifting_plane(self, size: int, to_border: bool = False) -> Float[Tensor, "batch point 3"]:
        """Points of the plane through the head-space origin, parallel to the image (paper section 3.1).

        Args:
            size: Points on a side.
            to_border: Put the outer points on the image's border, as the published code does.

        Returns:
            size x size points in row-major order from the image's top left; by default a point projects to the
            centre of its cell when the image is divided into size x size cells.
        """
        depth = self.translation[:, 2]
        cells = (torch.arange(size, device=depth.device, dtype=depth.dtype) + 0.5) / size
        if to_border:
            cells = torch.linspace(0, 1, size, device=depth.device, dtype=depth.dtype)
        v, u = torch.meshgrid(cells * self.height, cells * self.width, indexing="ij")
        pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(1, -1, 3)
        rays = pixels @ torch.linalg.inv(self.intrinsics).transpose(1, 2)
        return self.to_head_space(rays * depth[:, None, None])

    @property
    def plane_normal(self) -> Float[Tensor, "batch 3"]:
        """Unit normal of the lifting plane, towards the camera, in head space."""
        return -self.rotation[:, 2]

    def resized(self, size: int) -> "Camera":
        """The same view on a square image of another size."""
        scale = self.intrinsics.new_tensor([[size / self.width], [size / self.height], [1.0]])
        return Camera(self.world_to_camera, self.intrinsics * scale, size, size)

    def window(
        self, left: int | Int[Tensor, " batch"], top: int | Int[Tensor, " batch"], size: int
    ) -> "Camera":
        """The same view, of which only a square window of the image is drawn.

        Args:
            left: Column of the image where the window begins, in px; one for all cameras, or one for each.
            top: The same for rows.
            size: Side of the window in px.
        """
        shift = torch.zeros_like(self.intrinsics)
        shift[:, 0, 2], shift[:, 1, 2] = left, top
        return Camera(self.world_to_camera, self.intrinsics - shift, size, size)

    def with_margin(self, margin: int) -> "Camera":
        """The same view, of which so many px more are drawn on each side of a square image."""
        return self.window(-margin, -margin, self.width + 2 * margin)

    def to(self, device: torch.device | str) -> "Camera":
        """Move to a device."""
        return Camera(self.world_to_camera.to(device), self.intrinsics.to(device), self.width, self.height)

    def __len__(self) -> int:
        return self.world_to_camera.shape[0]

    def __getitem__(self, index: slice | Tensor) -> "Camera":
        return Camera(self.world_to_camera[index], self.intrinsics[index], self.width, self.height)
