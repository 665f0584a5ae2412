"""CPU rasteriser: runs the compiled kernels on a pool of threads, behind a torch.autograd.Function.

Kernels release the GIL and take a range of their work, so plain Python threads drive them: no OpenMP (which spins
while others want the cores) and no thread-unsafe layer. Calls from several threads may overlap.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.cpu import backward, binning, forward, projection, simd
from sdtalk.rendering.rules import OUR_RULES, RasterRules

CHUNKS_PER_THREAD = 16
"""Pieces of work per thread, so that a busy core does not hold the others up."""


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rasteriser")


if hasattr(os, "register_at_fork"):  # a forked child has no threads of its parent's pool
    os.register_at_fork(after_in_child=_pool.cache_clear)


def spread(kernel: Callable[..., None], count: int, *args: object, chunks: int = CHUNKS_PER_THREAD) -> None:
    """Run kernel(first, last, *args) over parts of range(count), on as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1:
        kernel(0, count, *args)
        return
    edges = np.linspace(0, count, threads * chunks + 1).astype(int).tolist()
    parts = [part for part in itertools.pairwise(edges) if part[0] < part[1]]
    for future in [_pool(threads).submit(kernel, *part, *args) for part in parts]:
        future.result()


@dataclass(frozen=True)
class PreparedView:
    """One camera in the kernels' terms, and the lists built for it."""

    pose: tuple[np.ndarray, np.ndarray]
    lens: tuple[float, float, float, float]
    size: tuple[int, int]
    max_alpha: np.float32
    splats: np.ndarray
    entries: np.ndarray
    starts: np.ndarray
    slots: np.ndarray

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return _tile_grid(self.size)[0]

    def blending(self, features: np.ndarray) -> tuple[object, ...]:
        """What both blending kernels take after their range; features padded."""
        lists = self.splats, self.splats.view(np.int16), features, self.entries, self.starts
        return self.columns, self.size, self.max_alpha, *lists


def _tile_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of tiles that cover an image."""
    return -(-size[0] // projection.TILE_WIDTH), -(-size[1] // projection.TILE_HEIGHT)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float32).contiguous().numpy()


def _padded(features: Tensor, block: int = simd.BLOCK) -> np.ndarray:
    """[N, C] features, zero-padded to whole vectors; not copied where they are that already."""
    missing = -features.shape[1] % block
    return _array(F.pad(features, (0, missing)) if missing else features)


def padded_few(features: Tensor) -> np.ndarray:
    """The same for few channels; a head that stays is padded once."""
    return _padded(features, simd.NARROW_BLOCK)


def prepared(
    geometry: tuple[np.ndarray, ...], camera: Camera, rules: RasterRules = OUR_RULES
) -> PreparedView:
    """Project, sort and bin. Geometry: means, quats, scales, opacities; one camera."""
    count = len(geometry[0])
    matrix, intrinsics = camera.world_to_camera[0].double(), camera.intrinsics[0]
    pose = matrix[:3, :3].contiguous().numpy(), matrix[:3, 3].contiguous().numpy()
    fx, fy, cx, cy = (float(intrinsics[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    size = camera.width, camera.height
    splats = np.empty((count, projection.SPLAT_SIZE), np.float32)
    keys, tiles = np.empty(count, np.uint32), np.empty((count, 4), np.int16)
    lens = fx, fy, cx, cy
    out = splats, splats.view(np.int16), keys, tiles
    spread(projection.project, count, *geometry, pose, lens, size, rules.dilation, rules.square_extent, *out)
    return PreparedView(
        pose, lens, size, np.float32(rules.max_alpha), splats, *_bin(_by_depth(keys), tiles, size)
    )


def _by_depth(keys: np.ndarray) -> np.ndarray:
    """Which Gaussians can be seen, front to back, ties by index; keys from `projection.project`.

    Two stable sorts by 16 bits each, which NumPy does by counting, take a quarter of the time of one of all.
    """
    order = (keys != projection.HIDDEN).nonzero()[0]
    for half in (0, 16):
        order = order[np.argsort((keys[order] >> half).astype(np.uint16), kind="stable")]
    return order


def _bin(order: np.ndarray, tiles: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Lists of the tiles: entries, starts, slots; see `binning`."""
    columns, rows = _tile_grid(size)
    slots = np.zeros(len(tiles) + 1, np.int64)
    spans = tiles.astype(np.int64)
    np.cumsum((spans[:, 1] - spans[:, 0]) * (spans[:, 3] - spans[:, 2]), out=slots[1:])
    starts = np.zeros(columns * rows + 1, np.int64)
    spread(binning.count_entries, rows, order, tiles, columns, starts, chunks=1)
    np.cumsum(starts, out=starts)
    entries = np.empty((int(starts[-1]), 2), np.int32)
    spread(binning.fill_entries, rows, order, tiles, columns, slots, starts, entries, chunks=1)
    return entries, starts, slots


def blended(
    view: PreparedView, features: Tensor, out: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Blend what a view shows.

    Args:
        view: From `prepared`.
        features: By Gaussian, [gaussian, channel].
        out: Where to write, perhaps fewer channels; None: new tensors.

    Returns:
        Features [channel, height, width] and alpha [1, height, width].
    """
    width, height = view.size
    if out is None:
        out = torch.empty(features.shape[1], height, width), torch.empty(1, height, width)
    image, alpha = out
    rows = padded_few(features) if features.shape[1] <= simd.NARROW_BLOCK else _padded(features)
    spread(forward.blend, len(view.starts) - 1, *view.blending(rows), image.numpy(), alpha[0].numpy())
    return out


def _backward(
    view: PreparedView, geometry: tuple[np.ndarray, ...], features: Tensor, images: tuple, grad_images: tuple
) -> list[Tensor]:
    padded = _padded(features)
    entries = len(view.entries)
    slots = (
        np.zeros(entries, np.uint8),
        np.empty((entries, backward.MOMENTS), np.float32),
        np.empty((entries, padded.shape[1]), np.float32),
    )
    args = images, grad_images, slots
    spread(backward.blend_backward, len(view.starts) - 1, *view.blending(padded), *args)
    count = len(features)
    moments = np.zeros((count, backward.MOMENTS), np.float32)
    grad_features = np.zeros(features.shape, np.float32)
    spread(backward.gather_slots, count, view.slots, slots, moments, grad_features)
    grads = tuple(np.zeros_like(array) for array in geometry)
    fixed = view.pose, view.lens, view.size, view.splats, moments
    spread(projection.project_backward, count, *geometry, *fixed, grads)
    return [torch.from_numpy(array) for array in (*grads, grad_features)]


class _Rasterise(torch.autograd.Function):
    """One set of Gaussians, one camera: means, quats, scales, opacities, features to image and alpha."""

    @staticmethod
    def forward(ctx, camera: Camera, rules: RasterRules, *fields: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        view = prepared(tuple(_array(field) for field in fields[:4]), camera, rules)
        image, alpha = blended(view, fields[4])
        ctx.view = view
        ctx.save_for_backward(*fields, image, alpha)
        return image, alpha

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image: Tensor, grad_alpha: Tensor) -> tuple[Tensor | None, ...]:
        *fields, image, alpha = ctx.saved_tensors
        geometry = tuple(_array(field) for field in fields[:4])
        images = image.numpy(), alpha[0].numpy()
        grad_images = _array(grad_image), _array(grad_alpha)[0]
        grads = _backward(ctx.view, geometry, fields[4], images, grad_images)
        return None, None, *(grad.to(field.dtype) for grad, field in zip(grads, fields, strict=True))


def rasterise(gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES) -> tuple[Tensor, Tensor]:
    """Features and alpha; contract and semantics in `sdtalk.rendering.rules`."""
    fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, gaussians.features)
    shared = gaussians.means.shape[0] == 1
    views = []
    for index in range(len(camera)):
        own = [field[0 if shared else index] for field in fields]
        views.append(_Rasterise.apply(camera[index : index + 1], rules, *own))
    images, alphas = zip(*views, strict=True)
    return _batched(images), _batched(alphas)


def contributions(gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES) -> Tensor:
    """How much every Gaussian contributes to a picture: its weights, summed up over the pixels.

    Args:
        gaussians: One set.
        camera: One view.
        rules: As for `rasterise`.

    Returns:
        [gaussian]
    """
    fields = (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities)
    view = prepared(tuple(_array(field[0]) for field in fields), camera, rules)
    totals = np.zeros(len(view.entries) + 1, np.float32)
    nothing = np.empty((0, simd.BLOCK), np.float32)
    spread(forward.sum_weights, len(view.starts) - 1, *view.blending(nothing), totals)
    return torch.from_numpy(np.add.reduceat(totals, view.slots[:-1]) * (view.slots[1:] > view.slots[:-1]))


def _batched(images: tuple[Tensor, ...]) -> Tensor:
    """Stack; a single image, 32 MB of features for a frame, is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(images)
