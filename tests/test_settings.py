"""Tests of the settings reader: strict types and names, base files, changes on the command line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from sdtalk.errors import InputError
from training.settings import read_settings, settings_to_dict, write_settings
from training.train_settings import TrainSettings

CONFIGS = Path(__file__).parent.parent / "training" / "configs"


@dataclass(frozen=True)
class Inner:
    size: int = 1


@dataclass(frozen=True)
class Outer:
    rate: float
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    weights: dict[str, float] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def write(folder: Path, text: str, name: str = "settings.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_values_arrive_in_their_types(tmp_path) -> None:
    path = write(tmp_path, "rate: 1e-4\ninner: {size: 3}\nweights: {x: 2}\nnames: [p, q]\nkind: b\n")
    wanted = Outer(rate=1e-4, kind="b", inner=Inner(3), weights={"x": 2.0}, names=["p", "q"])
    assert read_settings(path, Outer) == wanted


def test_a_file_takes_from_its_base_what_it_does_not_say(tmp_path) -> None:
    write(tmp_path, "rate: 1\nweights: {x: 2, y: 3}\ninner: {size: 5}\n", "below.yaml")
    path = write(tmp_path, "base: below.yaml\nweights: {y: 4}\n")
    assert read_settings(path, Outer) == Outer(1.0, inner=Inner(5), weights={"x": 2.0, "y": 4.0})


def test_changes_by_hand_win_and_reach_groups(tmp_path) -> None:
    path = write(tmp_path, "rate: 1\nname: old\n")
    changed = read_settings(path, Outer, ["inner.size=7", "name=null", "weights.z=0.5", "names=[a]"])
    assert changed == Outer(1.0, inner=Inner(7), weights={"z": 0.5}, names=["a"])


@pytest.mark.parametrize(
    "text, change, message",
    [
        ("rate: 1\nrat: 2\n", None, r"rat: there is no such setting.*'rate'"),
        ("name: x\n", None, "rate: this setting is missing"),
        ("rate: fast\n", None, "rate: 'fast' is not of the type float"),
        ("rate: .nan\n", None, "rate: nan is not of the type float"),
        ("rate: 1\ninner: {size: 1.5}\n", None, r"inner.size: 1.5 is not of the type int"),
        ("rate: 1\ninner: {size: true}\n", None, r"inner.size: True is not of the type int"),
        ("rate: 1\ninner: 3\n", None, "inner: 3 is no group"),
        ("rate: 1\nkind: c\n", None, "kind: 'c' is none of a, b"),
        ("rate: 1\n", "inner.sizes=1", "inner.sizes: there is no such setting"),
        ("rate: 1\n", "size", "no '='"),
        ("rate: 1\n", "rate.x=1", "'rate' holds no names"),
        ("rate: [1\n", None, "no YAML"),
        ("- 1\n", None, "no `name: value` lines"),
        ("base: settings.yaml\n", None, "based on itself"),
        ("base: other.yaml\n", None, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, text, change, message) -> None:
    with pytest.raises(InputError, match=message):
        read_settings(write(tmp_path, text), Outer, [change] if change else [])


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*stage*.yaml")), ids=lambda p: p.stem)
def test_every_file_of_the_project_is_complete(path, tmp_path) -> None:
    settings = read_settings(path, TrainSettings)
    assert path.stem.endswith(f"stage{settings.stage}")
    write_settings(tmp_path / "copy.yaml", settings)
    assert read_settings(tmp_path / "copy.yaml", TrainSettings) == settings
    assert settings_to_dict(settings)["losses"] == settings.losses


def test_ears_that_learn_from_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="losses.sound"):
        read_settings(CONFIGS / "mini_stage2.yaml", TrainSettings, ["optimiser.rates.audio_encoder=1e-3"])


@pytest.mark.parametrize(
    "change, message",
    [
        ("losses.lips=1", "losses: 'lips' is not known"),
        ("optimiser.rates.fields=1", "optimiser.rates: 'fields' is not known in stage 1"),
        ("losses={image: 0}", "losses holds no number above 0"),
        ("losses.image=-1", "image is negative"),
        ("steps=0", "steps = 0"),
        ("seed=-1", "seed = -1"),
        ("data.threads=0", "threads = 0"),
        ("log.every=0", "every = 0"),
        ("optimiser.betas=[0.9]", "two numbers"),
        ("optimiser.ema_decay=1", "ema_decay = 1"),
        ("checkpoints.keep=-1", "keep = -1"),
        ("window_px=600", "window_px = 600"),
        ("size=base", "window_px = 320"),
        ("model={priors: false}", "random weights"),
        ("perceptual=published", "perceptual_file"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        read_settings(CONFIGS / "mini_stage1.yaml", TrainSettings, [change])
