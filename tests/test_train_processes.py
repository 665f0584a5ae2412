"""Tests of training in several processes, and of runs killed at any moment."""

import random
import signal
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from script_processes import awaited, start_script
from toy_training import RATES, changed, farthest, prepared_for, settings_file, weights

from training.checkpoints import RunFolder

ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
STEPS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_for(tmp_path_factory.mktemp("prepared") / "mini", splits=("train", "dev"))


def launch(path: Path, processes: int, gpus: str = "") -> RunFolder:
    """As torchrun does it, whose variables tell every process which of them it is; on the GPUs of these numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    together = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    outputs = [path.with_name(f"printed-{rank}") for rank in range(processes)]
    started = []
    for rank, output in enumerate(outputs):
        own = together | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        started.append(
            start_script(output, "training/train.py", path, **ALONE | {"CUDA_VISIBLE_DEVICES": gpus}, **own)
        )
    printed = "".join(awaited(*both) for both in zip(started, outputs, strict=True))
    assert printed.count("holds the model") == 1
    return RunFolder(path.parent / "run")


def difference_of_two(tmp_path: Path, data: Path, gpus: str = "") -> float:
    """How far the weights of two processes are from those of one with the doubled batch."""
    optimiser = {
        "rates": dict.fromkeys(RATES[2], 1e-4),
        "eps": 1e-4,
    }  # see test_train: noise must not become whole steps
    options = {
        "stage": 2,
        "steps": 2,
        "optimiser": optimiser,
        "losses": {"image": 1, "geometry": 0.1, "sound": 1},
    }
    one = launch(settings_file(tmp_path / "one", data, batch_size=2, **options), 1, gpus[:1])
    two = launch(settings_file(tmp_path / "two", data, **options), 2, gpus)
    return farthest(weights(one.checkpoint(2)), weights(two.checkpoint(2)))


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path, data: Path) -> None:
    assert 0 < difference_of_two(tmp_path, data) < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_are_one_with_the_doubled_batch(tmp_path: Path, data: Path) -> None:
    assert 0 < difference_of_two(tmp_path, data, "0,1") < 1e-4


def start(path: Path, killer: tuple[str, int] | None = None) -> BaseProcess:
    """In a process of its own, which may kill itself at the n-th call of a function of `os`."""
    resume = ["--resume", "latest"] if RunFolder(path.parent / "run").checkpoints() else []
    output = path.with_name("printed")
    return start_script(output, "training/train.py", path, *resume, killer=killer, **ALONE)


def await_a_step(run: RunFolder, process: BaseProcess) -> None:
    """Until something is logged: a process that is still importing has nothing to lose."""
    log = run.path / "metrics.jsonl"
    before = log.stat().st_size if log.is_file() else 0
    while process.is_alive() and not (log.is_file() and log.stat().st_size > before):
        process.join(0.05)


def test_a_run_killed_at_any_moment_ends_as_if_never_stopped(tmp_path, data) -> None:
    often = {"checkpoints": {"every": 1, "keep": 2}, "steps": STEPS, "losses": {"image": 1}}
    straight = start(settings_file(tmp_path / "straight", data, **often))
    straight.join()
    assert straight.exitcode == 0
    path = settings_file(tmp_path / "killed", data, **often)
    run, dice, kills = RunFolder(path.parent / "run"), random.Random(0), []
    # while saving: at forcing a file to the disk, at the renames of a checkpoint, of the model and of the rotation
    moments = [("fsync", 3), ("fsync", 9), ("replace", 1), ("replace", 3), ("replace", 5), ("replace", 6)]
    while len(kills) < 12 and (not run.checkpoints() or run.checkpoints()[-1] != run.checkpoint(STEPS)):
        killer = moments.pop(0) if moments and len(kills) % 2 else None
        process = start(path, killer)
        if killer is None:
            await_a_step(run, process)
            process.join(dice.uniform(0, 0.6))
            process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode:
            kills.append(killer or "by hand")
    last = start(path) if run.checkpoints()[-1] != run.checkpoint(STEPS) else None
    if last is not None:
        last.join()
        assert last.exitcode == 0
    assert len(kills) >= 10
    assert [p.name for p in run.checkpoints()] == [f"checkpoint-{s:06d}" for s in (STEPS - 1, STEPS)]
    for place in (f"checkpoint-{STEPS:06d}", "model"):
        one, other = (weights(tmp_path / name / "run" / place) for name in ("straight", "killed"))
        assert changed(one, other) == set(), place
    left = {p.name for p in run.path.iterdir()}
    assert not any(name.endswith((".partial", ".removed")) for name in left), left
