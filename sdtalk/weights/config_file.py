"""Config files: config.json of a checkpoint, written with the number of its format, read strictly and across versions.

A file must name every field of `SDTalkConfig` and no other. Fields that came later than the format of a file take the
value that stands in their place in `sdtalk.config.added`: what models did before there was such a field.
"""

import json
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sdtalk.config import FORMAT, SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.weights.hub import CONFIG

REMEDY = "Use the config.json that was saved with the weights."
UPGRADE = "Upgrade sdtalk."

FIRST_FORMAT = 1
"""Of files without a number: everything saved by SDTalk 0.1."""

LARGEST_SIZE = 1 << 20
"""No number in a config is larger: a damaged one must not ask for all memory."""


def write_config(config: SDTalkConfig, folder: Path) -> None:
    """Write config.json into a folder.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(config_to_json(config), indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read_config(folder: Path) -> SDTalkConfig:
    """The config of a checkpoint, without its weights.

    Raises:
        InputError: There is none, it does not say what a model is made of, or a newer version wrote it.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(str(path), "this file of the checkpoint is missing", REMEDY) from error
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(str(path), f"it is no JSON that can be read ({reason})", REMEDY) from error
    return config_from_json(values, str(path))


def config_to_json(config: SDTalkConfig) -> dict[str, Any]:
    """All fields of a config, and the number of the format they are written in."""
    return {"format": FORMAT, **asdict(config)}


def config_from_json(values: object, subject: str) -> SDTalkConfig:
    """The config that a file holds.

    Args:
        values: What the file holds, parsed.
        subject: What to call the file in an error.

    Raises:
        InputError: It does not say what a model is made of, or a newer version wrote it.
    """
    if not isinstance(values, dict):
        raise InputError(subject, "it does not hold a model's sizes", REMEDY)
    written = values.get("format", FIRST_FORMAT)
    if type(written) is not int or written < FIRST_FORMAT:
        raise InputError(subject, f"format = {written!r} is not possible", REMEDY)
    if written > FORMAT:
        problem = f"it was made by a newer SDTalk (format {written}, this one reads up to {FORMAT})"
        raise InputError(subject, problem, UPGRADE)
    values = _of_older_models(written) | {name: value for name, value in values.items() if name != "format"}
    known = {f.name for f in fields(SDTalkConfig)}
    if unknown := sorted(set(values) - known):
        problem = f"it was made by a newer SDTalk (the entry {unknown[0]!r} is unknown here)"
        raise InputError(subject, problem, f"{UPGRADE} {REMEDY}")
    if absent := sorted(known - set(values)):
        raise InputError(subject, f"the entry {absent[0]!r} is missing", REMEDY)
    _check_values(values, subject)
    try:
        return SDTalkConfig(**values)
    except ValueError as error:
        raise InputError(subject, str(error), REMEDY) from error


def _of_older_models(written: int) -> dict[str, Any]:
    """What fields that came later than a format stand for in its files."""
    return {
        f.name: f.metadata["before"] for f in fields(SDTalkConfig) if f.metadata.get("since", 0) > written
    }


def _check_values(values: dict[str, Any], subject: str) -> None:
    """Refuse values of another type than their field's, and sizes that no network has."""
    for f in fields(SDTalkConfig):
        value = values[f.name]
        least = 0 if f.name == "margin_px" else 1
        possible = type(value) is f.type
        if f.type is int:
            possible = possible and least <= value <= LARGEST_SIZE
        if f.type is float:
            possible = possible and math.isfinite(value)
        if not possible:
            raise InputError(subject, f"{f.name} = {value!r} is not possible", REMEDY)
