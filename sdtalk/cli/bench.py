"""Benchmark: `sdtalk bench` makes a video as a user would, and measures every stage."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sdtalk.cli.doctor import installed_version
from sdtalk.cli.untrained import untrained_base
from sdtalk.devices import choose_rasteriser
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.rendering.rasteriser import rasteriser_for
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.talk import Talk
from sdtalk.weights.assets import example

LIBRARIES = ("torch", "triton", "numpy", "numba", "imageio-ffmpeg")
POLL_SECONDS = 0.1
UNTRAINED = "base"
EACH_FRAME = ("motion", "rasterising", "neural rendering", "finishing")
"""Stages that make the frames; "encoding" runs beside them."""

GPU_REHEARSAL = 192
"""Frames made before anything is measured on a GPU: batches grow to 64."""

RASTERISERS = {"cpu": "cpu kernels"}
"""Rasterisers that people are told of by another name."""


@dataclass(frozen=True)
class Benchmark:
    """What to measure.

    Attributes:
        portrait: Picture; None: the bundled example.
        speech: Recording; None: the bundled example.
        seconds: The recording is cut, or repeated, to this length.
        model: Checkpoint; "base" for the paper's full model with random weights, which is as fast as a trained one
            but for the rasteriser, whose time depends on how large the Gaussians are.
        device: Where to run.
        precision: What to compute in.
        compile: Compile the networks, before the stages are measured.
        rasteriser: What draws on a GPU.
    """

    portrait: str | None = None
    speech: str | None = None
    seconds: float = 7.1
    model: str = "mini"
    device: str = "auto"
    precision: str = "auto"
    compile: bool = False
    rasteriser: str = "auto"


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


def measure(chosen: Benchmark) -> Report:
    """Make the video twice: in this process, stage by stage, and as a user would, in a process of its own.

    Raises:
        InputError: An input cannot be used.
    """
    portrait = chosen.portrait or str(example("eileen_collins.png"))
    if not 0.04 <= chosen.seconds <= 3600:
        problem = "the length cannot be measured"
        raise InputError(f"seconds {chosen.seconds}", problem, "Choose 0.04 to 3600.")
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="sdtalk-bench-") as folder:
        speech, output = Path(folder, "speech.wav"), Path(folder, "talk.mp4")
        _write_speech(chosen.speech or str(example("sense_and_sensibility.wav")), chosen.seconds, speech)
        with watch("loading"):
            pipeline = _load(chosen)
        head = pipeline.reconstruct(portrait)
        rehearsed = pipeline.talk(head, speech)
        # compiles what has to be; on a GPU also for the larger batches that come later
        deque(islice(rehearsed.frames(), 1 if pipeline.device.type == "cpu" else GPU_REHEARSAL), maxlen=0)
        start = time.perf_counter()
        next(pipeline.talk(head, speech).frames())
        first = time.perf_counter() - start
        rendered = (
            _rendered_per_second(pipeline.talk(head, speech)) if pipeline.device.type == "cuda" else None
        )
        if "rasterising" not in rehearsed.timings:  # but "rendering" as a whole
            _timed(pipeline.model.neural_renderer, watch)
        _forget_gpu_peak(pipeline.device)
        talk = pipeline(portrait, speech, output)
        gpu_mb = _gpu_peak_mb(pipeline.device)
        stages = {**watch.seconds, **talk.timings}
        command = [sys.executable, "-m", "sdtalk", portrait, str(speech), "-o", str(output)]
        command += ["--model", chosen.model, "--device", chosen.device, "--precision", chosen.precision]
        command += ["--rasteriser", chosen.rasteriser, *(["--compile"] if chosen.compile else [])]
        total, peak = (None, None) if chosen.model == UNTRAINED else _run(command)
    if "rendering" in stages and "neural rendering" in stages:
        stages["rasterising"] = stages.pop("rendering") - stages["neural rendering"]
    precision = str(pipeline.model.precision).removeprefix("torch.")
    name = rasteriser_for(pipeline.device, pipeline.model.on_cuda)
    speeds = len(talk) / stages["video"], rendered, first
    measured = *speeds, precision, RASTERISERS.get(name, name), gpu_mb, total, peak
    return Report(stages, len(talk), *measured, _machine(), {n: installed_version(n) for n in LIBRARIES})


def _rendered_per_second(talk: Talk) -> float:
    start = time.perf_counter()
    deque(talk.frames(), maxlen=0)
    return len(talk) / (time.perf_counter() - start)


def _forget_gpu_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _gpu_peak_mb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else None


def _load(chosen: Benchmark) -> SDTalkPipeline:
    if chosen.model == UNTRAINED:
        pipeline = untrained_base(chosen.device, chosen.precision)
    else:
        pipeline = SDTalkPipeline.from_pretrained(chosen.model, chosen.device, chosen.precision)
    pipeline.model.drawing_with(choose_rasteriser(chosen.rasteriser, pipeline.device))
    if chosen.compile:
        pipeline.model.compiled()
    return pipeline


def _write_speech(source: str, seconds: float, target: Path) -> None:
    """Write a recording of exactly the wanted length."""
    import wave

    samples = np.resize(read_speech(source).samples.numpy(), round(seconds * SAMPLE_RATE_HZ))
    with wave.open(str(target), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())


def _timed(network: nn.Module, watch: Stopwatch) -> None:
    """Put a stopwatch around a network, which stays what it is; a hook would become part of a compiled one."""
    kind: Any = type(network)

    class Timed(kind):
        def __call__(self, *inputs: Any, **named: Any) -> Any:
            with watch("neural rendering"):
                return super().__call__(*inputs, **named)

    network.__class__ = Timed


def _run(command: list[str]) -> tuple[float, float | None]:
    """Seconds and peak memory (MB, children included) of a process."""
    start, peak = time.perf_counter(), 0.0
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        over = threading.Event()

        def watch_memory() -> None:
            nonlocal peak
            while not over.wait(POLL_SECONDS):
                peak = max(peak, resident_mb(process.pid))

        thread = threading.Thread(target=watch_memory, daemon=True)
        thread.start()
        try:
            code = process.wait()
        finally:
            over.set()
            thread.join()
        seconds = time.perf_counter() - start
        if code != 0:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise InputError("sdtalk", f"the measured process failed ({lines[-1]})", "Run it by itself.")
    return seconds, peak or None


def resident_mb(pid: int) -> float:
    """Resident memory of a process and all below it, in MB; 0 where /proc does not tell."""
    parents: dict[int, list[int]] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pages[int(entry.name)] = int(fields[21])
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
        except (OSError, IndexError, ValueError):  # it has just ended
            continue
    waiting, total = [pid], 0
    while waiting:
        one = waiting.pop()
        total += pages.get(one, 0)
        waiting += parents.get(one, [])
    return total * (os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096) / 2**20


def _machine() -> dict[str, str]:
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


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    chosen = Benchmark(**{field.name: getattr(arguments, field.name) for field in fields(Benchmark)})
    report = measure(chosen)
    print(as_json(report) if arguments.json else as_text(report))
    return 0
