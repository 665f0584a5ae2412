"""Roofline: how fast a device multiplies matrices and copies memory, which nothing on it can exceed; prints JSON."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

REPEATS, WARM_UP = 10, 3
GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """How large the trials are: side of matrices by precision, and bytes copied."""

    matrices: dict[str, int]
    copied: int


FULL = Sizes({"bfloat16": 8192, "tf32": 8192, "float32": 4096}, 4 * GIB)
TINY = Sizes({"bfloat16": 128, "tf32": 128, "float32": 128}, 1 << 20)


def main() -> None:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    found = measured(torch.device(arguments.device), TINY if arguments.tiny else FULL)
    print(json.dumps(found | {"tiny": arguments.tiny}, indent=1))


def measured(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Ceilings of a device: "bfloat16_tflops", "tf32_tflops", "float32_tflops", and "copy_tbs", bytes both ways."""
    found = {f"{name}_tflops": multiplied(name, side, device) for name, side in sizes.matrices.items()}
    return found | {"copy_tbs": copied(sizes.copied, device)}


def multiplied(name: str, side: int, device: torch.device) -> float:
    """TFLOP/s of square matrices of random numbers: those of zeros are faster than any that are used."""
    dtype = torch.bfloat16 if name == "bfloat16" else torch.float32
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    try:
        a, b = torch.randn(2, side, side, device=device, dtype=torch.float32).to(dtype)
        out = torch.empty_like(a)
        seconds = median_seconds(lambda: torch.mm(a, b, out=out), device)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * side**3 / seconds / 1e12


def copied(size: int, device: torch.device) -> float:
    """TB/s from memory to memory of the same device, what is read and what is written counted."""
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / median_seconds(lambda: target.copy_(source), device) / 1e12


def median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median time of some work, by events of the device where it has them."""
    for _ in range(WARM_UP):
        work()
    if device.type != "cuda":
        return statistics.median(_clocked(work) for _ in range(REPEATS))
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(REPEATS)]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize(device)
    return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1000


def _clocked(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
