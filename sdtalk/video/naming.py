"""Output names: which file a video goes to where the user names a folder."""

import os
from pathlib import Path

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".gif")


def output_path(output: str | Path, *inputs: str | Path) -> Path:
    """The path to write: as given, or in the folder that was given.

    A folder is a name that ends with "/", or a folder that exists; one that is called like a video must end with "/",
    since nobody means it who has forgotten that it is there.

    Args:
        output: What the user gave.
        inputs: What the video is made of; a file in a folder is named after them.
    """
    text = os.fspath(output)
    path = Path(output)
    ends_as_folder = text.endswith("/") or text.endswith(os.sep)
    if ends_as_folder or (path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES):
        return path / default_name(*inputs)
    return path


def default_name(*inputs: str | Path) -> str:
    """Name of a video after what it is made of: "portrait_speech.mp4"."""
    return "_".join(Path(path).stem for path in inputs) + ".mp4"
