"""CUDA rasteriser: launches the Triton kernels, behind a torch.autograd.Function.

All cameras of a call are one launch of each kernel. The host waits for the card once a call, to learn how many list
entries there are. Every sum has a fixed order, so pictures and gradients repeat to the bit on one card.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.rendering.rules import OUR_RULES, RasterRules
from sdtalk.rendering.triton import binning, blending, blending_backward, projection, projection_backward

BLOCK = 128
"""Gaussians that a program projects."""

CHUNK = 16
"""Splats that a program blends at a time."""

WARPS = 4
"""Of 32 threads, of a program that blends a tile: the fastest of 2, 4, 8 and 16; fewer spill the gradient's numbers."""

FILLED, STEPS = 64, 16
"""Gaussians whose list entries a program writes, and how many of each at a time."""

GATHERED = 16
"""Gaussians whose gradients a program adds up."""

MOST_SHORT_TILES = 2**15
"""So many tiles, over all cameras, are numbered by 16 bits, which are sorted in half the passes."""


@dataclass(frozen=True)
class Lists:
    """What the views show, tile by tile.

    Attributes:
        size: Width and height in px.
        splats: See `projection.project`.
        order: Gaussians of each camera, front to back.
        offsets: Where the slots of the splat of each rank begin.
        entries: Splats by tile, front to back.
        slots: Where each entry was before they were sorted by tile.
        starts: Where the entries of each tile begin.
    """

    size: tuple[int, int]
    splats: Float[Tensor, "view gaussian 8"]
    order: Int[Tensor, "view gaussian"]
    offsets: Int[Tensor, " ranks"]
    entries: Int[Tensor, " entry"]
    slots: Int[Tensor, " entry"]
    starts: Int[Tensor, " tiles"]


def _tile_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of tiles that cover an image."""
    return -(-size[0] // projection.TILE_WIDTH.value), -(-size[1] // projection.TILE_HEIGHT.value)


def _camera_rows(camera: Camera, dilation: float) -> Float[Tensor, "view 17"]:
    """Cameras in the kernels' terms, see `projection.CAMERA_SIZE`."""
    matrix, lens = camera.world_to_camera.double(), camera.intrinsics.double()
    pinhole = [lens[:, 0, 0], lens[:, 1, 1], lens[:, 0, 2], lens[:, 1, 2]]
    columns = torch.stack([*pinhole, torch.full_like(pinhole[0], dilation)], dim=1)
    return torch.cat([matrix[:, :3, :3].flatten(1), matrix[:, :3, 3], columns], dim=1)


def _set_stride(field: Tensor, views: int) -> int:
    """How far the Gaussians of the next camera lie from those of this one: 0 where all share one set."""
    return 0 if len(field) == 1 and views > 1 else field.shape[1]


def _project(
    geometry: tuple[Tensor, ...], cameras: Tensor, size: tuple[int, int], square: bool
) -> tuple[Tensor, ...]:
    """Splats, depths, tile ranges and counts."""
    means = geometry[0]
    views, count = len(cameras), means.shape[1]
    columns, rows = _tile_grid(size)
    splats = means.new_empty(views, count, projection.SPLAT_SIZE.value)
    depths = means.new_empty(views, count, dtype=torch.int32)
    ranges = means.new_empty(views, count, 4, dtype=torch.int16)
    counts = torch.empty_like(depths)
    out = splats, depths, ranges, counts
    where = count, _set_stride(means, views), *size, columns, rows
    projection.project[-(-count // BLOCK), views](
        *geometry, cameras, *out, *where, SQUARE=square, BLOCK=BLOCK
    )
    return out


def _lists(geometry: tuple[Tensor, ...], cameras: Tensor, size: tuple[int, int], square: bool) -> Lists:
    """Project, sort by depth, and list what every tile shows."""
    splats, depths, ranges, counts = _project(geometry, cameras, size, square)
    views, count = depths.shape
    columns, rows = _tile_grid(size)
    tiles = columns * rows
    order = depths.sort(dim=1, stable=True).indices
    offsets = order.new_zeros(views * count + 1)
    torch.cumsum(counts.gather(1, order).flatten(), 0, out=offsets[1:])
    total = int(offsets[-1])  # the one time that the host waits
    short = torch.int16 if views * tiles < MOST_SHORT_TILES else torch.int32
    numbers = offsets.new_empty(total, dtype=short)
    splat_numbers = offsets.new_empty(total, dtype=torch.int32)
    out = numbers, splat_numbers
    binning.fill_entries[-(-count // FILLED), views](
        order, offsets, ranges, *out, count, columns, tiles, BLOCK=FILLED, STEPS=STEPS
    )
    numbers, slots = numbers.sort(stable=True)
    edges = torch.arange(views * tiles + 1, device=numbers.device, dtype=torch.int32).to(short)
    starts = torch.searchsorted(numbers, edges)
    return Lists(size, splats, order, offsets, splat_numbers[slots], slots, starts)


def _matrix_unit(features: Tensor) -> dict[str, object]:
    """How the kernels multiply: channels rounded up, and float32 as three products of TF32 where a card has those."""
    precision = "ieee"
    if (
        features.is_cuda
        and torch.version.hip is None
        and torch.cuda.get_device_capability(features.device) >= (8, 0)
    ):
        precision = "tf32x3"
    channels = max(16, 1 << (features.shape[2] - 1).bit_length())
    return {"CHANNELS": channels, "CHUNK": CHUNK, "PRECISION": precision, "num_warps": WARPS}


def _blending(lists: Lists, features: Tensor, rules: RasterRules) -> tuple[object, ...]:
    """What both blending kernels take at the end."""
    columns, rows = _tile_grid(lists.size)
    views, count = lists.order.shape
    shared = _set_stride(features, views) == 0
    return count, shared, features.shape[2], *lists.size, columns, columns * rows, rules.max_alpha


def _blended(lists: Lists, features: Tensor, rules: RasterRules) -> tuple[Tensor, Tensor]:
    """Features [view, channel, height, width] and alpha [view, 1, height, width]."""
    views, (width, height) = len(lists.order), lists.size
    image = features.new_empty(views, features.shape[2], height, width)
    alpha = features.new_empty(views, 1, height, width)
    blending.blend[(len(lists.starts) - 1,)](
        lists.entries, lists.starts, lists.splats, features, image, alpha,
        *_blending(lists, features, rules), **_matrix_unit(features),
    )  # fmt: skip
    return image, alpha


def _splat_gradients(
    lists: Lists,
    features: Tensor,
    rules: RasterRules,
    images: tuple[Tensor, Tensor],
    grads: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Moments [view, gaussian, 8] and gradients of features [view, gaussian, channel]."""
    views, count = lists.order.shape
    channels, moment_columns = features.shape[2], blending_backward.MOMENTS.value
    slot_moments = features.new_zeros(len(lists.entries), moment_columns)
    slot_features = features.new_zeros(len(lists.entries), channels)
    matrix_unit = _matrix_unit(features)
    blending_backward.blend_backward[(len(lists.starts) - 1,)](
        lists.entries, lists.slots, lists.starts, lists.splats, features, *images, *grads,
        slot_moments, slot_features, *_blending(lists, features, rules), **matrix_unit,
    )  # fmt: skip
    moments = features.new_empty(views, count, moment_columns)
    grad_features = features.new_empty(views, count, channels)
    blending_backward.gather_slots[-(-count // GATHERED), views](
        lists.order, lists.offsets, slot_moments, slot_features, moments, grad_features, count, channels,
        MOMENT_COLUMNS=moment_columns, CHANNELS=matrix_unit["CHANNELS"], BLOCK=GATHERED,
    )  # fmt: skip
    return moments, grad_features


class _Rasterise(torch.autograd.Function):
    """Means, quats, scales, opacities and features to image and alpha, for all cameras."""

    @staticmethod
    def forward(ctx, cameras: Tensor, size: tuple[int, int], rules: RasterRules, *given: Tensor):  # type: ignore[override]
        lists = _lists(given[:4], cameras, size, rules.square_extent)
        images = _blended(lists, given[4], rules)
        ctx.lists, ctx.rules = lists, rules
        ctx.save_for_backward(cameras, *given, *images)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_image: Tensor, grad_alpha: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        cameras, *given, image, alpha = ctx.saved_tensors
        grads = grad_image.contiguous(), grad_alpha.contiguous()
        moments, grad_features = _splat_gradients(ctx.lists, given[4], ctx.rules, (image, alpha), grads)
        views, count = ctx.lists.order.shape
        out = [moments.new_empty(views, *field.shape[1:]) for field in given[:4]]
        projection_backward.project_backward[-(-count // BLOCK), views](
            *given[:4], cameras, ctx.lists.splats, moments, *out,
            count, _set_stride(given[0], views), *ctx.lists.size, BLOCK=BLOCK,
        )  # fmt: skip
        grads_of_views = zip((*out, grad_features), given, strict=True)
        return None, None, None, *(g.sum(0, keepdim=True) if len(x) == 1 else g for g, x in grads_of_views)


def rasterise(
    gaussians: Gaussians, camera: Camera, rules: RasterRules = OUR_RULES
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch 1 height width"]]:
    """Features and alpha; contract and semantics in `sdtalk.rendering.rules`.

    Args:
        gaussians: On the card, or on the CPU under TRITON_INTERPRET=1.
        camera: Beside them.
        rules: Both sets are followed.
    """
    features = gaussians.features
    if features.stride(0) == 0:  # a head that moves repeats them for every camera
        features = features[:1]
    geometry = gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities
    given = [field.float().contiguous() for field in (*geometry, features)]
    size = camera.width, camera.height
    if given[0].shape[1] == 0:  # nothing to launch, but gradients of the right shape
        shape = len(camera), given[4].shape[2], camera.height, camera.width
        nothing = sum(field.sum() for field in given)
        return given[4].new_zeros(shape) + nothing, given[4].new_zeros(shape)[:, :1] + nothing
    return _Rasterise.apply(_camera_rows(camera, rules.dilation), size, rules, *given)
