"""Metrics logger: progress bar, metrics.jsonl and experiment trackers; losses, speeds, pictures and videos."""

import time
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sdtalk.errors import InputError
from sdtalk.image import to_frames
from training.checkpoints import RunFolder
from training.settings import settings_to_dict
from training.train_settings import TrainSettings

PROJECT = "sdtalk"


def check_trackers(names: list[str]) -> None:
    """Refuse trackers that accelerate does not know or that are not installed, before anything starts.

    Raises:
        InputError: Names the tracker.
    """
    installed = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            remedy = f"Known are {', '.join(map(str, LOGGER_TYPE_TO_CLASS))}."
            raise InputError(f"log.trackers: {name}", "accelerate has no such tracker", remedy)
        if name not in installed:
            raise InputError(f"log.trackers: {name}", "its package is not installed", f"pip install {name}")


class MetricsLogger:
    """Collects losses and speeds, and logs their means every few steps; only the main process writes."""

    def __init__(
        self, accelerator: Accelerator, run: RunFolder, settings: TrainSettings, start_step: int
    ) -> None:
        self.accelerator, self.run, self.settings = accelerator, run, settings
        self.sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=accelerator.device))
        self.micro_steps, self.steps, self.waited = 0, 0, 0.0
        self.since = time.perf_counter()
        if settings.log.trackers:
            accelerator.init_trackers(PROJECT, config=_flat(settings_to_dict(settings)))
        self.bar = tqdm(
            initial=start_step,
            total=settings.steps,
            unit="step",
            disable=not accelerator.is_main_process,
            dynamic_ncols=True,
        )

    def add(self, losses: dict[str, Tensor], psnr: Tensor) -> None:
        """Take note of a micro-step's losses, and of its pictures' likeness, without waiting for the device."""
        for name, value in losses.items():
            self.sums[f"loss/{name}"] += value.detach()
        self.sums["loss/total"] += torch.stack(list(losses.values())).sum().detach()
        self.sums["psnr"] += psnr
        self.micro_steps += 1

    def step(self, step: int, rates: dict[str, float], norm: Tensor | None, waited: float) -> None:
        """Count a step, and report where one is due.

        Args:
            step: Steps done.
            rates: Learning rates by group.
            norm: Length of the gradient before it was shortened.
            waited: Seconds that the loader has made this process wait since the start.
        """
        self.steps += 1
        self.bar.update()
        if step % self.settings.log.every and step != self.settings.steps:
            return
        values = self._means()
        seconds = time.perf_counter() - self.since
        samples = self.steps * self.settings.batch_size * self.settings.accumulation
        values |= {f"rate/{name}": rate for name, rate in rates.items()}
        values |= {
            "samples_per_second": samples * self.accelerator.num_processes / seconds,
            "seconds_per_step": seconds / self.steps,
            "data_wait_share": (waited - self.waited) / seconds,
        }
        if norm is not None:
            values["gradient_norm"] = float(norm)
        self.steps, self.waited = 0, waited
        if self.accelerator.is_main_process:
            self.run.log({"step": step, **{k: round(v, 7) for k, v in values.items()}})
            self.bar.set_postfix(loss=f"{values['loss/total']:.4f}")
        self.accelerator.log(values, step=step)
        self.since = time.perf_counter()

    def _means(self) -> dict[str, float]:
        """Of what was added since the last report, over all processes."""
        names = sorted(self.sums)
        means = torch.stack([self.sums[name] for name in names]) / max(self.micro_steps, 1)
        means = self.accelerator.reduce(means, "mean")
        self.sums.clear()
        self.micro_steps = 0
        return dict(zip(names, means.tolist(), strict=True))

    def log_images(self, step: int, pictures: Tensor) -> None:
        """Rasterised, finished and real windows of the last batch, one sample below the other."""
        if not self.accelerator.is_main_process:
            return
        self.run.samples.mkdir(exist_ok=True)
        sheet = np.concatenate(list(to_frames(pictures)))
        Image.fromarray(sheet).save(self.run.samples / f"step{step:06d}.jpg", quality=90)
        title = "rasterised, finished, real"
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            if hasattr(tracker, "log_images"):
                tracker.log_images({title: sheet[None]}, step=step, **layout)
            elif tracker.name == "trackio":
                tracker.log({title: import_module("trackio").Image(sheet)}, step=step)

    def log_video(self, step: int, path: Path) -> None:
        """Hand a sample video to the trackers that show videos; the file stays where it is."""
        for tracker in self.accelerator.trackers:
            if tracker.name in ("wandb", "trackio"):
                video = import_module(tracker.name).Video(str(path))
                tracker.log({"real, predicted": video}, step=step)

    def print(self, text: str) -> None:
        """A line above the progress bar."""
        if self.accelerator.is_main_process:
            self.bar.write(text)

    def close(self) -> None:
        """End the trackers and the bar."""
        self.bar.close()
        self.accelerator.end_training()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, (int, float, str, bool)) else str(value)
    return flat
