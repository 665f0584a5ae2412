"""Tests of matting: parts against slow references; islands, holes and outlines as a person's mask should have them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.ndimage import label
from torch import Tensor

from sdtalk.box_filter import window_means
from sdtalk.reconstruction.reconstructor import foreground
from sdtalk.tracking.matting import connected, doubt, guided_filter, one_person, refined_masks


def disc(
    size: int = 128, radius: float = 40.0, dx: float = 0.0, dy: float = 0.0
) -> Float[Tensor, "1 1 size size"]:
    """A disc with an edge of a pixel."""
    axis = torch.arange(size) - size / 2
    distance = ((axis - dx).square() + (axis[:, None] - dy).square()).sqrt()
    return (radius - distance + 0.5).clamp(0, 1)[None, None]


def middle(like: Tensor) -> Tensor:
    seeds = torch.zeros_like(like, dtype=torch.bool)
    seeds[..., like.shape[-2] // 2, like.shape[-1] // 2] = True
    return seeds


def test_guided_filter_is_that_of_the_paper() -> None:
    """Every window fits by ridge regression, at half the resolution; means of the fits, applied at the full one."""
    draw = torch.Generator().manual_seed(0)
    guide, values = torch.rand(1, 3, 20, 16, generator=draw), torch.rand(1, 1, 20, 16, generator=draw)
    small, wanted = (F.avg_pool2d(x, 2)[0].double().numpy() for x in (guide, values))
    lines = np.zeros((4, 10, 8))
    for i in range(10):
        for j in range(8):
            window = (slice(None), slice(max(i - 2, 0), i + 3), slice(max(j - 2, 0), j + 3))
            colours, targets = small[window].reshape(3, -1), wanted[window].reshape(-1)
            covariance = np.cov(colours, bias=True) + 1e-2 * np.eye(3)
            slope = np.linalg.solve(
                covariance, (colours * targets).mean(1) - colours.mean(1) * targets.mean()
            )
            lines[:, i, j] = *slope, targets.mean() - slope @ colours.mean(1)
    mean = window_means(torch.from_numpy(lines)[None].float(), 2)
    line = F.interpolate(mean, (20, 16), mode="bilinear")
    slow = (line[:, :3] * guide).sum(1, keepdim=True) + line[:, 3:]
    torch.testing.assert_close(guided_filter(guide, values, 4, 1e-2), slow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7])
def test_connected_parts_are_those_of_scipy(share: float) -> None:
    area = torch.rand(2, 1, 40, 30, generator=torch.Generator().manual_seed(1)) < share
    seeds = torch.rand(area.shape, generator=torch.Generator().manual_seed(2)) < 0.01
    for mine, a, s in zip(connected(area, seeds), area, seeds, strict=True):
        numbers, _ = label(a[0].numpy())
        wanted = np.isin(numbers, np.unique(numbers[s[0].numpy() & a[0].numpy()]))
        assert np.array_equal(mine[0].numpy(), wanted)


def test_other_people_and_islands_are_background() -> None:
    person = disc()
    thread = torch.zeros_like(person)
    thread[..., 60:68, 100:] = 1
    other = disc(radius=12, dx=50, dy=50)
    mask = torch.maximum(torch.maximum(person, other), thread)
    found = one_person(mask, middle(mask))
    assert not found[other > 0].any() and not found[..., 120:].any() and found[person > 0.5].all()
    assert torch.equal(one_person(mask, torch.zeros_like(found)), mask > 0.5), (
        "without seeds everybody is kept"
    )


def test_doubtful_holes_are_filled_and_clear_ones_stay() -> None:
    doubtful, clear = disc(radius=10, dx=-18), disc(radius=10, dx=18)
    mask = disc() * (1 - 0.7 * doubtful) * (1 - clear)
    found = one_person(mask, middle(mask))
    assert found[doubtful > 0.5].all() and not found[clear == 1].any()


def test_the_outline_is_the_pictures_not_the_masks() -> None:
    truth = disc()
    texture = 0.1 * torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    picture = texture + truth * torch.tensor([0.7, 0.3, 0.2])[:, None, None] + (1 - truth) * 0.1
    rough = F.avg_pool2d(F.pad(disc(dx=3, dy=-2), (5,) * 4), 11, 1)
    refined = refined_masks(picture, rough, middle(rough))
    assert refined.min() == 0 and refined.max() == 1
    assert (refined - truth).abs().mean() < 0.3 * (rough - truth).abs().mean()
    both = refined_masks(
        picture.expand(2, -1, -1, -1), torch.cat([truth, rough]), middle(rough).expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(both[1:], refined)


def test_nobody_and_only_a_person_stay_what_they_are() -> None:
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for share in (0.0, 1.0):
        mask = torch.full((1, 1, 64, 64), share)
        assert (refined_masks(picture, mask, middle(mask)) == share).all()


def test_colours_at_the_outline_are_the_persons_own() -> None:
    share = F.avg_pool2d(F.pad(disc(), (4,) * 4), 9, 1)
    red, blue = torch.tensor([0.8, 0.1, 0.1])[:, None, None], torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    colours = foreground(share * red + (1 - share) * blue, share)
    assert (colours - red).abs().max() < 0.05


def test_doubt_is_the_share_of_what_may_be_either() -> None:
    mask = torch.zeros(2, 1, 10, 10)
    mask[0, 0, :, :4], mask[0, 0, :, 4:6] = 1.0, 0.6
    assert doubt(mask).tolist() == pytest.approx([20 / 60, 0.0])
