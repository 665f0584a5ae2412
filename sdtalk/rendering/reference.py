"""Reference rasteriser in plain PyTorch: every Gaussian at every pixel, gradients by autograd; for tests."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rules import (
    DILATION,
    MIN_ALPHA,
    MIN_ROOT,
    MIN_TRANSMITTANCE,
    NEAR,
    OUR_RULES,
    PUBLISHED_TILE,
    TANGENT_MARGIN,
    FeatureImage,
    RasterRules,
    check_batches,
)


def rotation_matrices(quats: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation formula of wxyz quaternions, used as given: other lengths than 1 give a shear."""
    w, x, y, z = quats.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def covariances(
    quats: Float[Tensor, "*batch 4"], scales: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """Covariance R S S^T R^T of each Gaussian in head space, squared head-space units."""
    axes = rotation_matrices(quats) * scales[..., None, :]
    return axes @ axes.transpose(-1, -2)


def projected_covariances(
    points: Float[Tensor, "gaussian 3"],
    covariance: Float[Tensor, "gaussian 3 3"],
    camera: Camera,
    dilation: float = DILATION,
) -> Float[Tensor, "gaussian 2 2"]:
    """Covariance in px^2 of Gaussians in camera space, dilated.

    Args:
        points: Centres in camera space.
        covariance: Covariances in camera space.
        camera: One view.
        dilation: `RasterRules.dilation`.
    """
    x, y, z = points.unbind(-1)
    (fx, _, cx), (_, fy, cy) = camera.intrinsics[0, :2]
    margin_x, margin_y = TANGENT_MARGIN * camera.width / 2 / fx, TANGENT_MARGIN * camera.height / 2 / fy
    tangent_x = (x / z).clamp(-cx / fx - margin_x, (camera.width - cx) / fx + margin_x)
    tangent_y = (y / z).clamp(-cy / fy - margin_y, (camera.height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    along_x = torch.stack([fx / z, zero, -fx * tangent_x / z], -1)
    along_y = torch.stack([zero, fy / z, -fy * tangent_y / z], -1)
    jacobian = torch.stack([along_x, along_y], -2)
    return jacobian @ covariance @ jacobian.transpose(-1, -2) + dilation * torch.eye(2).to(z)


def square_radii(covariance: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch"]:
    """Half sides in px, whole numbers, of the squares that bound Gaussians by the published rules."""
    middle = (covariance[..., 0, 0] + covariance[..., 1, 1]) / 2
    root = (middle**2 - torch.linalg.det(covariance)).clamp_min(MIN_ROOT).sqrt()
    return (3 * (middle + root).sqrt()).ceil()


def square_tiles(
    centres: Float[Tensor, "gaussian 2"], radii: Float[Tensor, " gaussian"], camera: Camera
) -> Int[Tensor, "gaussian 4"]:
    """Tiles that the squares around projected Gaussians touch by the published rules.

    Args:
        centres: In px, pixel (0, 0) at (0.5, 0.5).
        radii: From `square_radii`.
        camera: Gives the size of the image.

    Returns:
        Left, top, right and bottom in tiles, right and bottom excluded; clamped to the image.
    """
    # There pixel (0, 0) lies at (0, 0), and a square that ends within a pixel of a tile's start does not touch it.
    corners = centres - 0.5
    first, end = corners - radii[:, None], corners + radii[:, None] + PUBLISHED_TILE - 1
    grid = centres.new_tensor([-(-camera.width // PUBLISHED_TILE), -(-camera.height // PUBLISHED_TILE)])
    edges = [(edge / PUBLISHED_TILE).floor().clamp_min(0).minimum(grid) for edge in (first, end)]
    return torch.cat(edges, dim=-1).long()


def _within_tiles(
    pixels: Float[Tensor, "height width 2"], tiles: Int[Tensor, "gaussian 4"]
) -> Bool[Tensor, "gaussian height width"]:
    tile = (pixels / PUBLISHED_TILE).long()[None]
    inside = (tile >= tiles[:, None, None, :2]) & (tile < tiles[:, None, None, 2:])
    return inside.all(-1)


def _one_view(
    gaussians: Gaussians, camera: Camera, rules: RasterRules
) -> tuple[Float[Tensor, "channel height width"], Float[Tensor, "1 height width"]]:
    depth = camera.to_camera_space(gaussians.means)[0, :, 2]
    seen = torch.argsort(depth.detach(), stable=True)
    seen = seen[depth[seen] > NEAR]
    means = gaussians.means[:, seen]
    centres = camera.project(means)[0]
    rotated = camera.rotation @ covariances(gaussians.quats[0, seen], gaussians.scales[0, seen])
    rotated = rotated @ camera.rotation.transpose(-1, -2)
    projected = projected_covariances(camera.to_camera_space(means)[0], rotated, camera, rules.dilation)
    conics = torch.linalg.inv(projected)

    rows, columns = torch.arange(camera.height).to(means) + 0.5, torch.arange(camera.width).to(means) + 0.5
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    offset = pixels[None] - centres[:, None, None]
    distance = torch.einsum("nhwi,nij,nhwj->nhw", offset, conics, offset)
    alpha = gaussians.opacities[0, seen, None, None] * torch.exp(-0.5 * distance)
    alpha = alpha.clamp(max=rules.max_alpha)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0.0)
    if rules.square_extent:
        tiles = square_tiles(centres.detach(), square_radii(projected.detach()), camera)
        alpha = torch.where(_within_tiles(pixels, tiles), alpha, 0.0)
    # T never grows: below the minimum lie the Gaussian at which the pixel stops and all after it.
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    weights = torch.where(after >= MIN_TRANSMITTANCE, alpha * before, 0.0)
    features = torch.einsum("nhw,nc->chw", weights, gaussians.features[0, seen])
    return features, weights.sum(0, keepdim=True)


def rasterise(gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES) -> FeatureImage:
    """Same contract as `sdtalk.rendering.rasteriser.rasterise`, in the Gaussians' own precision.

    Memory is Gaussians x pixels x 10 or so: a few hundred Gaussians at 64 px.
    """
    check_batches(gaussians, camera)
    fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features)
    views = []
    for index in range(len(camera)):
        own = slice(index, index + 1) if gaussians.means.shape[0] > 1 else slice(0, 1)
        own_fields = Gaussians(*[field[own] for field in fields])
        views.append(_one_view(own_fields, camera[index : index + 1], rules))
    features, alpha = zip(*views, strict=True)
    return FeatureImage(torch.stack(features), torch.stack(alpha))
