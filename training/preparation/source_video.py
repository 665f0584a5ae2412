"""Source video: path, person and other facts of a raw video, and its id in keys."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from training.video_files import VIDEO_SUFFIXES

LONGEST_ID = 70  # of the 80 characters of a clip's key


@dataclass(frozen=True)
class SourceVideo:
    """A video to prepare.

    Attributes:
        path: The file.
        video_id: Its name in the keys of its clips.
        person: Who is shown.
        dataset: Where it comes from.
        split: "train", "dev" or "test"; None: by the person.
        own_speech: Whether the voice is the person's; None: by how well the mouth follows it.
        audio_late_ms: How late its sound is, where that is known.
        intervals: Start and end in seconds of what is wanted of it; None: all.
        sound_path: A file with its sound, where that is not in the video.
    """

    path: Path
    video_id: str
    person: str
    dataset: str
    split: str | None = None
    own_speech: bool | None = None
    audio_late_ms: float | None = None
    intervals: tuple[tuple[float, float], ...] | None = None
    sound_path: Path | None = None


def make_video_id(relative: Path) -> str:
    """What a video is called in keys, from its path alone: letters, digits, - and _ ("/" as "__").

    A name that had to be changed or shortened ends in a few letters of a hash, so that others do not become the same.
    """
    whole = relative.with_suffix("").as_posix()
    if relative.suffix.lower() != ".mp4":
        whole += f"_{relative.suffix[1:].lower()}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", whole.replace("/", "__"))
    if len(name) > LONGEST_ID or name != whole.replace("/", "__"):
        digest = hashlib.sha256(relative.as_posix().encode()).hexdigest()[:6]
        name = f"{name[: LONGEST_ID - 7]}-{digest}"
    return name


def list_videos(folder: Path) -> list[Path]:
    """All videos below a folder, by their paths inside it; links to folders are followed, hidden files are not seen."""
    found = []
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(root, f) for f in files if f.lower().endswith(VIDEO_SUFFIXES) and not f.startswith(".")
        ]
    return sorted(path.relative_to(folder) for path in found)
