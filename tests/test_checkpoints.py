"""Tests of the run folder: whole checkpoints or none, rotation, the log after a resumption, and the EMA."""

import errno
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from sdtalk.errors import InputError
from training.checkpoints import (
    METADATA,
    PARTIAL,
    REMOVED,
    RunFolder,
    atomic_folder,
    checkpoint_metadata,
    checkpoint_step,
)
from training.ema import ema_model


def write_checkpoint(run: RunFolder, step: int) -> Path:
    with atomic_folder(run.checkpoint(step)) as draft:
        (draft / "weights").write_text(str(step))
        (draft / METADATA).write_text(json.dumps({"step": step}))
    return run.checkpoint(step)


def test_checkpoints_are_ordered_by_step_and_rotated(tmp_path) -> None:
    run = RunFolder(tmp_path)
    for step in (900, 1000000, 50):
        write_checkpoint(run, step)
    assert [checkpoint_step(p) for p in run.checkpoints()] == [50, 900, 1000000]
    run.rotate(2)
    assert [checkpoint_step(p) for p in run.checkpoints()] == [900, 1000000]
    run.rotate(0)
    assert len(run.checkpoints()) == 2
    assert not list(tmp_path.glob(f"*{REMOVED}"))


def test_a_failed_write_leaves_what_was_there(tmp_path) -> None:
    run = RunFolder(tmp_path)
    write_checkpoint(run, 1)
    with pytest.raises(InputError, match="No space left"), atomic_folder(run.checkpoint(1)) as draft:
        (draft / "weights").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (run.checkpoint(1) / "weights").read_text() == "1"
    assert not list(tmp_path.glob(f"*{PARTIAL}"))


def test_nothing_appears_before_all_is_written(tmp_path) -> None:
    with atomic_folder(tmp_path / "model") as draft:
        (draft / "a").write_text("1")
        assert not (tmp_path / "model").exists()
    with atomic_folder(tmp_path / "model") as draft:
        (draft / "b").write_text("2")
        assert (tmp_path / "model" / "a").is_file()
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["b"]


def test_what_a_killed_run_left_is_no_checkpoint_and_is_cleaned_up(tmp_path) -> None:
    run = RunFolder(tmp_path)
    write_checkpoint(run, 1)
    (tmp_path / f"checkpoint-000002{PARTIAL}").mkdir()
    (tmp_path / f"checkpoint-000000{REMOVED}").mkdir()
    (tmp_path / "checkpoint-000003").mkdir()  # by hand: nothing in it says that it is whole
    assert [checkpoint_step(p) for p in run.checkpoints()] == [1]
    run.clean()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-000001", "checkpoint-000003"]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"step": "x"}'])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path, text) -> None:
    if text is not None:
        (tmp_path / METADATA).write_text(text)
    with pytest.raises(InputError, match=METADATA):
        checkpoint_metadata(tmp_path)


def test_the_log_forgets_steps_that_are_done_again(tmp_path) -> None:
    run = RunFolder(tmp_path)
    run.truncate_log(0)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 0.5})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    run.truncate_log(2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_the_average_follows_and_forgets_its_start() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    ema = ema_model(model, 0.9)
    expected = 0.0
    for step in range(30):
        nn.init.constant_(model.weight, float(step))
        ema.update_parameters(model)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if step == 0 else kept * expected + (1 - kept) * step
    assert ema.module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not any(p.requires_grad for p in ema.parameters())
    torch.testing.assert_close(model.weight, torch.full((1, 1), 29.0))
