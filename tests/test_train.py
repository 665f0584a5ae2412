"""Tests of the training script: both stages and sizes, stopped and resumed, and what it refuses."""

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from toy_training import BASE, LOSSES, MINI, RATES, changed, farthest, prepared_for, settings_file, weights

from sdtalk.checkpoint import load_model
from sdtalk.model import SDTalk
from training import run_state, train
from training.checkpoints import RunFolder
from training.data.dataset import PreparedDataset
from training.data.loader import PairLoader
from training.initial_model import initial_model
from training.settings import read_settings
from training.train_settings import TrainSettings

PARTS = {
    1: {"reconstructor", "neural_renderer"},
    2: {"coarse_field", "fine_field", "audio_encoder", "neural_renderer"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("prepared")
    return {size: prepared_for(folder / size, size, splits=("train", "dev")) for size in ("mini", "base")}


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch, toy_home: Path) -> Iterator[None]:
    monkeypatch.setenv("SDTALK_HOME", str(toy_home))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    new_process()


def new_process() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision only


def run(path: Path, *options: object) -> RunFolder:
    assert train.main([str(path), *map(str, options)]) == 0
    return RunFolder(Path(read_settings(path, TrainSettings).output))


def refused(capsys: pytest.CaptureFixture, path: Path, *options: object) -> str:
    assert train.main([str(path), *map(str, options)]) == 2
    return capsys.readouterr().err.rpartition("error: ")[2]


@pytest.mark.parametrize("size", ["mini", "base"])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_trains_its_parts_only(tmp_path, data, size, stage) -> None:
    path = settings_file(tmp_path, data[size], size, stage, steps=2)
    before = initial_model(read_settings(path, TrainSettings)).state_dict()
    done = run(path)
    after = weights(done.checkpoint(2))
    assert changed(before, after) == PARTS[stage]
    backbone = [k for k in before if k.startswith("reconstructor.encoder.backbone")]
    assert all(torch.equal(before[k], after[k]) for k in backbone) and bool(backbone) == (size == "base")
    lines = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert {"loss/total", "psnr", "rate/neural_renderer", "samples_per_second", "data_wait_share"} <= set(
        lines[0]
    )
    assert isinstance(load_model(done.model), SDTalk)


@pytest.mark.parametrize("size", ["mini", "base"])
@pytest.mark.parametrize("stage", [1, 2])
def test_all_that_is_to_learn_gets_a_gradient(tmp_path, data, size, stage) -> None:
    """On several GPUs anything else would end the run."""
    settings = read_settings(settings_file(tmp_path, data[size], size, stage), TrainSettings)
    network, optimiser = train.make_stage_and_optimiser(initial_model(settings), settings)
    sound = "whisper" if size == "mini" else None
    with closing(iter(PairLoader(PreparedDataset.open(data[size]), 1, 1, sound=sound))) as batches:
        losses = network(next(batches))
    losses.pop("pictures"), losses.pop("psnr")
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in train.trainable_parameters(optimiser))
    learning = {id(p) for p in train.trainable_parameters(optimiser)}
    assert all(p.requires_grad == (id(p) in learning) for p in network.parameters())


def test_the_published_way_of_stage_1_moves_nothing(tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], stage1_motion=True, steps=1)
    moved = run(path)
    still = run(settings_file(tmp_path / "still", data["mini"], steps=1))
    assert changed(weights(moved.checkpoint(1)), weights(still.checkpoint(1))) == PARTS[1]


def test_two_steps_and_two_more_are_four(tmp_path, data) -> None:
    straight = run(settings_file(tmp_path / "a", data["mini"], stage=2))
    path = settings_file(tmp_path / "b", data["mini"], stage=2)
    assert train.main([str(path), "--stop-at", "2"]) == 0
    stopped = RunFolder(tmp_path / "b" / "run")
    assert [p.name for p in stopped.checkpoints()] == ["checkpoint-000002"]
    resumed = run(path, "--resume", "latest")
    for place in ("checkpoint-000004", "model"):
        assert changed(weights(straight.path / place), weights(resumed.path / place)) == set(), place
    losses = [
        [{k: v for k, v in json.loads(line).items() if k.startswith(("loss", "rate"))} for line in lines]
        for lines in ((r.path / "metrics.jsonl").read_text().splitlines() for r in (straight, resumed))
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_a_run_that_has_only_so_long_ends_with_a_checkpoint_to_go_on_from(tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=100_000)
    assert train.main([str(path), "--max-seconds", "1"]) == 0
    done = RunFolder(tmp_path / "run")
    (last,) = done.checkpoints()[-1:]
    steps = int(last.name.rpartition("-")[2])
    assert 0 < steps < 1000 and isinstance(load_model(done.model), SDTalk)
    more = run(path, "--resume", "latest", "--set", f"steps={steps + 1}")
    assert more.checkpoints()[-1] == more.checkpoint(steps + 1)


@pytest.mark.parametrize("stage", [1, 2])
def test_accumulated_samples_are_a_larger_batch(tmp_path, data, stage) -> None:
    # Adam turns noise into whole steps where a gradient is nothing but noise: a larger eps compares what is learned
    optimiser = {"rates": dict.fromkeys(RATES[stage], 1e-4), "eps": 1e-2}
    options = {"size": "mini", "stage": stage, "steps": 2, "optimiser": optimiser}
    at_once = run(settings_file(tmp_path / "a", data["mini"], batch_size=2, **options))
    in_turn = run(settings_file(tmp_path / "b", data["mini"], accumulation=2, **options))
    assert 0 < farthest(weights(at_once.checkpoint(2)), weights(in_turn.checkpoint(2))) < 1e-6


@pytest.mark.parametrize("size, stage", [("mini", 2), ("base", 1)])
def test_bf16_changes_numbers_a_little(tmp_path, data, size, stage) -> None:
    losses, after = {}, {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        done = run(settings_file(folder, data[size], size, stage, steps=2, precision=precision))
        new_process()
        last = (done.path / "metrics.jsonl").read_text().splitlines()[-1]
        losses[precision] = json.loads(last)["loss/total"]
        after[precision] = weights(done.checkpoint(2))
        assert all(
            t.dtype == torch.float32 and t.isfinite().all()
            for t in after[precision].values()
            if t.is_floating_point()
        )
    assert farthest(after["bf16"], after["fp32"]) > 0
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize(
    "size, change, without",
    [
        ("mini", {"completion_branch": False}, "reconstructor.completion_branch"),
        ("base", {"completion_branch": False}, "reconstructor.completion_branch"),
        ("mini", {"fine_field": False}, "fine_field"),
        ("base", {"fine_field": False}, "fine_field"),
        ("mini", {"prior_depth": False}, ""),
        ("mini", {"prior_colour": False}, ""),
        ("mini", {"still_shoulders": False}, ""),
        ("mini", {"canonical_positions": False}, ""),
    ],
)
@pytest.mark.parametrize("stage", [1, 2])
def test_ablations_are_settings(tmp_path, data, size, change, without, stage) -> None:
    sizes = MINI if size == "mini" else BASE
    losses = LOSSES[size, stage]
    if "canonical_positions" in change:  # where the geometry loss looks
        losses = {name: weight for name, weight in losses.items() if name != "geometry"}
    done = run(settings_file(tmp_path, data[size], size, stage, steps=1, model=sizes | change, losses=losses))
    assert not without or not any(name.startswith(without) for name in weights(done.model))
    config = json.loads((done.model / "config.json").read_text())
    assert {name: config[name] for name in change} == change


def test_samples_and_trackers_get_pictures_and_videos(tmp_path, data) -> None:
    log = {"trackers": ["tensorboard"], "samples_every": 2, "sample_frames": 4}
    done = run(settings_file(tmp_path, data["mini"], steps=2, log=log))
    assert sorted(p.name for p in done.samples.iterdir()) == ["step000002.jpg", "step000002.mp4"]
    assert list(done.path.rglob("events.out.tfevents*"))


def test_a_new_run_does_not_mix_with_an_old_one(capsys, tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=1)
    assert "no checkpoint to resume from" in refused(capsys, path, "--resume", "latest")
    run(path)
    assert "--resume latest" in refused(capsys, path)


def test_a_resumed_run_is_the_run_that_was(capsys, tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=1)
    run(path)
    for options, message in (
        (["seed=1"], "seed was 0"),
        (["losses.image=2"], "losses was"),
        (["stage=2", "optimiser.rates={fields: 1}"], "stage was 1"),
        (["data.pool=3"], "data.pool was 2"),
        (["batch_size=2"], "1 samples a step, and now it would be 2"),
    ):
        new_process()
        assert message in refused(capsys, path, "--resume", "latest", "--set", *options)


def test_a_resumed_run_may_spread_its_samples_otherwise(tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=1, batch_size=2)
    run(path)
    other = ["batch_size=1", "accumulation=2", "data.threads=2", "steps=2", "checkpoints.keep=1"]
    assert [p.name for p in run(path, "--resume", "latest", "--set", *other).checkpoints()] == [
        "checkpoint-000002"
    ]


def test_a_damaged_checkpoint_is_named(capsys, tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=2, checkpoints={"every": 1})
    done = run(path)
    whole = shutil.copytree(done.checkpoint(2), tmp_path / "whole")
    for name in ("optimizer.bin", "model.safetensors", "training.json", "config.json"):
        shutil.copytree(whole, done.checkpoint(2), dirs_exist_ok=True)
        file = done.checkpoint(2) / name
        os.truncate(file, file.stat().st_size // 2)
        new_process()
        message = refused(capsys, path, "--resume", str(done.checkpoint(2)), "--set", "steps=3")
        assert "checkpoint-000002" in message, name
    new_process()
    assert train.main([str(path), "--resume", str(done.checkpoint(1)), "--set", "steps=3"]) == 0


def test_what_does_not_fit_together_is_refused(capsys, tmp_path, data) -> None:
    base = settings_file(tmp_path / "a", data["mini"], "base", 2)
    assert "tracker face_mesh, and the model needs flame" in refused(capsys, base)
    small = run(settings_file(tmp_path / "b", data["mini"], steps=1)).model
    large = settings_file(tmp_path / "c", data["base"], "base", start=str(small), model={}, backbone=None)
    assert "of the size mini" in refused(capsys, large)
    absent = settings_file(tmp_path / "d", data["mini"], start=str(tmp_path / "nothing"), model={})
    assert "nothing" in refused(capsys, absent)
    empty = settings_file(tmp_path / "e", data["mini"], data={"split": "test"})
    assert "'test' is empty" in refused(capsys, empty)
    nowhere = settings_file(tmp_path / "f", tmp_path / "no data")
    assert "no data" in refused(capsys, nowhere)
    bare = settings_file(tmp_path / "g", data["base"], "base", backbone=None)
    assert "DINOv2" in refused(capsys, bare)
    blind = settings_file(tmp_path / "i", data["mini"], stage=2, model=MINI | {"canonical_positions": False})
    assert "losses.geometry" in refused(capsys, blind)
    unknown = settings_file(tmp_path / "h", data["mini"], log={"trackers": ["tensorbored"]})
    assert "no such tracker" in refused(capsys, unknown)


def test_losses_that_are_no_numbers_end_the_run(capsys, tmp_path, data) -> None:
    rates = {"rates": {"neural_renderer": 1e30}, "max_grad_norm": 1e30, "warmup_steps": 0}
    path = settings_file(tmp_path, data["mini"], steps=20, optimiser=rates, checkpoints={"every": 1})
    assert "no number any more" in refused(capsys, path)


def test_a_full_disk_costs_nothing_that_was_made(capsys, monkeypatch, tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], checkpoints={"every": 1})
    real, calls = train.save_state, []

    def fill(accelerator, folder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def save(accelerator, *rest) -> None:
        calls.append(rest)
        if len(calls) == 2:
            monkeypatch.setattr(type(accelerator), "save_state", fill)
        real(accelerator, *rest)

    monkeypatch.setattr(train, "save_state", save)
    message = refused(capsys, path)
    assert "No space left on device" in message and "--resume latest" in message
    monkeypatch.undo()
    assert [p.name for p in RunFolder(tmp_path / "run").checkpoints()] == ["checkpoint-000001"]
    assert run(path, "--resume", "latest").checkpoints()[-1].name == "checkpoint-000004"


def test_sigterm_ends_a_run_with_a_checkpoint(monkeypatch, tmp_path, data) -> None:
    path = settings_file(tmp_path, data["mini"], steps=50, checkpoints={"every": 50})
    real = train.set_learning_rates

    def interrupt(optimiser, settings, step) -> dict[str, float]:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(optimiser, settings, step)

    monkeypatch.setattr(train, "set_learning_rates", interrupt)
    assert [p.name for p in run(path).checkpoints()] == ["checkpoint-000003"]


def test_rates_rise_then_fall_to_their_end(tmp_path, data) -> None:
    settings = read_settings(settings_file(tmp_path, data["mini"], steps=100), TrainSettings)
    model = torch.nn.Linear(1, 1)
    optimiser = torch.optim.Adam([{"params": model.parameters(), "name": "reconstructor"}], lr=0.0)
    rates = [train.set_learning_rates(optimiser, settings, step)["reconstructor"] for step in range(100)]
    assert rates[0] == pytest.approx(0.5e-3) and rates[1] == pytest.approx(1e-3 * (1 - 0.009))
    assert rates[-1] == pytest.approx(1e-3 * (1 - 0.9 * 0.99)) and rates[50] == pytest.approx(1e-3 * 0.55)


def test_saving_writes_the_whole_model_and_nothing_else(tmp_path, data) -> None:
    settings = read_settings(settings_file(tmp_path, data["mini"]), TrainSettings)
    model = initial_model(settings)
    run_state.save_model(model, tmp_path)
    assert changed(model.state_dict(), load_model(tmp_path).state_dict()) == set()
