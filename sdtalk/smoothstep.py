"""Smoothstep: from 0 to 1 without a corner, for everything that fades (cubic Hermite, as in shading languages)."""

from torch import Tensor


def smoothstep(x: Tensor) -> Tensor:
    """0 up to 0, 1 from 1 on, smooth between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def smoothly(x: Tensor, low: float | int, high: float | int) -> Tensor:
    """0 up to `low`, 1 from `high` on, smooth between."""
    return smoothstep((x - low) / (high - low))
