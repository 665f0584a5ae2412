"""Devices: where a model computes, in which numbers, and what draws there, by name or by what the machine can."""

import platform
import warnings

import torch

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.rendering import gsplat, triton
from sdtalk.rendering.rasteriser import OnCuda


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device.

    Args:
        name: "auto" is CUDA where PyTorch finds a GPU and Triton can compile for it, else the CPU.

    Raises:
        InputError: There is no such device, or it cannot be used.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() and triton.lacking() is None else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}", "no such device", "Choose auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        problem = (
            "SDTalk computes on processors, and on GPUs that PyTorch calls cuda (NVIDIA's, and AMD's by ROCm)"
        )
        raise InputError(f"device {name!r}", problem, "Choose cpu, or auto, which takes it here.")
    if device.type == "cuda":
        _check_cuda(device)
    return device


def _check_cuda(device: torch.device) -> None:
    """Refuse a GPU that PyTorch or our kernels cannot use."""
    name = f"device {str(device)!r}"
    if not torch.backends.cuda.is_built():
        problem = f"this PyTorch ({torch.__version__}) was built without CUDA"
        raise InputError(
            name, problem, "Install one with CUDA (pytorch.org says how), or choose auto or cpu."
        )
    if not torch.cuda.is_available():
        raise InputError(name, *_why_no_gpu())
    if (device.index or 0) >= torch.cuda.device_count():
        raise InputError(name, "PyTorch finds no such GPU", "Choose auto or cpu.")
    lack = triton.lacking()
    if lack is not None:
        raise InputError(name, lack.problem, f"{lack.remedy}; or choose auto or cpu.")


def _why_no_gpu() -> tuple[str, str]:
    """What is wrong, and what helps, where PyTorch was built with CUDA and cannot use it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()
        words = ""
    except Exception as error:  # RuntimeError, AssertionError, or what a driver makes of it
        words = str(error)
    if "too old" in words:
        problem = f"the driver is too old for this PyTorch ({torch.__version__}, CUDA {torch.version.cuda})"
        return problem, "Update the driver, install a PyTorch for an older CUDA, or choose auto or cpu."
    return "PyTorch finds no GPU that it can use", "Look at what `nvidia-smi` says, or choose auto or cpu."


def knows_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32.

    oneDNN takes bfloat16 on every x86 processor with AVX-512, but without instructions for it only by detours.
    """
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        return False
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def gpu_knows_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has instructions for bfloat16; PyTorch emulates it on older ones, slower than float32."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def choose_rasteriser(name: str, device: torch.device) -> OnCuda:
    """Turn "auto", "triton" or "gsplat" into what draws on CUDA.

    Raises:
        InputError: There is no such rasteriser, or gsplat is asked for and cannot be used.
    """
    if name not in ("auto", "triton", "gsplat"):
        raise InputError(f"rasteriser {name!r}", "there is no such choice", "Choose auto, triton or gsplat.")
    if name != "auto" and device.type != "cuda":
        problem = f"it draws on NVIDIA GPUs only, and the device is {device.type}"
        raise InputError(f"rasteriser {name!r}", problem, "Choose auto, or the device cuda.")
    if name == "gsplat":
        gsplat.load()
        return "gsplat"
    return "triton"


def choose_precision(name: str, config: SDTalkConfig, device: torch.device) -> torch.dtype:
    """Turn "auto", "float32" or "bfloat16" into what a model computes in.

    "auto" is bfloat16 for large models where the processor or the GPU multiplies it faster, float32 otherwise.

    Raises:
        InputError: There is no such precision, the model has no use for it, or the GPU is too old for it.
    """
    large = not config.priors
    on_gpu = device.type == "cuda"
    if name == "auto":
        knows = gpu_knows_bfloat16(device) if on_gpu else knows_bfloat16()
        return torch.bfloat16 if large and knows else torch.float32
    if name == "bfloat16" and not large:
        raise InputError(
            f"precision {name!r}",
            f"the model {config.name!r} is small and has no use for it",
            "Choose float32.",
        )
    if name == "bfloat16" and on_gpu and not gpu_knows_bfloat16(device):
        problem = f"the GPU ({torch.cuda.get_device_name(device)}) is too old for it"
        raise InputError(f"precision {name!r}", problem, "Choose auto or float32.")
    if name not in ("float32", "bfloat16"):
        raise InputError(
            f"precision {name!r}", "there is no such choice", "Choose auto, float32 or bfloat16."
        )
    return getattr(torch, name)
