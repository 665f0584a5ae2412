"""Benchmark: `sdtalk bench` makes a video as a user would, and measures every stage."""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sdtalk.cli.bench_report import Report, as_json, as_text, this_machine
from sdtalk.cli.doctor import installed_version
from sdtalk.cli.untrained import untrained_base
from sdtalk.devices import choose_rasteriser
from sdtalk.errors import InputError
from sdtalk.head import Head
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.rendering.rasteriser import rasteriser_for
from sdtalk.speech.audio import SAMPLE_RATE_HZ, read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.talk import Talk
from sdtalk.weights.assets import example

LIBRARIES = ("torch", "triton", "numpy", "numba", "imageio-ffmpeg")
POLL_SECONDS = 0.1
UNTRAINED = "base"
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
        rehearsed = _rehearse(pipeline, head, speech)
        start = time.perf_counter()
        next(pipeline.talk(head, speech).frames())
        first = time.perf_counter() - start
        rendered = (
            _rendered_per_second(pipeline.talk(head, speech)) if pipeline.device.type == "cuda" else None
        )
        if "rasterising" not in rehearsed.timings:  # but "rendering" as a whole
            _timed(pipeline.model.neural_renderer, watch)
            if chosen.compile:  # once more, being of another type now
                _rehearse(pipeline, head, speech)
                watch.seconds.pop("neural rendering")
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
    return Report(stages, len(talk), *measured, this_machine(), {n: installed_version(n) for n in LIBRARIES})


def _rehearse(pipeline: SDTalkPipeline, head: Head, speech: Path) -> Talk:
    """Let what has to be compiled be so; on a GPU also for the larger batches that come later."""
    talk = pipeline.talk(head, speech)
    deque(islice(talk.frames(), 1 if pipeline.device.type == "cpu" else GPU_REHEARSAL), maxlen=0)
    return talk


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


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print the figures."""
    chosen = Benchmark(**{field.name: getattr(arguments, field.name) for field in fields(Benchmark)})
    report = measure(chosen)
    print(as_json(report) if arguments.json else as_text(report))
    return 0
