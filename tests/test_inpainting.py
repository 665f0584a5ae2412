"""Tests of inpainting: what is known stays, stripes go on, textures stay sharp, and nothing comes out of the hole."""

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sdtalk.inpainting import REACH_PX, SHARP_PX, continued, nearest_known


def noise(size: int = 160, seed: int = 0) -> Float[Tensor, "1 3 size size"]:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hole_in_the_middle(size: int = 160, side: int = 100) -> Bool[Tensor, "size size"]:
    known = torch.ones(size, size, dtype=torch.bool)
    start = (size - side) // 2
    known[start : start + side, start : start + side] = False
    return known


@pytest.mark.parametrize(("reach", "share"), [(5, 0.02), (12, 0.005), (12, 0.5)])
def test_the_nearest_known_pixel_is_that_of_brute_force(reach: int, share: float) -> None:
    known = torch.rand(40, 37, generator=torch.Generator().manual_seed(reach)) < share
    found = nearest_known(known, reach)
    cells = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(37.0), indexing="ij"), -1)
    brute = torch.cdist(cells.reshape(-1, 2), cells[known]).amin(1).reshape(40, 37)
    within = brute <= reach
    assert torch.equal(found.distance.isfinite(), within) and known[found.row, found.column][within].all()
    torch.testing.assert_close(found.distance[within], brute[within])
    there = torch.stack([found.row, found.column], -1).float()
    torch.testing.assert_close((there - cells).norm(dim=-1)[within], brute[within])


def test_known_pixels_stay_as_they_are() -> None:
    image, known = noise(), hole_in_the_middle()
    result = continued(image, known)
    assert torch.equal(result[..., known], image[..., known])
    assert 0 <= result.min() and result.max() <= 1


def test_what_is_in_the_hole_is_never_looked_at() -> None:
    image, known = noise(), hole_in_the_middle()
    other = torch.where(known, image, noise(seed=1))
    torch.testing.assert_close(continued(image, known), continued(other, known))


def test_stripes_across_a_straight_edge_go_on() -> None:
    rows = torch.arange(160) // 4 % 2
    image = rows.float()[:, None].expand(1, 3, 160, 160).contiguous()
    known = torch.ones(160, 160, dtype=torch.bool)
    known[:, 70:] = False
    result = continued(image, known)
    inner = slice(20, 140)
    assert (result - image)[..., inner, 70 : 70 + SHARP_PX - 1].abs().max() < 0.05


def test_texture_is_as_sharp_as_around_it_and_ends_within_reach() -> None:
    known = hole_in_the_middle(320, 220)
    result = continued(noise(320), known)
    depth = nearest_known(known, 110).distance
    near, far = (result[0, 0][(depth > a) & (depth <= b)].std() for a, b in ((1, 20), (REACH_PX + 1, 110)))
    own = result[0, 0][known].std()
    assert near > 0.75 * own and far < 0.1 * own


def test_without_a_hole_or_without_anything_known() -> None:
    image = noise(64)
    assert torch.equal(continued(image, torch.ones(64, 64, dtype=torch.bool)), image)
    assert torch.allclose(continued(image, torch.zeros(64, 64, dtype=torch.bool)), torch.tensor(0.5))
