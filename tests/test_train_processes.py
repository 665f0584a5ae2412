"""Tests of training in several processes, and of runs killed at any moment."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_training import RATES, changed, farthest, prepared_for, settings_file, weights

from training.checkpoints import RunFolder

ROOT = Path(__file__).parent.parent
ALONE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
STEPS = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_for(tmp_path_factory.mktemp("prepared") / "mini", splits=("train", "dev"))


def launch(path: Path, processes: int) -> RunFolder:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command += ["--master_port", str(random.randint(20000, 40000))]
    command += ["training/train.py", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("holds the model") == 1
    return RunFolder(path.parent / "run")


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path, data: Path) -> None:
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
    one = launch(settings_file(tmp_path / "one", data, batch_size=2, **options), 1)
    two = launch(settings_file(tmp_path / "two", data, **options), 2)
    assert 0 < farthest(weights(one.checkpoint(2)), weights(two.checkpoint(2))) < 1e-5


def train_here(path: str, resume: bool, killer: tuple[str, int] | None) -> None:
    """In a process of its own, which may kill itself at the n-th call of a function of `os`."""
    import torch

    from training import train

    torch.set_num_threads(1)
    if killer is not None:
        name, count = killer
        real, calls = getattr(os, name), []

        def deadly(*arguments: object, **options: object) -> object:
            calls.append(arguments)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(os, name, deadly)
    os._exit(train.main([path, *(["--resume", "latest"] if resume else [])]))


def start(path: Path, killer: tuple[str, int] | None = None) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")  # imports once, so that a run begins in no time
    context.set_forkserver_preload(["training.train", "torch._dynamo"])  # the latter comes with an optimiser
    resume = bool(RunFolder(path.parent / "run").checkpoints())
    process = context.Process(target=train_here, args=(str(path), resume, killer))
    process.start()
    return process


def await_a_step(run: RunFolder, process: multiprocessing.process.BaseProcess) -> None:
    """Until something is logged: a process that is still importing has nothing to lose."""
    log = run.path / "metrics.jsonl"
    before = log.stat().st_size if log.is_file() else 0
    while process.is_alive() and not (log.is_file() and log.stat().st_size > before):
        process.join(0.05)


@pytest.mark.serial
def test_a_run_killed_at_any_moment_ends_as_if_never_stopped(tmp_path, data, monkeypatch) -> None:
    for name, value in (ALONE | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}).items():
        monkeypatch.setenv(name, value)
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
