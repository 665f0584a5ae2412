"""Tests of presets: on the command line, in tables of jobs, on the page; single options win over them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from sdtalk.batch import read_jobs
from sdtalk.cli import talk
from sdtalk.cli.arguments import command_parser
from sdtalk.demo.controls import FOLLOW, SET_BY_PRESETS, preset_values
from sdtalk.demo.inputs import Given
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.presets import PRESETS, preset


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> TalkOptions:
    """The options with which the command would work."""
    taken: list[TalkOptions] = []

    def take(_: object, __: object, ___: object, options: TalkOptions) -> None:
        taken.append(options)
        raise InterruptedError

    monkeypatch.setattr(talk, "check_inputs", take)
    with pytest.raises(InterruptedError):
        talk.run(command_parser("talk").parse_args(["a.png", "b.wav", "-o", "c.mp4", *words]))
    return taken[0]


def test_the_command_knows_every_option_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch) == TalkOptions()
    other: dict[str, Any] = {
        "pose": "still",
        "blink": "none",
        "background": "white",
        "label": "x",
        "style": "calm",
    }
    other |= {"frame": "head", "shape": "photo", "exact": True, "mark": False, "size": 64, "seed": 7}
    other |= {f.name: 0.75 for f in fields(TalkOptions) if f.name not in other}
    words = [
        f"--{name.replace('_', '-')}={value}" for name, value in other.items() if not isinstance(value, bool)
    ]
    assert asked(monkeypatch, *words, "--exact", "--no-mark") == TalkOptions(**other)


@pytest.mark.parametrize("name", PRESETS)
def test_options_win_over_a_preset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, "--preset", name) == PRESETS[name]
    changed = TalkOptions.of(PRESETS[name], life=TalkOptions.life, yaw=-3.0)
    assert asked(monkeypatch, "--preset", name, "--life", "1", "--yaw", "-3") == changed


def test_a_preset_that_is_none() -> None:
    with pytest.raises(
        InputError, match="preset 'angry': there is no such choice. Choose one of natural, calm"
    ):
        preset("angry")


@pytest.mark.parametrize(
    ("option", "value"),
    [("motion", 2.1), ("motion", float("nan")), ("style", "wild"), ("blink_rate", 41.0), ("life", -0.1),
     ("yaw", 25.5), ("pitch", -16.0), ("roll", float("inf"))],
)  # fmt: skip
def test_options_have_limits(option: str, value: float | str) -> None:
    with pytest.raises(InputError, match=f"{option} .*: .*Choose ") as error:
        TalkOptions(**{option: value})
    assert str(value) in str(error.value) and "\n" not in str(error.value)


def test_tables_name_faces_turns_and_presets(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_text(
        "portrait,speech,face,turn,preset,yaw,life\na,b,2,90,calm,5,1\na,b,,,,,\na,b,two,,,,\na,b,,,angry,,"
    )
    first, second, *wrong = read_jobs(path)
    assert (first.face, first.turn) == (2, 90) and (second.face, second.turn) == (0, 0)
    assert (
        first.options == TalkOptions.of(PRESETS["calm"], yaw=5.0, life=1.0)
        and second.options == TalkOptions()
    )
    assert [job.problem.partition(".")[0] for job in wrong] == [
        "face: 'two' is no whole number",
        "preset 'angry': there is no such choice",
    ]


def test_the_page_sets_all_that_presets_differ_in() -> None:
    for name, options in PRESETS.items():
        assert TalkOptions.of(TalkOptions(), **preset_values(name)) == options
    values = preset_values(FOLLOW)
    assert (values.pop("pose"), values.pop("blink")) == ("video", "video")
    assert values == {
        name: getattr(TalkOptions(), name) for name in SET_BY_PRESETS if name not in ("pose", "blink")
    }


def test_inputs_become_options() -> None:
    given: dict[str, Any] = {
        "portrait": None, "speech": None, "consent": True, "pose": "video", "driver": "a.mp4", "blink": "video",
        "background": "original", "colour": "", "picture": None, "mouth": 1, "expression": 0, "seed": 3,
        "model": "mini", "frame": "head", "motion": 2, "style": "lively", "blink_rate": 20, "life": 0.5,
        "yaw": 1, "pitch": 2, "roll": 3, "by_program": True,
    }  # fmt: skip
    options = Given(**given).options()
    assert (options.pose, options.blink, options.style, options.seed) == ("a.mp4", "a.mp4", "lively", 3)
    assert (options.motion, options.blink_rate, options.life) == (2.0, 20.0, 0.5)
    assert (options.yaw, options.pitch, options.roll) == (1.0, 2.0, 3.0)
    with pytest.raises(InputError, match="driver: there is none yet"):
        Given(**given | {"pose": "idle", "driver": None}).options()
