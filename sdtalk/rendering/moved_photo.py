"""Moved photo: the photo drawn on the moved face mesh or through affine maps, and signed distances to a face's lines.

Lips and lids stay whole however far they open or close, since a triangle's corners move together; Gaussians lifted from
single pixels tear there.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.reconstruction.mesh_raster import draw_mesh


def _pixels(photo: Float[Tensor, "photo 3 height width"]) -> np.ndarray:
    """[photo, height, width, 4] as kernels sample it: a pixel is one load."""
    return _array(F.pad(photo.permute(0, 2, 3, 1), (0, 1)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()


def moved_photo(
    photo: Float[Tensor, "photo 3 height width"],
    photo_xy: Float[Tensor, "window point 2"],
    xy: Float[Tensor, "window point 2"],
    heights: Float[Tensor, "window point"],
    triangles: Int[Tensor, "triangle 3"],
    size: int,
) -> tuple[Float[Tensor, "window 3 size size"], Float[Tensor, "window 1 size size"]]:
    """Draw photos on moved meshes; without gradients. Compiled on the CPU and on CUDA, plain PyTorch elsewhere.

    Sampling is bicubic, since bilinear sampling takes a tenth of a photo's sharpness; it may go a little beyond [0, 1].

    Args:
        photo: RGB; where there are fewer than windows, each is that of as many windows in a row.
        photo_xy: The mesh in px of the photo.
        xy: The moved mesh in px of the window.
        heights: Of the points towards the camera; the highest triangle wins a pixel.
        triangles: The mesh's triangles.
        size: Side of the window in px.

    Returns:
        The drawn picture, zero where there is no mesh, and 1 where there is.
    """
    if photo.device.type == "cuda":
        from sdtalk.rendering.triton import face_window as on_cuda

        return on_cuda.moved_photo(photo, photo_xy, xy, heights, triangles, size)
    if photo.device.type != "cpu":
        return moved_photo_reference(photo, photo_xy, xy, heights, triangles, size)
    from sdtalk.rendering.cpu import backend, face_window

    count = len(xy)
    drawn, shown = torch.zeros(count, 3, size, size), torch.zeros(count, 1, size, size)
    inputs = [_pixels(photo), *(_array(x) for x in (photo_xy, xy, heights))]
    backend.spread(
        face_window.draw_photo,
        count,
        *inputs,
        triangles.numpy(),
        drawn.numpy(),
        shown[:, 0].numpy(),
        chunks=1,
    )
    return drawn, shown


@torch.no_grad()
def moved_photo_reference(
    photo: Tensor, photo_xy: Tensor, xy: Tensor, heights: Tensor, triangles: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """`moved_photo` in plain PyTorch, on any device."""
    span = photo.new_tensor([photo.shape[3], photo.shape[2]])
    photo = photo.repeat_interleave(len(xy) // len(photo), 0)
    pictures, masks = [], []
    for one, source, points, height in zip(photo, photo_xy, xy, heights, strict=True):
        drawn = draw_mesh(points, height, source, triangles, size)
        grid = drawn.values.permute(1, 2, 0)[None] / span * 2 - 1
        shown = (drawn.triangle >= 0).to(photo)[None]
        sampled = F.grid_sample(one[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[
            0
        ]
        pictures.append(sampled * shown)
        masks.append(shown)
    return torch.stack(pictures), torch.stack(masks)


def affine_photo(
    photo: Float[Tensor, "photo 3 height width"], maps: Float[Tensor, "window 2 3"], size: int
) -> Float[Tensor, "window 3 size size"]:
    """Draw photos through affine maps, bicubically; without gradients, border colours continue.

    Args:
        photo: RGB, as for `moved_photo`.
        maps: From (x, y, 1) in px of the window to px of the photo.
        size: Side of the window in px.
    """
    if photo.device.type == "cuda":
        from sdtalk.rendering.triton import face_window as on_cuda

        return on_cuda.affine_photo(photo, maps, size)
    if photo.device.type != "cpu":
        return affine_photo_reference(photo, maps, size)
    from sdtalk.rendering.cpu import backend, face_window

    out = torch.empty(len(maps), 3, size, size)
    backend.spread(face_window.draw_affinely, len(maps), _pixels(photo), _array(maps), out.numpy(), chunks=1)
    return out


@torch.no_grad()
def affine_photo_reference(photo: Tensor, maps: Tensor, size: int) -> Tensor:
    """`affine_photo` in plain PyTorch, on any device."""
    steps = torch.arange(size, device=photo.device) + 0.5
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    xy = torch.stack([x, y, torch.ones_like(x)], -1) @ maps[:, None].mT
    grid = xy / xy.new_tensor([photo.shape[3], photo.shape[2]]) * 2 - 1
    photo = photo.repeat_interleave(len(maps) // len(photo), 0)
    return F.grid_sample(photo, grid, mode="bicubic", padding_mode="border", align_corners=False)


def polygon_distance(
    corners: Float[Tensor, "polygon corner 2"], size: int
) -> Float[Tensor, "polygon 1 size size"]:
    """Signed distance of pixels to closed polygons, px, negative inside; measured at every second pixel."""
    if corners.device.type == "cpu":
        from sdtalk.rendering.cpu import backend, face_window

        half = torch.empty(len(corners), size // 2, size // 2)
        backend.spread(face_window.polygon_distance, len(corners), _array(corners), half.numpy(), chunks=1)
    elif corners.device.type == "cuda":
        from sdtalk.rendering.triton import face_window as on_cuda

        half = on_cuda.polygon_distance(corners, size)
    else:
        half = polygon_distance_reference(corners, size)
    return F.interpolate(half[:, None], scale_factor=2.0, mode="bilinear", align_corners=False)


@torch.no_grad()
def polygon_distance_reference(
    corners: Float[Tensor, "polygon corner 2"], size: int
) -> Float[Tensor, "polygon half half"]:
    """The kernel of `polygon_distance` in plain PyTorch: at every second pixel only."""
    steps = torch.arange(size // 2, device=corners.device) * 2.0 + 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    p = torch.stack([x, y], -1).reshape(1, -1, 1, 2)
    a, b = corners[:, None], corners.roll(-1, 1)[:, None]
    along, to = b - a, p - a
    t = ((to * along).sum(-1) / along.square().sum(-1).clamp_min(1e-6)).clamp(0, 1)
    distance = (to - t[..., None] * along).square().sum(-1).amin(-1).sqrt()
    crosses = (a[..., 1] > p[..., 1]) != (b[..., 1] > p[..., 1])
    left = to[..., 0] * along[..., 1].square() < along[..., 0] * to[..., 1] * along[..., 1]
    signed = torch.where((crosses & left).sum(-1) % 2 == 1, -distance, distance)
    return signed.reshape(-1, size // 2, size // 2)
