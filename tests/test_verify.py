"""Tests of `sdtalk convert --verify`: what it measures, and that it notices what is wrong."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import TOY_BASE, toy_model

from sdtalk.checkpoint import load_model
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.published.checkpoint import read_published
from sdtalk.published.verify import (
    PRODUCTS,
    TF32,
    Difference,
    Run,
    Verification,
    _gpu_runs,
    as_text,
    compare_tensors,
    rounded_to_tf32,
    verify,
)

SMALL_PX = 126
"""Side of the pictures that the model is shown here: 9 patches in place of 37, which all weights can look at."""


@pytest.fixture(scope="module")
def found(published_file: Path, converted: Path) -> Verification:
    def small_pictures(folder: Path) -> SDTalk:
        model = load_model(folder)
        model.reconstructor.picture_px = model.reconstructor.encoder.picture_px = SMALL_PX
        model.reconstructor.plane_size = SMALL_PX * 8 // 14
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdtalk.published.verify.load_model", small_pictures)
        return verify(published_file, converted)


def test_a_converted_checkpoint_passes(found: Verification) -> None:
    assert found.passed
    made_by_the_file = [name for name in SDTalk(TOY_BASE).state_dict() if not name.endswith(".offsets")]
    per_block = [name for name in made_by_the_file if ".layer.0." in name]
    assert found.tensors == len(made_by_the_file) + (12 - 4) * len(per_block), (
        "DINOv2 has 12 blocks, the toy 4"
    )


def test_the_facts_are_those_of_the_rule(found: Verification) -> None:
    """Tables by the rule are normal with deviation 0.5; quaternions normalised over 5,023 points are short."""
    noise, table, quaternion, motion = found.facts.values()
    assert 0.1 < noise < 0.5
    assert table == pytest.approx(0.5 * np.sqrt(2 / np.pi), rel=1e-3)
    assert quaternion == pytest.approx(2 / np.sqrt(5023), rel=0.1)
    assert 0 < motion < 0.2
    assert list(found.facts)[2].startswith("length of a completion quaternion")


def test_tf32_changes_a_little(found: Verification) -> None:
    tf32 = found.differences[0]
    assert tf32.name == "TF32 on the CPU"
    assert 1e-6 < tf32.rasterised_mean < 1e-2
    assert 1e-6 < tf32.frame_mean < 1e-2 and tf32.frame_mean < tf32.frame_max < 1


def test_a_changed_tensor_is_noticed(
    published_file: Path, published_model: SDTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = read_published(published_file)
    count = compare_tensors(theirs, published_model)
    parameter = dict(published_model.named_parameters())["fine_field.mlp.0.weight"]
    changed = parameter.detach().clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(9.0))
    monkeypatch.setattr(parameter, "data", changed)
    with pytest.raises(InputError, match="'fine_field.mlp.0.weight'.*'motion_net_flame.*Convert"):
        compare_tensors(theirs, published_model)
    assert count > 600


def independent_tf32(x: np.ndarray) -> np.ndarray:
    """Nearest multiple of 2^-10 of each value's power of two, halves away from zero, in double precision."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = np.abs(mantissa) * 2.0**11
    return np.copysign(np.ldexp(np.floor(scaled + 0.5) / 2.0**11, exponent), x).astype(np.float32)


def test_rounding_is_to_ten_bits() -> None:
    random = np.random.default_rng(0)
    values = (random.standard_normal(20_000) * 10.0 ** random.uniform(-20, 20, 20_000)).astype(np.float32)
    halves = np.float32(
        [1 + 2**-11, -(1 + 2**-11), 1 + 3 * 2**-11, 1 + 2**-11 - 2**-23, 2 - 2**-12, 0.0, -0.0]
    )
    for given in (values, halves):
        assert np.array_equal(rounded_to_tf32(torch.from_numpy(given)).numpy(), independent_tf32(given))
    assert rounded_to_tf32(torch.from_numpy(halves)).tolist()[:5] == [
        1 + 2**-10, -1 - 2**-10, 1 + 2 * 2**-10, 1.0, 2.0,
    ]  # fmt: skip
    assert not np.array_equal(independent_tf32(values), values)
    assert rounded_to_tf32(torch.tensor([torch.inf, -torch.inf])).tolist() == [np.inf, -np.inf]
    numbers = torch.arange(5)
    assert rounded_to_tf32(numbers) is numbers


def calls() -> dict[str, tuple]:
    """Products as networks make them, with what is added in full precision."""
    torch.manual_seed(0)
    a, b, bias = torch.randn(6, 5), torch.randn(4, 5), torch.randn(4)
    image, kernel, up = torch.randn(1, 5, 8, 8), torch.randn(4, 5, 3, 3), torch.randn(5, 4, 3, 3)
    q, k, v = torch.randn(3, 1, 2, 7, 4)
    return {
        "linear": (lambda x, w: F.linear(x, w, bias), a, b),
        "conv": (lambda x, w: F.conv2d(x, w, bias, padding=1), image, kernel),
        "transposed": (lambda x, w: F.conv_transpose2d(x, w, bias), image, up),
        "matmul": (lambda x, w: x @ w.T, a, b),
        "attention": (F.scaled_dot_product_attention, q, k, v),
    }


@pytest.mark.parametrize("name", calls())
def test_only_factors_are_rounded(name: str) -> None:
    product, *factors = calls()[name]
    with TF32():
        rough = product(*factors)
    assert torch.equal(rough, product(*map(rounded_to_tf32, factors)))
    assert not torch.equal(rough, product(*factors))


def test_the_networks_products_are_known() -> None:
    """Modules reach the functions that are rounded."""
    torch.manual_seed(0)
    modules: list[tuple[torch.nn.Module, Tensor]] = [
        (torch.nn.Linear(5, 4), torch.randn(2, 5)),
        (torch.nn.Conv2d(3, 4, 3), torch.randn(1, 3, 6, 6)),
        (torch.nn.ConvTranspose2d(3, 4, 2, 2), torch.randn(1, 3, 6, 6)),
    ]
    for module, x in modules:
        with torch.no_grad(), TF32():
            rough = module(x)
        assert not torch.equal(rough, module(x).detach()), module
    assert torch.bmm in PRODUCTS and Tensor.__matmul__ in PRODUCTS


@pytest.fixture
def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, bool]]]:
    """Runs on "cuda" are stand-ins; what each of them may round is noted."""
    noted: list[tuple[str, bool]] = []

    def run(model: SDTalk, device: str) -> Run:
        assert device == "cuda"
        noted.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
        return object.__new__(Run)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(SDTalk, "to", lambda module, device: module)
    monkeypatch.setattr("sdtalk.published.verify._run", run)
    settings = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield noted
    assert settings == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)


def test_a_gpu_runs_without_and_with_tf32(as_if_on_a_gpu: list[tuple[str, bool]]) -> None:
    runs, no_gpu = _gpu_runs(toy_model())
    assert list(runs) == ["CUDA in float32", "CUDA with TF32"] and no_gpu == ""
    assert as_if_on_a_gpu == [("highest", False), ("high", True)]


def test_without_a_gpu_the_findings_on_the_cpu_are_told_all_the_same(
    as_if_on_a_gpu: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: SDTalk, device: str) -> None:
        raise InputError("device cuda", "there is no C compiler", "Install one.")

    monkeypatch.setattr("sdtalk.published.verify._run", refuse)
    runs, no_gpu = _gpu_runs(toy_model())
    assert not runs and "no C compiler" in no_gpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runs, no_gpu = _gpu_runs(toy_model())
    assert not runs and "PyTorch finds none" in no_gpu


def test_findings_in_words() -> None:
    tf32 = Difference("TF32 on the CPU", 2e-5, 1e-4, 3e-3)
    near, far = Difference("CUDA, near", 2e-5, 2.9e-4, 0.1), Difference("CUDA, far", 2e-5, 3.1e-4, 0.1)
    alone = Verification(643, {"some figure": 0.02817}, [tf32], "there is none.")
    text = as_text(alone)
    assert alone.passed and "643 tensors are the file's, bit for bit." in text
    assert "0.0282: some figure" in text and text.endswith("No GPU was compared: there is none.")
    assert "TF32 on the CPU: differs from the CPU in float32 by 1.0e-04 in the mean, 3.0e-03 at most" in text
    passed, failed = (replace(alone, differences=[tf32, other], no_gpu="") for other in (near, far))
    assert passed.passed and "as near as TF32 allows" in as_text(passed) and "No GPU" not in as_text(passed)
    assert not failed.passed and "differs by MORE" in as_text(failed)
