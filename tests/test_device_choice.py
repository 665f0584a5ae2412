"""Tests of the choice of devices and precisions: what is there is used, what cannot be used is said in one line."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch
from toy import TOY, TOY_BASE

from sdtalk.cli.main import main
from sdtalk.devices import choose_device, choose_precision, choose_rasteriser
from sdtalk.errors import InputError
from sdtalk.full_float32 import full_float32
from sdtalk.gpu_memory import enough_memory, lacks_memory
from sdtalk.rendering import triton

CUDA = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a GPU, as far as PyTorch tells, and all that its kernels need."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Old Card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(triton, "lacking", lambda: None)
    return monkeypatch


def refused(name: str) -> str:
    with pytest.raises(InputError) as error:
        choose_device(name)
    line = str(error.value)
    assert name in line and "\n" not in line
    return line


def test_devices_that_are_not_there() -> None:
    assert choose_device("auto").type in ("cpu", "cuda") and choose_device("cpu").type == "cpu"
    assert "no such device" in refused("gpu")
    assert "Choose cpu" in refused("mps") and "Choose cpu" in refused("xpu")
    refused("cuda:77")


def test_auto_takes_a_gpu_where_kernels_can_be_compiled(gpu: pytest.MonkeyPatch) -> None:
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert "no such GPU" in refused("cuda:2")
    gpu.setattr(triton, "lacking", lambda: triton.Lack("Triton finds no C compiler", "Install one"))
    assert choose_device("auto").type == "cpu"
    assert "no C compiler. Install one" in refused("cuda")
    gpu.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (
            "The NVIDIA driver on your system is too old (found version 11040). Please update",
            "driver is too old",
        ),
        ("No CUDA GPUs are available", "finds no GPU"),
        ("Found no NVIDIA driver on your system", "finds no GPU"),
    ],
)
def test_why_there_is_no_gpu_is_said_in_our_words(gpu: pytest.MonkeyPatch, says: str, words: str) -> None:
    def init() -> None:
        warnings.warn(says, stacklevel=1)
        raise RuntimeError(says)

    gpu.setattr(torch.cuda, "is_available", lambda: False)
    gpu.setattr(torch.cuda, "init", init)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        line = refused("cuda")
    assert words in line and "cpu" in line
    assert choose_device("auto").type == "cpu"


def test_a_pytorch_without_cuda_says_so(gpu: pytest.MonkeyPatch) -> None:
    gpu.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert "built without CUDA" in refused("cuda")


def test_the_command_ends_in_one_line(gpu: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    gpu.setattr(torch.backends.cuda, "is_built", lambda: False)
    assert main(["a.png", "a.wav", "-o", "a.mp4", "--device", "cuda"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_triton_wants_its_package_a_compiler_and_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clang", "my-cc"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    def remedy() -> str:
        return "" if (lack := triton.lacking()) is None else lack.remedy

    assert not remedy() and triton.c_compiler() == str(tmp_path / "clang")
    monkeypatch.setenv("CC", "my-cc")
    assert not remedy() and triton.c_compiler() == str(tmp_path / "my-cc")
    monkeypatch.setenv("CC", "no-cc")  # Triton takes what CC names and looks no further
    assert "apt-get install gcc" in remedy()
    monkeypatch.delenv("CC")
    (tmp_path / "Python.h").unlink()
    assert "apt-get install python3-dev" in remedy()
    (tmp_path / "clang").unlink()
    assert "apt-get install gcc" in remedy()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "PyTorch with CUDA" in remedy()


def test_the_rasteriser_on_a_gpu_is_triton_unless_gsplat_is_asked_for(gpu: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert [choose_rasteriser(name, CUDA) for name in ("auto", "triton")] == ["triton"] * 2
    assert choose_rasteriser("auto", cpu) == "triton"  # nothing is on CUDA then
    gpu.setattr("sdtalk.rendering.gsplat.load", lambda: None)
    assert choose_rasteriser("gsplat", CUDA) == "gsplat"
    for name, device, words in (
        ("gsplat", cpu, "NVIDIA GPUs only"),
        ("triton", cpu, "NVIDIA GPUs only"),
        ("taichi", CUDA, "no such choice"),
    ):
        with pytest.raises(InputError, match=words):
            choose_rasteriser(name, device)


@pytest.mark.parametrize("knows", [True, False])
def test_bfloat16_only_where_the_card_has_it(gpu: pytest.MonkeyPatch, knows: bool) -> None:
    gpu.setattr("sdtalk.devices.gpu_knows_bfloat16", lambda _: knows)
    assert choose_precision("auto", TOY_BASE, CUDA) == (torch.bfloat16 if knows else torch.float32)
    assert choose_precision("auto", TOY, CUDA) == torch.float32
    assert choose_precision("float32", TOY_BASE, CUDA) == torch.float32
    if knows:
        assert choose_precision("bfloat16", TOY_BASE, CUDA) == torch.bfloat16
    else:
        with pytest.raises(InputError, match=r"bfloat16.*Old Card.*too old"):
            choose_precision("bfloat16", TOY_BASE, CUDA)


def switches() -> tuple[str, str, bool]:
    backends = torch.backends
    return torch.get_float32_matmul_precision(), backends.cudnn.conv.fp32_precision, backends.cudnn.allow_tf32


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
def test_tf32_is_off_inside_and_as_it_was_outside(products: str) -> None:
    torch.set_float32_matmul_precision(products)
    try:
        before = switches()
        assert before[1:] == ("tf32", True)  # PyTorch's own choice
        with pytest.raises(ZeroDivisionError), full_float32(CUDA), full_float32(CUDA):
            assert switches()[0] == "highest" and not switches()[2] and switches()[1] != "tf32"
            _ = 1 / 0
        assert switches() == before
        with full_float32(torch.device("cpu")):
            assert switches() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=lambda error: str(error)[:30],
)
def test_a_gpu_without_memory_is_one_line(error: RuntimeError) -> None:
    def work(where: torch.device) -> None:
        with enough_memory(where):
            raise error

    assert lacks_memory(error)
    with pytest.raises(
        InputError, match=r"device cuda: .*too little free memory.*another process.*nvidia-smi"
    ):
        work(CUDA)
    with pytest.raises(RuntimeError, match="CUDA|cuDNN"):
        work(torch.device("cpu"))


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="illegal"), enough_memory(CUDA):
        raise RuntimeError("an illegal memory access")
    assert not lacks_memory(ValueError("out of memory"))
