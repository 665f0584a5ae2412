"""Tests of the box filter."""

import pytest
import torch

from sdtalk.box_filter import window_means


@pytest.mark.parametrize(("shape", "radius"), [((9, 14), 2), ((5, 6), 7)])
def test_window_means_are_those_of_loops(shape: tuple[int, int], radius: int) -> None:
    x = torch.rand(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    slow = torch.empty_like(x)
    for i in range(shape[0]):
        for j in range(shape[1]):
            window = x[..., max(i - radius, 0) : i + radius + 1, max(j - radius, 0) : j + radius + 1]
            slow[..., i, j] = window.mean((2, 3))
    torch.testing.assert_close(window_means(x, radius), slow)
