"""Options: how a video is made, and checks that can be made before the work starts."""

import numbers
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sdtalk.background import TRANSPARENT
from sdtalk.camera import FRAME_SIZE
from sdtalk.driving import BLINKS_A_MINUTE, IDLE_STYLES
from sdtalk.errors import InputError
from sdtalk.framing import SHAPES
from sdtalk.video import check_output, probe
from sdtalk.video.label import LONGEST_LABEL

SMALLEST, LARGEST = 64, 1024
"""Limits of the video's side in px; beyond the model's own 512 px the photo's own detail is carried along."""

LOUDEST_MOUTH = 2.0
STRONGEST_MOTION, LIVELIEST = 2.0, 2.0
MOST_BLINKS = 40.0
"""A minute; with more, eyes seem to flutter."""
FARTHEST_TURN = {"yaw": 25.0, "pitch": 15.0, "roll": 20.0}
"""Degrees each way from the photo's pose: farther, the side that the photo does not show falls apart."""

LIMITS: dict[str, tuple[float, float, str, str]] = {
    "mouth": (0, LOUDEST_MOUTH, "no possible strength of the mouth's motion", "0 is still, 1 as learned"),
    "expression": (
        0,
        1,
        "no possible share of the photo's smile",
        "0 is none of it while speaking, 1 all of it",
    ),
    "motion": (0, STRONGEST_MOTION, "no possible strength of the head's motion", "0 is still"),
    "blink_rate": (0, MOST_BLINKS, "no possible number of blinks a minute", "0 is none"),
    "life": (0, LIVELIEST, "no possible strength of glances, brows and breath", "0 is none, 1 as people do"),
}
LIMITS |= {
    name: (-most, most, "the head does not hold so far from its pose in the photo", "degrees")
    for name, most in FARTHEST_TURN.items()
}
"""Options that are numbers: the least, the most, what is wrong beyond, and what the numbers mean."""


@dataclass(frozen=True)
class TalkOptions:
    """How a talking video is made.

    Attributes:
        pose: "idle" (small natural motion of head, gaze, brows and breath), "still" (none of it), or the
            path of a video whose head is followed.
        blink: "natural", "none", or the path of a video whose eyes, with their gaze, are followed.
        background: "original", "transparent", a colour (`white`, `#rrggbb`), or the path of a picture.
        size: Side of the video in px, 64 to 1024.
        seed: Chooses the idle motion, glances, raises of the brows and the moments of blinks.
        mouth: How far the mouth moves, 1 as learned; 0 to 2.
        label: Text in a corner of every frame, for example "AI-generated"; "": none.
        expression: How much of a smile in the photo stays while the person speaks: 1 all of it, 0 nothing. By default
            half: closed lips are no longer stretched, and still belong to the cheeks of a smile. A still head's mouth
            speaks, so this counts for it, too.
        exact: Every Gaussian in every frame, and painters in float32, instead of the faster way that `mini` has on a
            CPU: a third of the speed, and a picture that differs by a tenth of an 8-bit step on average. On a GPU:
            float32 without TF32, where a model was not loaded in bfloat16.
        frame: "head", a square of the head; or "full", the whole photo, at its own resolution up to 2160 px, in which
            what stands still is the photo's own pixels, but for the mark. `size` has no meaning then, and the
            background is the photo's.
        shape: Of full frames: "photo", or "9:16", "1:1", "16:9", cut out of the photo around the head.
        mark: Put an invisible mark into every frame, which `sdtalk inspect` finds, see `provenance.mark`.
        motion: How far the head moves, idle or as in a video, 0 to 2; 1 as made or filmed.
        style: Of idle motion: "natural", "calm" (slow and small), "lively" (fast and large), or "nodding" (at stressed
            words).
        blink_rate: Natural blinks a minute on average, 0 to 40.
        life: How much eyes glance aside, brows rise and shoulders breathe, 0 to 2; 1 as measured. A still head does
            nothing of it.
        yaw: Degrees by which the head is turned in every frame, on top of its motion: towards the right of the picture,
            -25 to 25. The eyes stay on the camera.
        pitch: The same upwards, -15 to 15.
        roll: The same clockwise in the picture, -20 to 20.

    Raises:
        InputError: A value is of the wrong type or not possible.

    Examples:
        >>> TalkOptions(pose="still", mouth=1.2).size
        512
    """

    pose: str = "idle"
    blink: str = "natural"
    background: str = "original"
    size: int = FRAME_SIZE
    seed: int = 0
    mouth: float = 1.0
    label: str = ""
    expression: float = 0.5
    exact: bool = False
    frame: str = "head"
    shape: str = "photo"
    mark: bool = True
    motion: float = 1.0
    style: str = "natural"
    blink_rate: float = BLINKS_A_MINUTE
    life: float = 1.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0

    def __post_init__(self) -> None:
        _check_types(vars(self))
        if not SMALLEST <= self.size <= LARGEST:
            remedy = f"Choose {SMALLEST} to {LARGEST} (the model's own size is {FRAME_SIZE})."
            raise InputError(f"size {self.size}", "frames cannot be made that small or large", remedy)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed {self.seed}", "it is negative or too large", "Choose, say, 0.")
        for name, (least, most, problem, meaning) in LIMITS.items():
            if not least <= getattr(self, name) <= most:  # also where it is no number at all
                remedy = f"Choose {least:g} to {most:g} ({meaning})."
                raise InputError(f"{name} {getattr(self, name)}", problem, remedy)
        if self.style not in IDLE_STYLES:
            remedy = f"Choose one of {', '.join(IDLE_STYLES)}."
            raise InputError(f"style {self.style!r}", "there is no such choice", remedy)
        if len(self.label) > LONGEST_LABEL or not self.label.isprintable():
            remedy = f"Give one line of at most {LONGEST_LABEL} characters."
            raise InputError(f"label {self.label!r}", "it does not fit into a corner", remedy)

        self._check_frame()

    def _check_frame(self) -> None:
        if self.frame not in ("head", "full"):
            raise InputError(f"frame {self.frame!r}", "there is no such choice", "Choose head or full.")
        if self.shape not in SHAPES:
            remedy = f"Choose one of {', '.join(SHAPES)}."
            raise InputError(f"shape {self.shape!r}", "there is no such choice", remedy)
        if self.frame == "head" and self.shape != "photo":
            raise InputError(f"shape {self.shape!r}", "a head's frame is a square", "Choose the frame full.")
        if self.frame == "full" and self.background != "original":
            problem = "a full frame shows the photo's own background"
            raise InputError(
                f"background {self.background!r}", problem, "Choose the frame head, or original."
            )

    @property
    def transparent(self) -> bool:
        """Whether frames have an alpha channel."""
        return self.background == TRANSPARENT

    @classmethod
    def of(cls, options: "TalkOptions | None" = None, **choices: Any) -> "TalkOptions":
        """Options by keywords, on top of others.

        Args:
            options: Those that `choices` do not name; None: the defaults.
            choices: Values by the names of the attributes; paths may be `Path`s.

        Raises:
            InputError: There is no such option, or its value is not possible.

        Examples:
            >>> calm = TalkOptions.of(TalkOptions(size=256), pose="still")
            >>> calm.pose, calm.size
            ('still', 256)
        """
        if not isinstance(options, cls | None):
            problem = f"an object of type {type(options).__name__} is no TalkOptions"
            raise InputError("options", problem, "Give TalkOptions(...), or the options by keyword.")
        names = [f.name for f in fields(cls)]
        for name, value in choices.items():
            if name not in names:
                raise InputError(
                    f"option {name!r}", "there is no such option", f"Choose of {', '.join(names)}."
                )
            choices[name] = str(value) if isinstance(value, Path) else value
        _check_types(choices)
        plain = {
            name: type(getattr(cls, name))(value) for name, value in choices.items()
        }  # NumPy's numbers, too
        return replace(cls() if options is None else options, **plain)


def _check_types(choices: dict[str, Any]) -> None:
    """Refuse values of a wrong type by name, before they meet a comparison."""
    for name, value in choices.items():
        wanted, words = _TYPES[type(getattr(TalkOptions, name))]
        if isinstance(value, bool) != (wanted is bool) or not isinstance(value, wanted):
            raise InputError(f"option {name}", f"{value!r} is no {words}", f"Give a {words}.")


_TYPES: dict[type, tuple[type, str]] = {
    bool: (bool, "truth value"),
    str: (str, "text"),
    int: (numbers.Integral, "whole number"),
    float: (numbers.Real, "number"),
}
"""What the options' types take, and what they are called."""


def check_inputs(portrait: object, speech: object, output: str | Path | None, options: TalkOptions) -> None:
    """Find out what can be found out before the work starts.

    Args:
        portrait: As the pipeline takes it; only paths are looked at here.
        speech: The same.
        output: The file to write; None: nothing is written yet.
        options: Their files have to be there, too.

    Raises:
        InputError: The output cannot be written, or an input is missing.
    """
    paths = [
        (p, kind) for p, kind in ((portrait, "picture"), (speech, "recording")) if isinstance(p, str | Path)
    ]
    if output is not None:
        if not isinstance(output, str | Path):
            problem = f"an object of type {type(output).__name__} is no path"
            raise InputError("output", problem, "Give the name of the file to write.")
        check_output(output, options.transparent)
        check_not_input(output, *(p for p, _ in paths), options.pose, options.blink, options.background)
    for path, kind in paths:
        if not Path(path).is_file():
            problem = "it is not a file" if Path(path).exists() else "there is no such file"
            raise InputError(str(path), problem, f"Check the path of the {kind}.")
    for choice, words in ((options.pose, ("idle", "still")), (options.blink, ("natural", "none"))):
        _check_driver(choice, words)


def _check_driver(choice: str, words: tuple[str, str]) -> None:
    """Make sure that a choice is one of two words or a video that can be read."""
    if choice in words:
        return
    if not Path(choice).exists():
        remedy = f"Give '{words[0]}', '{words[1]}', or the path of a video."
        raise InputError(f"{choice!r}", "no such choice and no such file", remedy)
    probe(choice)


def check_not_input(output: str | Path, *inputs: str | Path) -> None:
    """Refuse to write over an input.

    Raises:
        InputError: The output is one of the inputs.
    """
    for path in inputs:
        if Path(path).exists() and Path(output).exists() and Path(path).samefile(output):
            raise InputError(str(output), "it is also an input", "Choose another name for the output.")
