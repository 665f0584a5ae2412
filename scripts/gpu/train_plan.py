"""GPU training plan: the commands of a short training of mini, and how a machine's minutes are shared among them."""

import os
import shutil
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.gpu.steps import ROOT, Step
from scripts.gpu.train_facts import evaluated, painter_facts, stage_facts

SHARES = {"stage 1": 0.3, "stage 2": 0.3, "mouth": 0.25, "eyes": 0.15}
"""Of the time that is left for learning."""

STARTING_SECONDS = 15.0
"""Of its share, a run needs so much to begin and to save."""

LEAST_SECONDS = 10.0
"""Learning for less is not worth beginning."""

LAST_VIDEO_BEGUN = 0.6
"""Of the time for preparing; the rest is for videos that are at work then."""

ENDLESS = 1_000_000
SHARED_MEMORY_GB = 4.0
"""Processes that draw pairs hand them over in shared memory; with less there is a thread instead."""


@dataclass(frozen=True)
class TrainPlan:
    """What is trained, on what, where.

    Attributes:
        data: The prepared data set.
        work: Where runs go.
        device: "cuda" or "cpu".
        tiny: Rehearse: two steps of everything.
        batch: Samples a step of stages 1 and 2.
        split: Whom models are evaluated on.
    """

    data: Path
    work: Path
    device: str
    tiny: bool
    batch: int
    split: str = "dev"

    @property
    def cores(self) -> int:
        """Processors that threads and processes are shared among."""
        return os.cpu_count() or 1

    def evaluate(self, name: str, model: str, seconds: float) -> Step:
        """Measure a model on a few people whom it has not seen."""
        output = self.work / name.replace(" ", "_")
        command = [
            sys.executable,
            "training/evaluate.py",
            str(self.data),
            "--model",
            model,
            "-o",
            str(output),
        ]
        command += ["--split", self.split, "--device", self.device]
        command += ["--clips", "1" if self.tiny else "4", "--limit-seconds", "0.2" if self.tiny else "2"]
        return Step(name, command, seconds, lambda done: evaluated(output / "results.json"))

    def stage(self, number: int, start: str, seconds: float) -> Step:
        """Stage 1 or 2 of `training/train.py`, at a constant rate: the average of the weights stands in for a decay."""
        run = self.work / f"stage{number}"
        settings = {
            "data.source": self.data, "output": run, "start": start, "precision": "bf16", "steps": ENDLESS,
            "batch_size": self.batch, "data.threads": max(1, self.cores - 2), "data.prefetch": 8,
            "optimiser.final_rate": 1.0, "log.trackers": "[]", "log.samples_every": 0, "log.every": 10,
            "checkpoints.every": 200, "checkpoints.keep": 1,
        }  # fmt: skip
        if self.tiny:
            settings |= {"steps": 2, "log.every": 1, "checkpoints.every": 1, "window_px": 320}
        command = [sys.executable, "training/train.py", f"training/configs/mini_stage{number}.yaml"]
        command += ["--max-seconds", f"{learning_seconds(seconds):.0f}"]
        command += ["--set", *(f"{name}={value}" for name, value in settings.items())]
        return self._bounded(f"stage {number}", command, seconds, lambda done: stage_facts(run))

    def painter(self, window: str, seconds: float) -> Step:
        """The window painter of mouth or eyes, from the bundled one on."""
        run = self.work / window
        shared = shutil.disk_usage("/dev/shm").free / 1e9 if Path("/dev/shm").is_dir() else 0.0
        many = self.device == "cuda" and shared > SHARED_MEMORY_GB
        options = {
            "clips": self.data, "crops": self.work / "crops", "output": run, "device": self.device, "start": "mini",
            "rate": 2e-4, "critic-from": 0, "every": 500, "max-seconds": f"{learning_seconds(seconds):.0f}",
            "workers": min(12, max(0, self.cores - 2)) if many else 0, "steps": ENDLESS,
        }  # fmt: skip
        if self.tiny:
            options |= {"steps": 1, "batch": 2}
        command = [sys.executable, "-m", "training.mini.train_painter", window]
        command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return self._bounded(window, command, seconds, lambda done: painter_facts(run))

    def assemble(self, start: str, painters: list[str]) -> Step:
        """One checkpoint of a stage's model and the painters that have become better."""
        command = [sys.executable, "-m", "training.mini.assemble_checkpoint", str(self.work / "model")]
        command += ["--start", start]
        command += [f"--{name}={self.work / name / 'painter.safetensors'}" for name in painters]
        return Step("assemble", command, 60)

    @staticmethod
    def _bounded(name: str, command: list[str], seconds: float, facts) -> Step:  # noqa: ANN001 - as in Step
        short = "" if learning_seconds(seconds) >= LEAST_SECONDS else "too little time is left to learn"
        return Step(name, command, seconds + STARTING_SECONDS, facts, skip=short, grace=STARTING_SECONDS)


def learning_seconds(seconds: float) -> float:
    """What a share of the time leaves for learning itself."""
    return seconds - STARTING_SECONDS


def prepare_steps(videos: Path, output: Path, seconds: float) -> list[Step]:
    """Preparing in time: by one process for each core, or by one where those do not find each other."""
    source = videos / "manifest.json" if (videos / "manifest.json").is_file() else videos
    words = ["training/prepare.py", str(source), "-o", str(output)]
    words += ["--set", "splits.dev=0.2", "splits.test=0"]
    count = max(1, min(os.cpu_count() or 1, sum(path.is_file() for path in videos.rglob("*"))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--node_rank", "0"]
    together += ["--master_addr", "127.0.0.1", "--master_port", str(port), "--nproc_per_node", str(count)]
    environment = ["env", "ACCELERATE_USE_CPU=true", "GLOO_SOCKET_IFNAME=lo"]
    in_time = ["--max-seconds", f"{LAST_VIDEO_BEGUN * seconds:.0f}"]
    alone = Step("prepare", [*environment[:2], sys.executable, *words, *in_time], seconds)
    if count == 1:
        return [alone]
    command = [*environment, "OMP_NUM_THREADS=1", "NUMBA_NUM_THREADS=1", *together, *words, *in_time]
    return [replace(alone, name=f"prepare, {count} processes", command=command), alone]


def newest(run: Path, root: Path = ROOT) -> Path | None:
    """The last whole checkpoint of a run, which `training/train.py --resume` takes; None: there is none."""
    kept = sorted(path for path in (root / run).glob("checkpoint-*") if (path / "training.json").is_file())
    return kept[-1] if kept else None
