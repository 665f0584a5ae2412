"""Tests of how StyleUNet resizes on a GPU: against PyTorch's bilinear interpolation."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton has no package for this system")
from sdtalk.rendering.triton.resizing import doubled  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = [pytest.mark.gpu] if DEVICE == "cuda" else []


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 7), (3, 32, 8, 5), (1, 70, 16, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_doubling_is_bilinear(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = images(*shape, dtype=dtype)
    expected = F.interpolate(x.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        found = doubled(given)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
        rounding = 1e-6 if dtype == torch.float32 else 2**-7  # the interpreter cuts off what a card rounds
        torch.testing.assert_close(found.float(), expected, atol=rounding, rtol=rounding)


def test_halving_is_the_mean_of_four() -> None:
    x = images(2, 5, 8, 12)
    bilinear = F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)
    torch.testing.assert_close(F.avg_pool2d(x, 2), bilinear, atol=1e-6, rtol=1e-6)
