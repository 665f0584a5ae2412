"""Benchmark report: what `sdtalk bench` has measured, for people and for programs."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from sdtalk.speech.audio import FRAME_RATE_HZ

EACH_FRAME = ("motion", "rasterising", "neural rendering", "finishing")
"""Stages that make the frames; "encoding" runs beside them."""


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        stages: Seconds by stage, inside one process. Those of frames add up what every core took, and "encoding" runs
            beside them.
        frames: Length of the video in frames.
        frames_per_second: Frames over the seconds from the first one's beginning to the finished file.
        rendered_per_second: The same on a GPU without a file: frames that have come to the host; None on a CPU.
        first_frame_seconds: From a recording that is there to the first frame of its video.
        precision: What the model computed in.
        rasteriser: What drew the Gaussians: "cpu kernels", "triton" or "gsplat".
        peak_gpu_mb: Largest GPU memory that PyTorch held while the video was made; None on a CPU.
        total_seconds: Another whole `sdtalk` process, from its start to the file; None for the untrained model.
        peak_mb: Largest resident memory of that process and its children together; None where unknown.
        machine: Processor, cores, system, load.
        versions: Libraries.
    """

    stages: dict[str, float]
    frames: int
    frames_per_second: float
    rendered_per_second: float | None
    first_frame_seconds: float
    precision: str
    rasteriser: str
    peak_gpu_mb: float | None
    total_seconds: float | None
    peak_mb: float | None
    machine: dict[str, str]
    versions: dict[str, str]

    @property
    def shares(self) -> dict[str, float]:
        """Share of each stage of `EACH_FRAME` in what frames took, without their encoding; they add up to 1."""
        seconds = {stage: self.stages.get(stage, 0.0) for stage in EACH_FRAME}
        whole = sum(seconds.values()) or 1.0
        return {stage: value / whole for stage, value in seconds.items()}


def this_machine() -> dict[str, str]:
    """Processor, cores, GPU, system and load, as the report names them."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    cores = str(os.cpu_count())
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"processor": cpu, "cores": cores, "gpu": gpu, "system": system, "load": load}


def as_json(report: Report) -> str:
    """The report for programs."""
    return json.dumps(asdict(report) | {"shares": report.shares}, indent=2)


def as_text(report: Report) -> str:
    """The report for people."""
    row: Callable[[str, str], str] = lambda name, value: f"{name:<22}{value}"  # noqa: E731
    once = ("loading", "reading", "tracking", "reconstruction", "audio", "preparing", "video")
    lines = []
    for stage in (*once, *EACH_FRAME, "encoding"):
        seconds = report.stages.get(stage, 0.0)
        each = "" if stage in once else f"{1000 * seconds / report.frames:7.2f} ms a frame"  # of all cores
        if stage in EACH_FRAME:
            each += f", {report.shares[stage]:4.0%}"
        lines.append(row(stage, f"{seconds:7.2f} s  {each}".rstrip()))
    speed = report.frames_per_second
    lines.append(row("frames a second", f"{speed:7.1f}    ({report.frames} frames, with encoding)"))
    if report.rendered_per_second is not None:
        lines.append(
            row("", f"{report.rendered_per_second:7.1f}    (that have come from the GPU, without a file)")
        )
    real_time = "yes" if speed >= FRAME_RATE_HZ else "no"
    lines.append(
        row("real time", f"{real_time:>7}    (this machine: {speed:.0f} of {FRAME_RATE_HZ} frames a second)")
    )
    lines.append(row("sound to picture", f"{report.first_frame_seconds:7.2f} s"))
    total = "not measured" if report.total_seconds is None else f"{report.total_seconds:7.1f} s"
    lines.append(row("start to file", total))
    peak = "not measured" if report.peak_mb is None else f"{report.peak_mb:7.0f} MB"
    lines.append(row("peak memory", peak))
    if report.peak_gpu_mb is not None:
        lines.append(row("peak GPU memory", f"{report.peak_gpu_mb:7.0f} MB"))
    lines.append(row("precision", report.precision))
    lines.append(row("rasteriser", report.rasteriser))
    facts = {**report.machine, **report.versions}
    return "\n".join([*lines, *(row(name, value) for name, value in facts.items())])
