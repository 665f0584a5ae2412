"""Output names: which file a video goes to where the user names a folder."""

import os
from pathlib import Path

from sdtalk.video.formats import FORMATS
from sdtalk.video.image_sequence import holds_frames

VIDEO_SUFFIXES = tuple(suffix for suffix in FORMATS if suffix)


def output_path(output: str | Path, *inputs: str | Path, alpha: bool = False) -> Path:
    """The path to write: as given, or in the folder that was given.

    A folder is a name that ends with "/", or a folder that exists; one that is called like a video must end with "/",
    since nobody means it who has forgotten that it is there. A folder of frames made here is none: frames that are made
    again take its place.

    Args:
        output: What the user gave.
        inputs: What the video is made of; a file in a folder is named after them.
        alpha: Whether it is to be transparent.
    """
    text = os.fspath(output)
    path = Path(output)
    ends_as_folder = text.endswith("/") or text.endswith(os.sep)
    is_folder = path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES and not holds_frames(path)
    if ends_as_folder or is_folder:
        return path / default_name(*inputs, alpha=alpha)
    return path


def default_name(*inputs: str | Path, alpha: bool = False) -> str:
    """Name of a video after what it is made of: "portrait_speech.mp4", or .webm, which can be transparent."""
    return "_".join(Path(path).stem for path in inputs) + (".webm" if alpha else ".mp4")
