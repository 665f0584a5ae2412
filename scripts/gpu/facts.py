"""Facts of a machine with a GPU: card, driver, libraries, compilers, memory; prints JSON."""

import json
import os
import platform
import shutil
import subprocess
from importlib.util import find_spec
from typing import Any

import torch

from sdtalk.cli.doctor import c_compiler, installed_version

LIBRARIES = ("torch", "triton", "numpy", "numba", "transformers", "accelerate", "beartype", "imageio-ffmpeg")
OPTIONAL = {
    "gsplat": "the comparison with gsplat",
    "tinycudann": "the comparison with tiny-cuda-nn",
}
QUERY = "name,driver_version,memory.total,clocks.max.sm,power.limit"


def main() -> None:
    """Print what there is."""
    print(json.dumps(machine_facts(), indent=1))


def machine_facts() -> dict[str, Any]:
    """What there is; of a GPU only where PyTorch can use one."""
    cuda = torch.cuda.is_available()
    facts: dict[str, Any] = {
        "cuda": cuda,
        "gpus": torch.cuda.device_count() if cuda else 0,
        "nvidia-smi": nvidia_smi(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": os.cpu_count(),
        "versions": {name: installed_version(name) for name in LIBRARIES},
        "CUDA of torch": torch.version.cuda,
        "C compiler": c_compiler(),
        "nvcc": shutil.which("nvcc"),
    }
    if cuda:
        card = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        facts |= {
            "card": card.name,
            "compute capability": f"{card.major}.{card.minor}",
            "multiprocessors": card.multi_processor_count,
            "memory_gib": round(total / 2**30, 1),
            "free_gib": round(free / 2**30, 1),
            "bfloat16": torch.cuda.is_bf16_supported(),
        }
    return facts | {"left out": left_out(facts["gpus"])}


def left_out(gpus: int) -> dict[str, str]:
    """What of the tests cannot be run here, and why."""
    reasons = {use: f"{name} is not installed" for name, use in OPTIONAL.items() if find_spec(name) is None}
    if gpus < 2:
        reasons["training on two GPUs"] = f"there are {gpus}" if gpus != 1 else "there is one"
    return reasons


def nvidia_smi() -> str | None:
    """The driver's own line of every card; None: no such program, or it fails."""
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    main()
