"""Run folder: checkpoints that are whole or not there, the finished model, and the log.

    RUN/settings.yaml            what the run was started with
    RUN/checkpoint-000500/       config.json, model.safetensors (as trained), optimiser, average and random state
    RUN/model/                   config.json, model.safetensors (the average), README.md: for --model and the Hub
    RUN/metrics.jsonl            losses, rates and speeds by step
    RUN/samples/                 contact sheets and videos

A folder is written beside its place under a name ending in `.partial`, forced to the disk, and renamed; the one that it
replaces is called `.partial-old` for a moment.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError
from sdtalk.weights.folder import force_to_disk, replaced_folder, told_as_input_error

PARTIAL, REMOVED = ".partial", ".removed"
REMEDY = "Make room or choose another `output`, then continue with --resume latest."
METADATA = "training.json"
"""Written last: a checkpoint without it is none."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def settings(self) -> Path:
        """The settings it was started with."""
        return self.path / "settings.yaml"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model"

    @property
    def samples(self) -> Path:
        """Contact sheets and videos."""
        return self.path / "samples"

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / f"checkpoint-{step:06d}"

    def checkpoints(self) -> list[Path]:
        """Those that are whole, the oldest first."""
        found = (p for p in self.path.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name))
        return sorted((p for p in found if (p / METADATA).is_file()), key=_step_in_name)

    def clean(self) -> None:
        """Remove what interrupted runs left half written."""
        for path in (*self.path.glob(f"*{PARTIAL}*"), *self.path.glob(f"*{REMOVED}")):
            shutil.rmtree(path, ignore_errors=True)

    def rotate(self, keep: int) -> None:
        """Remove all but the newest checkpoints."""
        for old in self.checkpoints()[:-keep] if keep else []:
            aside = old.with_name(old.name + REMOVED)
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(old, aside)  # first the name goes, so that nobody resumes from half of it
            shutil.rmtree(aside, ignore_errors=True)

    def log(self, values: dict[str, Any]) -> None:
        """Add a line to the log."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def truncate_log(self, step: int) -> None:
        """Forget what an interrupted run logged after the step that is resumed from."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        lines = [
            line for line in path.read_text(encoding="utf-8").splitlines() if _step_in_line(line) <= step
        ]
        partial = path.with_name(path.name + PARTIAL)
        partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        os.replace(partial, path)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimiser steps behind a checkpoint.

    Raises:
        InputError: It is not whole.
    """
    return int(checkpoint_metadata(checkpoint)["step"])


def checkpoint_metadata(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself: step, processes and the settings of its run.

    Raises:
        InputError: It is not whole.
    """
    remedy = "Give a folder checkpoint-... of a run, or resume from the one before."
    try:
        metadata = json.loads((checkpoint / METADATA).read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"it is no checkpoint to resume from ({METADATA} is missing)"
        raise InputError(str(checkpoint), problem, remedy) from error
    except ValueError as error:
        raise InputError(str(checkpoint), f"{METADATA} is damaged", remedy) from error
    if not isinstance(metadata, dict) or not isinstance(metadata.get("step"), int):
        raise InputError(str(checkpoint), f"{METADATA} tells no step", remedy)
    return metadata


@contextmanager
def atomic_folder(place: Path, main: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """A folder that several processes write to, which takes its place when all of them ended without an error.

    Args:
        place: Where it is to be.
        main: Whether this process makes and moves the folder; the others only write into it.
        wait: Returns when all processes have come there.

    Raises:
        InputError: It cannot be written; what was there before still is.
    """
    draft = place.with_name(place.name + PARTIAL)
    with replaced_folder(place, REMEDY, draft) if main else told_as_input_error(place, REMEDY):
        wait()
        yield draft
        force_to_disk(draft)
        wait()
    wait()


def _step_in_name(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _step_in_line(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # cut short by whatever ended the run
