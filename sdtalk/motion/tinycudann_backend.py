"""tinycudann backend: one level of the hash encoding on CUDA kernels, where that library is installed.

Our tables, which are the published ones, stay where they are and keep their layout; a level is handed to tinycudann as
a grid of its own, in which it computes the same. There, at the first level of a grid,

    position = fma(side - 1, input, 0.5), side = base_resolution;
    row = x + y * side in a dense grid of side^2 rows, else (x xor y * 2654435761 mod 2^32) mod the table's size.

Ours has position = unit * scale + 0.5, and rows of resolution + 1 in a dense grid. So `side - 1` becomes a power of two
of at least the resolution: dividing unit * scale by it and multiplying again loses nothing, the positions are equal to
the bit. A dense table gets its rows padded to that side; a hashed one, whose rows do not depend on the side, is handed
over as it is.

Parameters and results are float32 on request. In half precision, tinycudann's preference, they would be off by up to
9e-4 for a table of standard deviation 0.5 (half of that from the table alone, 2e-4 relative on average), and by 3e-4
relative for one that is not trained yet. Gradients of the table are float32 sums by atomic additions, as PyTorch's own
are on CUDA, so training is the same up to the order of these sums.
"""

import functools
import math
import threading
import warnings
from types import ModuleType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_ALIGNMENT = 8
"""tinycudann rounds tables up to a multiple of this many rows."""

_lock = threading.Lock()
"""Grids are shared by all tables of one shape, and lent a table for the length of a call."""


@functools.cache
def library() -> ModuleType | None:
    """The module tinycudann, or None where it is not installed or cannot be used."""
    try:
        import tinycudann
    except ModuleNotFoundError:
        return None
    except Exception as error:  # OSError, NameError or what its extension raises
        warnings.warn(f"tinycudann cannot be used ({error}): hash encoding in plain PyTorch", stacklevel=2)
        return None
    return tinycudann


@functools.cache
def _grid(side: int, log2_rows: int | None, device: torch.device) -> nn.Module:
    """A grid of one level in two dimensions, dense without `log2_rows`, on the current device, which is `device`."""
    tinycudann = library()
    assert tinycudann is not None
    config: dict[str, object] = {
        "otype": "Grid",
        "type": "Dense" if log2_rows is None else "Hash",
        "hash": "CoherentPrime",
        "n_levels": 1,
        "n_features_per_level": 1,
        "base_resolution": side,
        "per_level_scale": 2.0,
        "interpolation": "Linear",
    }
    if log2_rows is not None:
        config["log2_hashmap_size"] = log2_rows
    return tinycudann.Encoding(2, config, dtype=torch.float32)


def encode_level(
    unit: Float[Tensor, "point 2"], table: Float[Tensor, "row 1"], scale: float, resolution: int
) -> Float[Tensor, "point 1"]:
    """Interpolate a level's table; call only where `library` returns one.

    Args:
        unit: Positions in [0, 1]^2, on CUDA, without a gradient.
        table: The level's rows in the layout of `PlaneHashEncoding`, on the same device.
        scale: Cells on a side of the unit square.
        resolution: ceil(scale) + 1.

    Returns:
        What `PlaneHashEncoding` computes for this level, with a gradient to the table.
    """
    cells = 2 ** math.ceil(math.log2(resolution))
    values = table[:, 0].float()
    log2_rows = None
    if (resolution + 1) ** 2 <= len(values):
        missing = cells - resolution
        square = values[: (resolution + 1) ** 2].reshape(resolution + 1, resolution + 1)
        values = F.pad(square, (0, missing, 0, missing)).flatten()
        values = F.pad(values, (0, -len(values) % _ALIGNMENT))
    else:
        log2_rows = int(math.log2(len(values)))
    with torch.cuda.device_of(unit), _lock:
        grid = _grid(cells + 1, log2_rows, unit.device)
        return torch.func.functional_call(grid, {"params": values}, (unit * scale / cells,))
