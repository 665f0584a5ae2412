"""Settings reader: YAML files into frozen dataclasses; unknown or missing keys and wrong types are errors.

A settings file may name another one under `base:`, whose values it takes where it gives none of its own. Values can be
changed on the command line: `--set batch.size=4 losses.lip=2`.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from sdtalk.errors import InputError

Settings = TypeVar("Settings")
BASE = "base"


def read_settings(path: str | Path, kind: type[Settings], changes: Sequence[str] = ()) -> Settings:
    """Read a settings file.

    Args:
        path: The YAML file.
        kind: A dataclass; fields without a default have to be in the file.
        changes: `name=value` or `group.name=value`, the value in YAML.

    Raises:
        InputError: The file cannot be read, or does not hold what `kind` describes; says which key, and what fits.
    """
    values = _with_base(Path(path), ())
    for change in changes:
        _change(values, change)
    return settings_from_dict(kind, values, str(path))


def settings_from_dict(kind: type[Settings], values: object, source: str) -> Settings:
    """A dataclass from plain values, strictly.

    Raises:
        InputError: As `read_settings`; `source` says where the values come from.
    """
    return _SettingsBuilder(source).record(kind, values, "")


def settings_to_dict(settings: Any) -> dict[str, Any]:
    """The opposite of `settings_from_dict`: what a YAML file holds."""
    return dataclasses.asdict(settings)


def write_settings(path: Path, settings: Any) -> None:
    """Write a file that `read_settings` reads."""
    path.write_text(
        yaml.safe_dump(settings_to_dict(settings), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )


def _with_base(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    remedy = "Give a YAML file like those in training/configs."
    if path.resolve() in seen:
        raise InputError(str(path), "it is based on itself", "Remove a `base:` entry.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), f"it cannot be read ({error.strerror})", remedy) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where else ""
        raise InputError(str(path), f"it is no YAML that can be read{line}", remedy) from error
    if not isinstance(values, dict):
        raise InputError(str(path), "it holds no `name: value` lines", remedy)
    base = values.pop(BASE, None)
    if base is None:
        return values
    return _merged(_with_base(path.parent / str(base), (*seen, path.resolve())), values)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merged(merged[name], value) if both else value
    return merged


def _change(values: dict[str, Any], change: str) -> None:
    names, equals, text = change.partition("=")
    if not equals:
        raise InputError(f"--set {change}", "it has no '='", "Write name=value, or group.name=value.")
    *groups, name = names.strip().split(".")
    for group in groups:
        inner = values.setdefault(group, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {change}", f"{group!r} holds no names", "See the settings file.")
        values = inner
    try:
        values[name] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {change}", "its value is no YAML", "Quote it.") from error


class _SettingsBuilder:
    """Checks values against types, and knows where they come from."""

    def __init__(self, source: str) -> None:
        self.source = source

    def refuse(self, name: str, problem: str, remedy: str) -> InputError:
        return InputError(f"{self.source}, {name}" if name else self.source, problem, remedy)

    def record(self, kind: type[Settings], values: object, name: str) -> Settings:
        known = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind))}
        if not isinstance(values, dict):
            raise self.refuse(name, f"{values!r} is no group of settings", f"Give {', '.join(known)}.")
        inside = f"{name}." if name else ""
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1)
                remedy = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known)}."
                raise self.refuse(f"{inside}{key}", "there is no such setting", remedy)
        for key, field in known.items():
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required and key not in values:
                raise self.refuse(f"{inside}{key}", "this setting is missing", "Add it to the file.")
        hints = typing.get_type_hints(kind)
        given = {k: self.value(hints[k], v, f"{inside}{k}") for k, v in values.items()}
        try:
            return kind(**given)
        except ValueError as error:  # what a dataclass checks itself
            raise self.refuse(name, str(error), "Change one of the settings named.") from error

    def value(self, kind: Any, value: Any, name: str) -> Any:
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if dataclasses.is_dataclass(kind):
            return self.record(typing.cast(type, kind), value, name)
        if origin in (Union, types.UnionType):
            if value is None and type(None) in arguments:
                return None
            return self.value(next(a for a in arguments if a is not type(None)), value, name)
        if origin is Literal:
            if value not in arguments:
                raise self.refuse(
                    name, f"{value!r} is none of {', '.join(map(str, arguments))}", "Choose one."
                )
            return value
        if origin in (list, tuple) and isinstance(value, list):
            return origin(self.value(arguments[0], v, f"{name}[{i}]") for i, v in enumerate(value))
        if origin is dict and isinstance(value, dict):
            return {str(k): self.value(arguments[1], v, f"{name}.{k}") for k, v in value.items()}
        return self.scalar(kind, value, name)

    def scalar(self, kind: Any, value: Any, name: str) -> Any:
        if kind is Any:
            return value
        if kind is float:
            value = _number(value)
            if isinstance(value, float) and math.isfinite(value):
                return value
            raise self.refuse(name, f"{value!r} is not of the type float", "Give a number.")
        if kind is Path and isinstance(value, str):
            return Path(value)
        if isinstance(kind, type) and type(value) is kind:
            return value
        wanted = getattr(kind, "__name__", str(kind))
        raise self.refuse(
            name, f"{value!r} is not of the type {wanted}", f"Give a value of the type {wanted}."
        )


def _number(value: Any) -> Any:
    """A float where there is one: YAML takes 1e-4, which has no point, for a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    try:
        return float(value)
    except ValueError:
        return value
