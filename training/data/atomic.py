"""Atomic file writes: a file is whole or not there, even after a power cut."""

import os
from pathlib import Path

from sdtalk.errors import InputError

REMEDY = "Make room or give another folder, and run it again: what is complete is kept."


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that its name never stands for half of it, even if the machine stops.

    Raises:
        InputError: It cannot be written (full disk, no permission).
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """The message for a file that cannot be written."""
    return InputError(str(path), f"it cannot be written ({error.strerror or error})", REMEDY)
