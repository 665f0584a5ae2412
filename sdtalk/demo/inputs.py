"""Checks of what visitors of the page give, before anything else looks at it."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

from sdtalk.demo.work_time import in_words
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.video.label import AI_GENERATED

ON_THE_PAGE = {
    "portrait": "Portrait",
    "speech": "Speech",
    "driver": "Video to follow",
    "picture": "Background picture",
}
"""What the page calls what the interface for programs calls otherwise."""

NUMBERS = ("mouth", "expression", "motion", "blink_rate", "life", "yaw", "pitch", "roll")
"""Options that a page sends as whole numbers, too."""

CONSENT = "The person shown is me, has agreed to this video, or is an example"


@dataclass(frozen=True)
class Given:
    """What a video is to be made of; the fields are the arguments of `TalkService.generate`.

    Attributes:
        by_program: Whether a program asks, which knows parameters, and not what the page calls them.
    """

    portrait: str | None
    speech: str | None
    consent: bool | None
    pose: str = TalkOptions.pose
    driver: str | None = None
    blink: str = TalkOptions.blink
    background: str = TalkOptions.background
    colour: str = "#ffffff"
    picture: str | None = None
    mouth: float | int = TalkOptions.mouth
    expression: float | int = TalkOptions.expression
    seed: float | int = TalkOptions.seed
    model: str = ""
    face: float | int = 0
    frame: str = "full"
    shape: str = "photo"
    motion: float | int = TalkOptions.motion
    style: str = TalkOptions.style
    blink_rate: float | int = TalkOptions.blink_rate
    life: float | int = TalkOptions.life
    yaw: float | int = 0
    pitch: float | int = 0
    roll: float | int = 0
    by_program: bool = False

    @classmethod
    def names(cls) -> list[str]:
        """Its fields: the order in which the page and programs hand inputs over."""
        return [field.name for field in fields(cls)]

    def require(self, name: str) -> str:
        """Return an input that must be there.

        Raises:
            InputError: It is not.
        """
        if value := getattr(self, name):
            return value
        if self.by_program:
            raise InputError(name, "there is none yet", f"Send a file as the parameter {name}.")
        raise InputError(ON_THE_PAGE[name], "there is none yet", "Please add it.")

    def check_consent(self) -> None:
        """Refuse to go on without consent.

        Raises:
            InputError: It was not given.
        """
        if self.consent:
            return
        if self.by_program:
            remedy = "Send the parameter consent=true if the person shown is you or has agreed to this video."
            raise InputError("consent", "it has not been given", remedy)
        raise InputError("3. Consent", "it has not been given", f"Please tick “{CONSENT}”.")

    def options(self) -> TalkOptions:
        """How the video is made.

        Raises:
            InputError: A video or picture to follow is missing, or a value is not possible.
        """
        pose, blink = (
            self.require("driver") if choice == "video" else choice for choice in (self.pose, self.blink)
        )
        behind = as_hex(self.colour) if self.background == "colour" else self.background
        behind = self.require("picture") if self.background == "picture" else behind
        choices = {name: float(getattr(self, name)) for name in NUMBERS} | {"style": self.style}
        own = behind == "original"  # another background leaves only the head
        place = {"frame": self.frame, "shape": self.shape} if own else {"frame": "head"}
        start = TalkOptions(pose, blink, behind, seed=int(self.seed), label=AI_GENERATED)
        return TalkOptions.of(start, **choices, **place)

    def told(self, problem: InputError | str, model_source: str | None) -> str:
        """An error's text for whoever gave this: without paths of this machine, see `error_message`."""
        return error_message(problem, self.portrait, self.speech, self.driver, self.picture, model_source)


def known_model(model: str, names: list[str]) -> str:
    """Return the name of a model that is here; other names could be paths on this machine.

    Raises:
        InputError: It is none.
    """
    if model not in names:
        raise InputError(
            "Model", f"{model[:40]!r} is none of those here", f"Choose one of: {', '.join(names)}."
        )
    return model


def as_hex(colour: str) -> str:
    """Turn what a colour picker returns, "#rrggbb" or "rgba(r, g, b, a)" with decimals, into "#rrggbb".

    Raises:
        InputError: It is something else; TalkOptions would also take the path of any file on this machine.
    """
    number = r"\s*(\d+(?:\.\d+)?)\s*"
    if found := re.fullmatch(rf"rgba?\({number},{number},{number}(,.*)?\)", colour):
        return "#" + "".join(f"{min(round(float(found[i])), 255):02x}" for i in (1, 2, 3))
    if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        raise InputError("Background colour", f"{colour[:40]!r} is none", "Choose one like #20808f.")
    return colour


def check_length(speech: str, seconds: float, longest_s: float | None) -> None:
    """Refuse a recording that is longer than a page takes (None: any length).

    Raises:
        InputError: It is.
    """
    if longest_s is not None and seconds > longest_s:
        problem = f"it is longer than {in_words(longest_s)}, which is the most that this page takes"
        raise InputError(speech, problem, "Cut it into parts, or run SDTalk on a machine of yours.")


def error_message(error: InputError | str, *paths: str | None) -> str:
    """The text of an error; files and models are called by their names, not by where they are kept."""
    text = " ".join(str(error).split())
    for path in filter(None, paths):
        text = text.replace(path, Path(path).name)
    return text
