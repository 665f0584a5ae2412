"""Identity metric: cosine similarity of ArcFace embeddings (network IR-SE50) of two faces.

The network is that of the file `model_ir_se50.pth` (optional asset "arcface"), which papers use for the cosine of two
faces' embeddings: 1 for the same picture, around 0 for strangers.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sdtalk.image import to_tensor
from training.optional_networks import load_optional_network

ASSET = "arcface"
FACE_PX = 112

STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))
"""Channels in, channels out, blocks; the first block of each halves the picture's side."""

SQUEEZE = 16

REFERENCE_POINTS_PX = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Where the eyes, the nose's tip and the mouth's corners lie in the 112 px picture; image left first."""

MESH_INDICES = (468, 473, 4, 61, 291)
"""The points of the face mesh that are put there."""


class IrSe50(nn.Module):
    """The published network; its parts are called as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.body = nn.Sequential(
            *(
                ResidualBlock(before if i == 0 else after, after, 2 if i == 0 else 1)
                for before, after, count in STAGES
                for i in range(count)
            )
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )  # fmt: skip

    @classmethod
    def installed(cls, device: torch.device | str = "cpu") -> "IrSe50 | None":
        """With the published weights; None where they are not on this machine.

        Raises:
            InputError: The weights are damaged.
        """
        return load_optional_network(cls, ASSET, device)

    def forward(self, faces: Float[Tensor, "batch 3 112 112"]) -> Float[Tensor, "batch 512"]:
        """Embeddings of length 1 of aligned faces, RGB in 0..1."""
        return F.normalize(self.output_layer(self.body(self.input_layer(faces * 2 - 1))), dim=1)


class ResidualBlock(nn.Module):
    """Adds what two convolutions say, each channel weighted by what all channels say together."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            SqueezeExcitation(after),
        )

    def forward(self, x: Float[Tensor, "batch before height width"]) -> Tensor:
        """Halves the side where the stride is 2."""
        return self.res_layer(x) + self.shortcut_layer(x)


class SqueezeExcitation(nn.Module):
    """Weighs channels by their means over the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(width // SQUEEZE, width, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch width height side"]) -> Tensor:
        """The same shape."""
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(means))))


def align_faces(
    pictures: UInt8[np.ndarray, "face height width 3"], landmarks_px: Float[Tensor, "face 478 2"]
) -> Float[Tensor, "face 3 112 112"]:
    """Turn, scale and move faces so that their features lie where the network expects them.

    Args:
        pictures: RGB.
        landmarks_px: Of the face mesh; 0 is the left edge of the first pixel.
    """
    images = to_tensor(pictures)
    height, width = images.shape[-2:]
    wanted = torch.tensor(REFERENCE_POINTS_PX) + 0.5
    at = similarity_transform(wanted.expand(len(images), -1, -1), landmarks_px[:, list(MESH_INDICES)])
    centres = torch.arange(FACE_PX) + 0.5
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    seen = torch.einsum("fij,hwj->fhwi", at, places)
    grid = seen / seen.new_tensor([width, height]) * 2 - 1
    # a px of the face may cover several of the picture: reduced first, so that nothing is skipped
    scale = at[:, :, 0].norm(dim=1).mean()
    if scale > 1:
        size = [max(1, round(float(side / scale))) for side in (height, width)]
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    return F.grid_sample(images, grid, align_corners=False, padding_mode="border")


def similarity_transform(
    points: Float[Tensor, "face point 2"], targets: Float[Tensor, "face point 2"]
) -> Float[Tensor, "face 2 3"]:
    """Rotation, scale and shift that bring points nearest to targets, in least squares."""
    p_mean, t_mean = points.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    p, t = points - p_mean, targets - t_mean
    size = p.square().sum((1, 2))
    a = (p * t).sum((1, 2)) / size
    b = (p[..., 0] * t[..., 1] - p[..., 1] * t[..., 0]).sum(1) / size
    turn = torch.stack([torch.stack([a, -b], dim=1), torch.stack([b, a], dim=1)], dim=1)
    shift = t_mean[:, 0] - (turn @ p_mean[:, 0, :, None])[..., 0]
    return torch.cat([turn, shift[..., None]], dim=2)
