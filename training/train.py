"""Train a stage of the paper (section 3.3): stage 1 reconstruction, stage 2 motion, either size, any number of GPUs.

    accelerate launch training/train.py training/configs/mini_stage1.yaml --set data.source=data/prepared
    accelerate launch training/train.py training/configs/mini_stage2.yaml --set data.source=data/prepared
    accelerate launch training/train.py CONFIG --resume latest          # goes on as if it had never stopped
    accelerate launch training/train.py CONFIG --push-to-hub USER/NAME

`training/train_settings.py` explains every setting, `training/checkpoints.py` what the folder of a run holds. SIGTERM
and Ctrl-C end a run after the step at work, with a checkpoint.

The way of the data, with the types at the arrows:

    CONFIG ─ TrainSettings ─► initial_model ─ SDTalk ─► Stage, Adam                          once per run
    DATA ─ PreparedDataset ─► FrameSampler ─ OpenClip, Sample ─► PairLoader
                                                                     │ batch: dict[str, Tensor]
                                                                     ▼
                                                               Stage.forward                 per micro-batch
                                                                     │ losses: dict[str, Tensor]; pictures, psnr
                              ┌──────────────────────────────────────┴──────┐
                              ▼                                             ▼
                    total_loss, backward                  MetricsLogger ─► metrics.jsonl, trackers
                              │ gradients
                              ▼
                    clip_grad_norm_, Adam                                                    per step
                              │ parameters
              ┌───────────────┴──────────────┐
              ▼                              ▼
     EMA: AveragedModel                  run_state ─► RUN/checkpoint-000500/                 every so many steps
              │ SDTalk
              ▼
         RunOutputs ─► RUN/model/, RUN/samples/, the Hub
"""

import argparse
import shlex
import signal
import sys
import time
from contextlib import closing
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the folder above holds the package `training`
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sdtalk.process import tune_process

tune_process()

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import send_to_device
from torch import Tensor

from sdtalk.errors import InputError
from training.checkpoints import RunFolder
from training.data.dataset import PreparedDataset
from training.data.loader import PairLoader
from training.ema import ema_model
from training.initial_model import initial_model
from training.metrics_logger import MetricsLogger, check_trackers
from training.run_outputs import RunOutputs
from training.run_state import begin_run, check_data, load_checkpoint_model, load_state, save_state
from training.settings import read_settings
from training.stages import Stage
from training.train_settings import TrainSettings


def train(
    settings: TrainSettings,
    resume: str | None = None,
    stop_at: int | None = None,
    max_seconds: float | None = None,
) -> RunFolder:
    """Run a stage to its end.

    Args:
        settings: What to train.
        resume: "latest", a checkpoint's folder, or USER/NAME[@REVISION]; None starts a new run.
        stop_at: End after this step with a checkpoint, as if interrupted; None: at the last one.
        max_seconds: End likewise so many seconds from now, after the step at work then; None: whenever.

    Returns:
        The run's folder; its `model` is what was trained.

    Raises:
        InputError: Settings, data, a checkpoint or the Hub cannot be used.
    """
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    check_trackers(settings.log.trackers)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # the rasterisers know CUDA and CPUs; several CPU processes need to be told
        mixed_precision="no" if settings.precision == "fp32" else settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        log_with=settings.log.trackers or None,
        project_dir=settings.output,
    )
    run, checkpoint = begin_run(accelerator, settings, resume)
    prepared = PreparedDataset.open(settings.data.source)
    model = initial_model(settings) if checkpoint is None else load_checkpoint_model(settings, checkpoint)
    check_data(prepared, model.config, settings)
    ema = ema_model(model, settings.optimiser.ema_decay).to(accelerator.device)
    stage, optimiser = accelerator.prepare(*make_stage_and_optimiser(model, settings))
    step = load_state(accelerator, ema, checkpoint)
    last = min(settings.steps, stop_at or settings.steps)
    logger = MetricsLogger(accelerator, run, settings, step)
    outputs = RunOutputs(accelerator, run, settings, prepared, ema, logger)
    loader = make_loader(prepared, settings, model.config.sound, accelerator, step, last)
    stop_requested = StopRequest(accelerator, deadline)
    with closing(iter(loader)) as batches:  # type: ignore[type-var]
        while step < last and not stop_requested(step):
            rates = set_learning_rates(optimiser, settings, step)
            norm = None
            for _ in range(settings.accumulation):
                batch = send_to_device(next(batches), accelerator.device)
                with accelerator.accumulate(stage):
                    losses: dict[str, Tensor] = stage(batch)
                    pictures, psnr = losses.pop("pictures"), losses.pop("psnr")
                    accelerator.backward(total_loss(losses, run, step))
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(
                            trainable_parameters(optimiser), settings.optimiser.max_grad_norm
                        )
                    optimiser.step()
                    optimiser.zero_grad()
                logger.add(losses, psnr)
            step += 1
            ema.update_parameters(accelerator.unwrap_model(stage).model)
            logger.step(step, rates, norm, loader.wait_seconds)
            if is_due(step, settings.log.samples_every, settings):
                outputs.write_samples(step, pictures)
            if is_due(step, settings.checkpoints.every, settings):
                save_state(accelerator, run, settings, step)
                outputs.write_model(step)
    if run.checkpoint(step) not in run.checkpoints():
        save_state(accelerator, run, settings, step)
        outputs.write_model(step)
    outputs.close(step)
    logger.close()
    return run


def make_stage_and_optimiser(
    model: torch.nn.Module, settings: TrainSettings
) -> tuple[Stage, torch.optim.Optimizer]:
    """The stage and its optimiser, a group of parameters for each learning rate."""
    stage = Stage(model, settings)
    groups = [{"params": parameters, "name": name} for name, parameters in stage.groups().items()]
    beta1, beta2 = settings.optimiser.betas
    return stage, torch.optim.Adam(groups, lr=0.0, betas=(beta1, beta2), eps=settings.optimiser.eps)


def total_loss(losses: dict[str, Tensor], run: RunFolder, step: int) -> Tensor:
    """The loss of a batch.

    Raises:
        InputError: It is no number any more.
    """
    total = torch.stack(list(losses.values())).sum()
    if not total.isfinite():
        wrong = next((name for name, value in losses.items() if not value.isfinite()), "their sum")
        kept = run.checkpoints()
        last = f"{kept[-1].name} is from before that" if kept else "no checkpoint was saved yet"
        problem = f"the loss {wrong} is no number any more after step {step}; {last}"
        raise InputError(str(run.path), problem, "Lower the learning rates, or use precision: fp32.")
    return total


def make_loader(
    prepared: PreparedDataset,
    settings: TrainSettings,
    sound: str,
    accelerator: Accelerator,
    step: int,
    last: int,
) -> PairLoader:
    """This process's share of the samples of the steps to come.

    Args:
        prepared: Where the clips are.
        settings: Of the run.
        sound: What the model hears; mini only where a loss asks for it.
        accelerator: Knows the processes.
        step: Steps done before.
        last: The step after which the run ends.
    """
    return PairLoader(
        prepared,
        split=settings.data.split,
        per_device=settings.batch_size,
        processes=accelerator.num_processes,
        rank=accelerator.process_index,
        accumulation=settings.accumulation,
        steps=last,
        start_step=step,
        seed=settings.seed,
        sound="whisper" if sound == "whisper" else None,
        with_sound=settings.size == "base" or bool(settings.losses.get("sound")),
        threads=settings.data.threads,
        prefetch=settings.data.prefetch,
        own_speech_only=settings.stage == 2 and settings.size == "base",
        open_clips=settings.data.pool,
        samples_per_clip=settings.data.draws_per_piece,
    )


def set_learning_rates(
    optimiser: torch.optim.Optimizer, settings: TrainSettings, step: int
) -> dict[str, float]:
    """Learning rates of a step: linear warm-up, then linear decay (paper)."""
    chosen = settings.optimiser
    decayed = 1 - (1 - chosen.final_rate) * step / settings.steps
    factor = min(1.0, (step + 1) / max(chosen.warmup_steps, 1)) * decayed
    for group in optimiser.param_groups:
        group["lr"] = chosen.rates[group["name"]] * factor
    return {group["name"]: group["lr"] for group in optimiser.param_groups}


def trainable_parameters(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Every parameter that learns."""
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def is_due(step: int, every: int, settings: TrainSettings) -> bool:
    """Whether something happens after a step; the last one counts."""
    return every > 0 and (step % every == 0 or step == settings.steps)


class StopRequest:
    """Whether a run is to end: by the first SIGTERM or Ctrl-C, or the time; a second Ctrl-C ends it at once."""

    EVERY = 10  # steps from one question to the other processes to the next

    def __init__(self, accelerator: Accelerator, deadline: float | None = None) -> None:
        self.accelerator, self.deadline, self.asked = accelerator, deadline, False
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __call__(self, step: int) -> bool:
        """Whether to end before this step; the same answer on every process."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.asked = True
        if self.accelerator.num_processes == 1:
            return self.asked
        if step % self.EVERY:
            return False
        if self.asked:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()


def argument_parser() -> argparse.ArgumentParser:
    """The command line."""
    usage = (__doc__ or "").partition("\nThe way of the data")[0]
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="a YAML file, see training/configs")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="change settings of the file"
    )
    parser.add_argument("--resume", metavar="latest|FOLDER|USER/NAME", help="continue from a checkpoint")
    parser.add_argument(
        "--stop-at", type=int, metavar="STEP", help="end after this step, to be resumed later"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        metavar="SECONDS",
        help="end after so long, to be resumed later: for machines that are lent for minutes",
    )
    parser.add_argument(
        "--push-to-hub", metavar="USER/NAME", help="upload the model now and then and at the end"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; 0 when all went well, 2 when an input cannot be used."""
    arguments = argument_parser().parse_args(argv)
    changes = list(arguments.set)
    if arguments.push_to_hub:
        changes.append(f"hub.repo={shlex.quote(arguments.push_to_hub)}")
    try:
        settings = read_settings(arguments.config, TrainSettings, changes)
        run = train(settings, arguments.resume, arguments.stop_at, arguments.max_seconds)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if PartialState().is_main_process:
        print(f"{run.model} holds the model: sdtalk photo.jpg speech.wav -o talk.mp4 --model {run.model}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
