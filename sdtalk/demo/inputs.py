"""Checks of what visitors of the page give, before anything else looks at it."""

import re
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.video.label import AI_GENERATED


def require(value: str | None, what: str) -> str:
    """Return an input that must be there.

    Raises:
        InputError: It is not.
    """
    if not value:
        raise InputError(what, "there is none yet", "Please add it.")
    return value


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


def chosen_options(
    pose: str,
    driver: str | None,
    blink: str,
    background: str,
    colour: str,
    picture: str | None,
    mouth: float | int,
    expression: float | int,
    seed: float | int,
) -> TalkOptions:
    """The options of a video, from the page's controls; the arguments are those of `TalkService.generate`.

    Raises:
        InputError: A video or picture to follow is missing, or a value is not possible.
    """
    pose = require(driver, "Video to follow") if pose == "video" else pose
    behind = as_hex(colour) if background == "colour" else background
    behind = require(picture, "Background picture") if background == "picture" else behind
    choices = {"seed": int(seed), "mouth": float(mouth), "expression": float(expression)}
    return TalkOptions.of(TalkOptions(pose, blink, behind, label=AI_GENERATED), **choices)


def error_message(error: InputError | str, *paths: str | None) -> str:
    """The text of an error; files and models are called by their names, not by where they are kept."""
    text = " ".join(str(error).split())
    for path in filter(None, paths):
        text = text.replace(path, Path(path).name)
    return text
