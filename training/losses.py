"""Loss functions of both stages (paper section 3.3); every one returns a scalar."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.tracking.face_model import LIPS
from sdtalk.tracking.networks import FaceNetworks

CROP_PX, CROP_MARGIN = 192, 1.5
"""What the face-mesh network looks at: a square of so many px, so much larger than the face."""

LIP_MARGIN = 0.25
"""The lip box is this share larger than the lips on every side."""


def image_loss(
    prediction: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    weight: Float[Tensor, "batch 1 height width"],
) -> Tensor:
    """L1, with a weight per pixel."""
    return ((prediction - target).abs() * weight).mean()


def gradient_loss(
    prediction: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    weight: Float[Tensor, "batch 1 height width"],
) -> Tensor:
    """L1 of differences between neighbours at two scales: keeps edges where L1 alone would blur them."""
    total = prediction.new_zeros(())
    for _ in range(2):
        error = prediction - target
        total = total + (error.diff(dim=-1).abs() * weight[..., 1:]).mean()
        total = total + (error.diff(dim=-2).abs() * weight[..., 1:, :]).mean()
        prediction, target, weight = (F.avg_pool2d(x, 2) for x in (prediction, target, weight))
    return total


def lip_weight(
    lips_px: Float[Tensor, "batch lip 2"], size: int, inside: float
) -> Float[Tensor, "batch 1 height width"]:
    """1 everywhere, `inside` in a box around the lips."""
    low, high = lips_px.amin(1), lips_px.amax(1)
    margin = LIP_MARGIN * (high - low)
    centres = torch.arange(size, device=lips_px.device) + 0.5
    in_x = (centres > (low - margin)[:, :1]) & (centres < (high + margin)[:, :1])
    in_y = (centres > (low - margin)[:, 1:]) & (centres < (high + margin)[:, 1:])
    box = (in_y[:, :, None] & in_x[:, None, :])[:, None]
    return 1 + (inside - 1) * box.float()


def lifting_loss(mesh: Float[Tensor, "batch vertex 3"], lifted: Float[Tensor, "batch point 3"]) -> Tensor:
    """Mean squared distance of each mesh vertex to its nearest lifted point (paper: L_lifting)."""
    return nearest_square_distances(mesh, lifted).mean()


def nearest_square_distances(
    mesh: Float[Tensor, "batch vertex 3"], lifted: Float[Tensor, "batch point 3"], chunk: int = 128
) -> Float[Tensor, "batch vertex"]:
    """Squared distance of each mesh vertex to its nearest lifted point.

    The search keeps no graph, which at 5,023 vertices and 175,232 points would be gigabytes; gradients reach the
    vertices and the points found.

    Args:
        mesh: Vertices, head space.
        lifted: Points, head space.
        chunk: So many vertices at a time are compared with all points.
    """
    with torch.no_grad():  # differences, not the faster products: those lose half of the digits near zero
        nearest = [
            torch.cdist(part, lifted, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
            for part in mesh.split(chunk, dim=1)
        ]
    found = torch.take_along_dim(lifted, torch.cat(nearest, dim=1)[..., None], dim=1)
    return (mesh - found).square().sum(-1)


def lip_points(projected: Float[Tensor, "batch 478 2"]) -> Float[Tensor, "batch lip 2"]:
    """The lips of a projected mesh."""
    return projected[:, LIPS]


class FaceNetworkLoss(nn.Module):
    """Compares two pictures through the bundled face-mesh network: its feature maps, and where it sees the lips.

    Stands in for the paper's perceptual loss, whose networks are not part of this package; the lip term is what
    keeps a rendered mouth as open as the real one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = FaceNetworks.from_bundled().networks.face_mesh

    def forward(
        self,
        prediction: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
        face_px: Float[Tensor, "batch vertex 2"],
    ) -> tuple[Tensor, Tensor]:
        """Perceptual loss, and lip landmark loss in units of the crop's side.

        Args:
            prediction: RenderedBatch pictures.
            target: Real pictures.
            face_px: Projected mesh of the real pictures; says where to look.
        """
        grid = _crop_grid(face_px, prediction.shape[-1])
        crops = [
            F.grid_sample(p, grid, align_corners=False, padding_mode="border") for p in (prediction, target)
        ]
        ours, theirs = self._look(crops[0]), self._look(crops[1].detach())
        perceptual = prediction.new_zeros(())
        for a, b in zip(ours[:-1], theirs[:-1], strict=True):
            perceptual = perceptual + F.l1_loss(F.normalize(a, dim=1), F.normalize(b, dim=1))
        lips = (ours[-1][:, LIPS, :2] - theirs[-1][:, LIPS, :2]).abs().mean() / CROP_PX
        return perceptual, lips

    def _look(self, crops: Float[Tensor, "batch 3 192 192"]) -> list[Tensor]:
        stem = self.network.stem(crops)
        features = self.network.to_map(stem)
        deeper = self.network.to_mesh[:3](features)
        points, _ = self.network(crops)
        return [stem, features, deeper, points]


def _crop_grid(face_px: Float[Tensor, "batch vertex 2"], size: int) -> Float[Tensor, "batch 192 192 2"]:
    """Sampling grid of an upright square around a face, as large as the mesh network wants it."""
    low, high = face_px.amin(1), face_px.amax(1)
    side = (high - low).amax(-1) * CROP_MARGIN
    steps = (torch.arange(CROP_PX, device=face_px.device) + 0.5) / CROP_PX - 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    offsets = torch.stack([x, y], dim=-1) * side[:, None, None, None]
    return (offsets + ((low + high) / 2)[:, None, None]) / size * 2 - 1
