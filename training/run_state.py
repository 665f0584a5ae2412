"""Run state: begin, save and resume a run; what stands around the loop of `training/train.py`."""

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from sdtalk.checkpoint import WEIGHTS, load_model, read_config
from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.flame.file import load_flame
from sdtalk.model import SDTalk
from sdtalk.weights.config_file import write_config
from sdtalk.weights.hub import split_revision
from training.checkpoints import METADATA, RunFolder, atomic_folder, checkpoint_metadata, checkpoint_step
from training.data.dataset import PreparedDataset
from training.hub_repository import download_state
from training.initial_model import initial_config
from training.processes import wait_for_all
from training.settings import settings_to_dict, write_settings
from training.train_settings import TrainSettings

LATEST = "latest"
MAY_CHANGE = {"steps", "log", "checkpoints", "hub", "output", "batch_size", "accumulation"}
DATA_MAY_CHANGE = {"source", "sample_split", "threads", "prefetch"}
"""Settings that may differ from those a resumed run was started with, and those of them in the group `data`."""


def begin_run(
    accelerator: Accelerator, settings: TrainSettings, resume: str | None
) -> tuple[RunFolder, Path | None]:
    """The run's folder and the checkpoint to go on from.

    Raises:
        InputError: There is nothing to resume, or a new run would mix with an old one.
    """
    run = RunFolder(Path(settings.output))
    checkpoint = _find_checkpoint(run, resume) if resume else None
    if checkpoint is None and not resume and run.checkpoints():
        remedy = "Add --resume latest to go on with it, or choose another `output`."
        raise InputError(str(run.path), f"it holds {run.checkpoints()[-1].name} of an earlier run", remedy)
    if checkpoint is not None:
        _check_settings(settings, checkpoint, accelerator.num_processes)
    if accelerator.is_main_process:
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.clean()
            run.truncate_log(checkpoint_step(checkpoint) if checkpoint else 0)
            write_settings(run.settings, settings)
        except OSError as error:
            remedy = "Choose another `output`."
            raise InputError(str(run.path), f"it cannot be written ({error.strerror})", remedy) from error
    wait_for_all()
    return run, checkpoint


def _find_checkpoint(run: RunFolder, resume: str) -> Path:
    if resume != LATEST:
        return Path(resume) if Path(resume).is_dir() else download_state(*split_revision(resume))
    if not (kept := run.checkpoints()):
        remedy = "Leave --resume out to start it."
        raise InputError(str(run.path), "this run has no checkpoint to resume from", remedy)
    return kept[-1]


def _check_settings(settings: TrainSettings, checkpoint: Path, processes: int) -> None:
    """A run that goes on must be the run that was: otherwise it would not end as if never stopped."""
    metadata, now = checkpoint_metadata(checkpoint), json.loads(json.dumps(settings_to_dict(settings)))
    then = metadata["settings"]
    before = {k: v for k, v in then.items() if k not in MAY_CHANGE} | _fixed_data_settings(then["data"])
    wanted = {k: v for k, v in now.items() if k not in MAY_CHANGE} | _fixed_data_settings(now["data"])
    remedy = "Set it back, or begin a new run with `start:` at its model."
    for name, value in wanted.items():
        if name != "data" and before.get(name) != value:
            problem = f"{name} was {before.get(name)!r} in the run that it continues, and is {value!r} now"
            raise InputError(str(checkpoint), problem, remedy)
    samples = [
        n * s["batch_size"] * s["accumulation"] for n, s in ((metadata["processes"], then), (processes, now))
    ]
    if samples[0] != samples[1]:
        problem = f"its run saw {samples[0]} samples a step, and now it would be {samples[1]}"
        raise InputError(str(checkpoint), problem, "Choose processes, batch_size and accumulation to fit.")


def _fixed_data_settings(data: dict[str, Any]) -> dict[str, Any]:
    return {f"data.{name}": value for name, value in data.items() if name not in DATA_MAY_CHANGE}


def load_checkpoint_model(settings: TrainSettings, checkpoint: Path) -> SDTalk:
    """The model as it was at a checkpoint.

    Raises:
        InputError: It is damaged, or of another size than the settings say.
    """
    found = read_config(checkpoint)
    if settings.start is None and found != (wanted := initial_config(settings)):
        names = [n for n in vars(found) if getattr(found, n) != getattr(wanted, n)]
        problem = f"its {names[0]} is {getattr(found, names[0])!r} where the settings say"
        remedy = "Resume with the settings it was trained with."
        raise InputError(str(checkpoint), f"{problem} {getattr(wanted, names[0])!r}", remedy)
    return load_model(checkpoint)


def check_data(prepared: PreparedDataset, config: SDTalkConfig, settings: TrainSettings) -> None:
    """Refuse data with another tracker or other sound features than the model needs.

    Raises:
        InputError: Says what differs, and how to prepare the data; or FLAME, which it needs, is not on this machine.
    """
    wanted = {
        "tracker": config.template,
        "sound": config.sound,
    }
    unheard = settings.stage == 1 and not settings.stage1_motion
    if unheard or config.sound == "whisper":  # Whisper's features are computed from the sound itself
        wanted.pop("sound")
    for name, kind in wanted.items():
        found = getattr(prepared.index, name)
        if found != kind:
            remedy = f"Prepare it with --set {name}={kind}."
            problem = f"it was prepared with {name} {found}, and the model needs {kind}"
            raise InputError(settings.data.source, problem, remedy)
    if prepared.index.tracker == "flame":
        load_flame()  # places its vertices; what is missing shows now
    if not prepared.index.of(settings.data.split):
        remedy = "Set data.split to one that has clips, or prepare more videos."
        raise InputError(settings.data.source, f"its split {settings.data.split!r} is empty", remedy)


def load_state(accelerator: Accelerator, ema: AveragedModel, checkpoint: Path | None) -> int:
    """Make accelerate save and load what belongs to a run, and load it; returns the steps done.

    Raises:
        InputError: A file of the checkpoint is missing or damaged.
    """

    def save_weights(models: list, weights: list, folder: str) -> None:
        weights.clear()
        if accelerator.is_main_process:
            save_model(accelerator.unwrap_model(models[0]).model, Path(folder))

    def skip_weights(models: list, folder: str) -> None:
        models.clear()  # loaded by `load_checkpoint_model`, strictly

    accelerator.register_for_checkpointing(ema)
    accelerator.register_save_state_pre_hook(save_weights)
    accelerator.register_load_state_pre_hook(skip_weights)
    if checkpoint is None:
        return 0
    try:
        accelerator.load_state(str(checkpoint))
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        remedy = "Resume from the checkpoint before it."
        raise InputError(str(checkpoint), f"it cannot be loaded ({reason})", remedy) from error
    return checkpoint_step(checkpoint)


def save_model(model: SDTalk, folder: Path) -> None:
    """Write config.json and model.safetensors, and nothing else."""
    write_config(model.config, folder)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def save_state(accelerator: Accelerator, run: RunFolder, settings: TrainSettings, step: int) -> None:
    """Write the checkpoint of a step, then remove the oldest.

    Raises:
        InputError: It cannot be written; the checkpoints before it are still there.
    """
    main = accelerator.is_main_process
    with atomic_folder(run.checkpoint(step), main, wait_for_all) as draft:
        with _disk_errors():
            accelerator.save_state(str(draft))
        if main:
            metadata = {
                "step": step,
                "processes": accelerator.num_processes,
                "settings": settings_to_dict(settings),
            }
            (draft / METADATA).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    if main:
        run.rotate(settings.checkpoints.keep)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Let a full disk look like one, whichever library meets it."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:  # of torch.save and of safetensors
        raise OSError(0, str(error).strip().splitlines()[0]) from error
