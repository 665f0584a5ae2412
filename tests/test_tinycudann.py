"""Tests of the tinycudann backend: same numbers as plain PyTorch, by an emulation of its grid, and on CUDA."""

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from sdtalk.motion import hash_encoding, tinycudann_backend
from sdtalk.motion.hash_encoding import PlaneHashEncoding, TriplaneHashEncoding

POINTS, OUTSIDE = 3000, 200
SIZES = {"paper": (12, 16, 512 * 1.15, 17), "toy": (5, 4, 40, 6)}


class EmulatedEncoding(nn.Module):
    """tinycudann's grid encoding of two dimensions, written from its sources, kernel by kernel and in no hurry."""

    def __init__(self, dimensions: int, config: dict, dtype: torch.dtype) -> None:
        super().__init__()
        assert dimensions == 2 and dtype == torch.float32
        assert config["otype"] == "Grid" and config["interpolation"] == "Linear"
        self.config, self.offsets = config, [0]
        for level in range(config["n_levels"]):
            rows = math.ceil(self.resolution(level) ** 2 / 8) * 8
            if config["type"] == "Hash":
                rows = min(rows, 2 ** config["log2_hashmap_size"])
            self.offsets.append(self.offsets[-1] + rows)
        self.params = nn.Parameter(torch.full((self.offsets[-1],), math.nan))

    def scale(self, level: int) -> float:
        growth = 2.0 ** (level * math.log2(self.config["per_level_scale"]))
        return growth * self.config["base_resolution"] - 1

    def resolution(self, level: int) -> int:
        return math.ceil(self.scale(level)) + 1

    def forward(self, points: Tensor) -> Tensor:
        assert self.params.shape == (self.offsets[-1],), "the library refuses parameters of another size"
        levels = range(self.config["n_levels"])
        return torch.stack([self.level(points, level) for level in levels], dim=-1)

    def level(self, points: Tensor, level: int) -> Tensor:
        # A fused multiply-add rounds once: float64 holds the product of two float32 exactly.
        position = (points.double() * self.scale(level) + 0.5).float()
        fraction, total = position - position.floor(), torch.zeros(len(points))
        for corner in range(4):
            weight, cell = torch.ones(len(points)), []
            for axis in range(2):
                upper = corner >> axis & 1
                weight = weight * (fraction[:, axis] if upper else 1 - fraction[:, axis])
                cell.append(position[:, axis].floor().long() + upper)
            total = total + weight * self.params[self.offsets[level] + self.row(cell, level)]
        return total

    def row(self, cell: list[Tensor], level: int) -> Tensor:
        rows, stride = self.offsets[level + 1] - self.offsets[level], self.resolution(level)
        index = cell[0] + cell[1] * stride
        if self.config["type"] == "Hash" and rows < stride**2:
            assert self.config["hash"] == "CoherentPrime"
            index = (cell[0] * 1 ^ cell[1] * 2654435761) & 0xFFFFFFFF
        return index % rows


@pytest.fixture
def fresh():
    """Nothing remembered of a library that another test found, or did not."""
    caches = tinycudann_backend.library, tinycudann_backend._grid
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def through_tinycudann(monkeypatch: pytest.MonkeyPatch, fresh) -> None:
    """`PlaneHashEncoding` on the CPU takes the way that it takes on CUDA, to the emulation."""
    library = ModuleType("tinycudann")
    library.Encoding = EmulatedEncoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tinycudann", library)
    monkeypatch.setattr(hash_encoding, "_encode_level", tinycudann_backend.encode_level)


def plane(size: str) -> PlaneHashEncoding:
    encoding = PlaneHashEncoding(*SIZES[size])
    nn.init.normal_(encoding.embeddings, std=0.5, generator=torch.Generator().manual_seed(0))
    return encoding


def points() -> Tensor:
    """Random ones, corners and edges of the square, borders and middles of cells, and some outside."""
    unit = torch.rand(POINTS, 2, generator=torch.Generator().manual_seed(1))
    unit[:9] = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 2)
    unit[9:209, 0] = torch.arange(200) / 200
    unit[209:240] = (torch.arange(31)[:, None] / 30).expand(-1, 2)  # level 0 has 15 cells on a side
    unit[-OUTSIDE:] = 3 * unit[-OUTSIDE:] + torch.tensor([1.001, -2.0])
    return unit


def code_and_gradient(encoding: PlaneHashEncoding) -> tuple[Tensor, Tensor]:
    code = encoding(points())
    weights = torch.randn(code.shape, generator=torch.Generator().manual_seed(2))
    return code, torch.autograd.grad((code * weights).sum(), encoding.embeddings)[0]


@pytest.mark.parametrize("size", SIZES)
def test_tables_handed_over_give_our_numbers(size: str, request: pytest.FixtureRequest) -> None:
    encoding = plane(size)
    dense = [(r + 1) ** 2 <= 2 ** SIZES[size][3] for r in encoding.resolutions]
    assert any(dense) and not all(dense)
    code, gradient = code_and_gradient(encoding)
    request.getfixturevalue("through_tinycudann")
    their_code, their_gradient = code_and_gradient(encoding)
    assert tinycudann_backend._grid.cache_info().misses > 0
    torch.testing.assert_close(their_code, code, atol=1e-6, rtol=0)
    torch.testing.assert_close(their_gradient, gradient, atol=1e-5, rtol=1e-5)
    assert not their_code[-OUTSIDE:].any() and their_code[:-OUTSIDE].all()


def test_an_absent_library_is_not_used(monkeypatch: pytest.MonkeyPatch, fresh) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    assert tinycudann_backend.library() is None


def test_a_broken_library_is_not_used_and_said_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh
) -> None:
    (tmp_path / "tinycudann.py").write_text("raise OSError('Unknown compute capability')")
    monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="Unknown compute capability.*plain PyTorch"):
        assert tinycudann_backend.library() is None


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and importlib.util.find_spec("tinycudann")),
    reason="needs a CUDA device and tinycudann",
)
def test_the_library_equals_plain_pytorch() -> None:
    encoding = TriplaneHashEncoding()
    nn.init.normal_(encoding.xy.embeddings, std=0.5)
    positions = torch.rand(POINTS, 3, generator=torch.Generator().manual_seed(1)) * 2.6 - 1.3  # some outside
    results = []
    for device in ("cpu", "cuda"):
        code = encoding.to(device)(positions.to(device))
        weights = torch.linspace(-1, 1, code.numel()).reshape(code.shape).to(device)
        (grad,) = torch.autograd.grad((code * weights).sum(), encoding.xy.embeddings)
        results.append((code.detach().cpu(), grad.cpu()))
    assert tinycudann_backend.library() is not None
    torch.testing.assert_close(results[1][0], results[0][0], atol=1e-5, rtol=0)
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-4, rtol=1e-4)
