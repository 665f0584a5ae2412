"""Tests of scripts/gpu_train.sh: a rehearsal from prepared data to an evaluated model, and how time is shared out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_clips import write_face_clip
from made_up_data import packed
from toy import toy_model

from scripts.gpu.steps import ROOT
from scripts.gpu.train import held_out, keep_model
from scripts.gpu.train_facts import painter_facts, stage_facts
from scripts.gpu.train_plan import SHARES, STARTING_SECONDS, TrainPlan, newest, prepare_steps
from sdtalk.checkpoint import load_model
from sdtalk.tracking.tracker import Tracker

SCRIPT = ROOT / "scripts" / "gpu_train.sh"


def run(*words: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run([SCRIPT, *map(str, words)], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, one of whom is held out."""
    folder, tracker = tmp_path_factory.mktemp("faces"), Tracker.from_bundled()
    clips = [
        write_face_clip(folder / f"clip-{split}", tracker, 6, split == "dev", seed, split)
        for seed, split in enumerate(("train", "dev"))
    ]
    return Path(packed(folder / "set", clips).store.source)


def test_a_rehearsal_goes_from_data_to_an_evaluated_model(data: Path, tmp_path: Path) -> None:
    done = run("--data", data, "--out", tmp_path, "--until", 400, "--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "log.txt").read_text()
    steps = {step["name"]: step for step in json.loads((tmp_path / "report.json").read_text())["steps"]}
    assert {step["status"] for step in steps.values()} == {"passed"}
    for name in ("evaluate before", "evaluate after"):
        assert steps[name]["facts"]["clips"] == 1 and steps[name]["facts"]["metrics"]["psnr"] > 10
    assert steps["stage 2"]["facts"]["steps"] == 2 and steps["stage 1"]["facts"]["first"]["loss/total"] > 0
    assert steps["eyes"]["facts"]["dev_psnr"]["first"] > 10
    assert load_model(tmp_path / "model").config.name == load_model("mini").config.name
    for number in (1, 2):
        checkpoint = newest(tmp_path / "work" / f"stage{number}")
        assert checkpoint is not None and checkpoint.name == "checkpoint-000002"
        assert str(checkpoint) in (tmp_path / "report.md").read_text()
    assert "| psnr |" in (tmp_path / "report.md").read_text()


def test_what_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    done = run("--clips", tmp_path / "nothing", "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no such folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_share_of_the_time_is_for_learning_or_for_nothing(tmp_path: Path) -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    plan = TrainPlan(tmp_path, tmp_path, "cuda", tiny=False, batch=16)
    stage, painter = plan.stage(1, "mini", 90.0), plan.painter("mouth", 90.0)
    for step in (stage, painter):
        words = list(step.command)
        assert float(words[words.index("--max-seconds") + 1]) == 90 - STARTING_SECONDS
        assert not step.skip and step.seconds >= 90
    assert "precision=bf16" in stage.command and "batch_size=16" in stage.command
    assert plan.stage(2, "mini", 20.0).skip and plan.painter("eyes", -5.0).skip


def test_videos_are_prepared_by_as_many_processes_as_there_are_cores_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.mp4").touch()
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    together, alone = prepare_steps(tmp_path, tmp_path / "data", 60)
    assert "3 processes" in together.name
    assert (
        "torch.distributed.run" not in alone.command
        and list(alone.command)[-5:] == list(together.command)[-5:]
    )
    assert float(alone.command[-1]) < alone.seconds  # time for the videos that are at work then
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert len(prepare_steps(tmp_path, tmp_path / "data", 60)) == 1
    (tmp_path / "manifest.json").touch()
    assert str(tmp_path / "manifest.json") in prepare_steps(tmp_path, tmp_path / "data", 60)[0].command


def test_the_best_model_that_is_whole_is_kept(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    keep_model(work, out)
    assert not out.exists()
    for number, folder in enumerate(("stage1/model", "stage2/model")):
        toy_model(margin_px=8 * number).save_pretrained(work / folder)
    (work / "model").mkdir()
    (work / "model" / "config.json").touch()  # it was stopped before the weights
    keep_model(work, out)
    assert load_model(out / "model").config.margin_px == 8


def test_a_painter_that_has_become_worse_is_not_kept(tmp_path: Path) -> None:
    assert painter_facts(tmp_path) == {"steps": 0, "dev_psnr": {}, "better": False}
    assert stage_facts(tmp_path) == {"steps": 0, "has model": False}
    (tmp_path / "painter.safetensors").touch()
    for last, better in ((24.3, True), (23.9, False)):
        lines = [{"step": 0, "dev_psnr": 24.0}, {"step": 50, "pixels": 0.1}, {"step": 70, "dev_psnr": last}]
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        found = painter_facts(tmp_path)
        assert found["better"] == better and found["dev_psnr"] == {"first": 24.0, "last": last}


def test_people_who_were_not_learned_from_are_measured_where_there_are_any(tmp_path: Path) -> None:
    for splits, chosen in (
        (["train", "dev", "test"], "dev"),
        (["train", "test"], "test"),
        (["train"], "train"),
    ):
        (tmp_path / "index.json").write_text(json.dumps({"clips": [{"split": split} for split in splits]}))
        assert held_out(tmp_path) == chosen
