"""Folder writer: a folder is written beside its place, and takes it in one step when all went well."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sdtalk.errors import InputError


@contextmanager
def replaced_folder(place: Path, remedy: str, draft: Path | None = None) -> Iterator[Path]:
    """A folder to write to, which takes its place when the block ends without an error; before that nothing changes.

    All that was written is forced to the disk first, so that the name never stands for half of it, even if the
    machine stops.

    Args:
        place: Where it is to be; what is there, if anything, is replaced as a whole.
        remedy: What to do where it cannot be written.
        draft: Where it is written meanwhile, on the same disk; what an interrupted run left there is removed. None: a
            hidden name beside the place that nobody else uses.

    Raises:
        InputError: It cannot be written; what was there before still is, and nothing else is left behind.
    """
    draft = draft or place.with_name(f".{place.name}-{uuid.uuid4().hex}")
    try:
        with told_as_input_error(place, remedy):
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            yield draft
            force_to_disk(draft)
            _exchange(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def told_as_input_error(place: Path, remedy: str) -> Iterator[None]:
    """Turn what a full or closed disk raises into one line.

    Raises:
        InputError: Something could not be written.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # the latter is what safetensors makes of the former
        reason = getattr(error, "strerror", None) or error
        raise InputError(str(place), f"it cannot be written ({reason})", remedy) from error


def force_to_disk(folder: Path) -> None:
    """Wait until the disk holds a folder with all its files."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _exchange(draft: Path, place: Path) -> None:
    """No system replaces a full folder in one step: the old one steps aside, and comes back if need be."""
    aside = draft.with_name(f"{draft.name}-old")
    shutil.rmtree(aside, ignore_errors=True)
    if place.exists():
        os.replace(place, aside)
    try:
        os.replace(draft, place)
    except BaseException:
        if aside.exists():
            os.replace(aside, place)
        raise
    _sync(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
