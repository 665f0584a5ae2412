"""Tests of training on a GPU: a step there is the CPU's, and a run in bfloat16 is saved, resumed and loaded."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from toy_training import prepared_for, settings_file

from sdtalk.checkpoint import load_model
from training import train
from training.checkpoints import RunFolder
from training.data.dataset import PreparedDataset
from training.data.loader import PairLoader
from training.initial_model import initial_model
from training.settings import read_settings
from training.train_settings import TrainSettings

needs_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
LOSSES = {
    1: {"image": 1, "rasterised": 1, "alpha": 1, "lifting": 1},
    2: {"image": 1, "lip": 1, "geometry": 0.1, "sound": 1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_for(tmp_path_factory.mktemp("prepared") / "mini", splits=("train", "dev"))


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """Without TF32, whose rounding would be most of what is compared; each test is a new process to accelerate."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
    AcceleratorState._reset_state(reset_partial_state=True)


def losses_and_gradients(path: Path, device: str) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Of the first batch: losses by name, and the gradient of each group of parameters as one vector."""
    settings = read_settings(path, TrainSettings)
    prepared = PreparedDataset.open(settings.data.source)
    model = initial_model(settings)
    for field in model.motion_fields:  # which start as the identity, and then tables have no gradient
        torch.nn.init.normal_(field.mlp[-1].weight, std=0.01, generator=torch.Generator().manual_seed(0))
    stage, optimiser = train.make_stage_and_optimiser(model, settings)
    stage.to(device)
    with closing(iter(PairLoader(prepared, 2, 1, sound="whisper"))) as batches:
        batch = {name: part.to(device) for name, part in next(batches).items()}
    losses = stage(batch)
    losses.pop("pictures"), losses.pop("psnr")
    torch.stack(list(losses.values())).sum().backward()
    gradients = {
        group["name"]: torch.cat([p.grad.flatten() for p in group["params"]]).cpu()
        for group in optimiser.param_groups
    }
    return {name: value.item() for name, value in losses.items()}, gradients


def compare(path: Path, device: str) -> None:
    expected, expected_gradients = losses_and_gradients(path, "cpu")
    found, gradients = losses_and_gradients(path, device)
    assert found == pytest.approx(expected, rel=1e-3)
    for name, gradient in expected_gradients.items():
        assert gradient.norm() > 0, name
        difference = float((gradients[name] - gradient).norm() / gradient.norm())
        assert difference < 2e-2, f"gradient of {name} is off by {difference:.1e}"


@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_depends_on_nothing_but_its_batch(stage: int, data: Path, tmp_path: Path) -> None:
    """What the next test compares between devices is the same number twice on one."""
    compare(settings_file(tmp_path, data, stage=stage, losses=LOSSES[stage]), "cpu")


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("stage", [1, 2])
def test_a_step_on_a_gpu_is_the_cpus(stage: int, data: Path, tmp_path: Path) -> None:
    compare(settings_file(tmp_path, data, stage=stage, losses=LOSSES[stage]), "cuda")


@pytest.mark.gpu
@needs_a_gpu
@pytest.mark.parametrize("stage", [1, 2])
def test_a_run_on_a_gpu_is_saved_resumed_and_loaded(stage: int, data: Path, tmp_path: Path) -> None:
    path = settings_file(tmp_path, data, stage=stage, steps=3, precision="bf16", batch_size=2)
    assert train.main([str(path), "--stop-at", "2"]) == 0
    assert train.main([str(path), "--resume", "latest"]) == 0
    run = RunFolder(tmp_path / "run")
    assert run.checkpoints()[-1] == run.checkpoint(3)
    for folder in (run.model, run.checkpoint(3)):
        assert all(bool(tensor.isfinite().all()) for tensor in load_model(folder).parameters())
