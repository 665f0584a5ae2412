"""Video report: what became of one video, stored as JSON."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sdtalk.errors import InputError
from training.data.atomic import write_atomically
from training.preparation.source_video import SourceVideo


@dataclass(frozen=True)
class VideoReport:
    """What became of a video; kept as report/videos/VIDEO.json, and then the video is done.

    Attributes:
        video_id: Its name in keys.
        file: Its path.
        file_bytes: Its size; one that could not be read is tried again when this changes.
        person: Who is shown.
        dataset: Where it comes from.
        split: What it is for.
        seconds: How much of it could be read.
        source_fps: Its frame rate.
        source_size: Width and height in px.
        own_speech: Whether the voice counts as the person's.
        sound: Fields of `AudioOffset`, and `there`: whether it has sound.
        problem: Why not all of it could be read, or "".
        clips: key, start_s and end_s of each clip.
        rejected: start_s, end_s, reason and detail of each other part.
    """

    video_id: str
    file: str
    file_bytes: int
    person: str
    dataset: str
    split: str
    seconds: float = 0.0
    source_fps: float = 0.0
    source_size: list[int] = field(default_factory=list)
    own_speech: bool = False
    sound: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    clips: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "VideoReport":
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Write it, atomically."""
        data = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        write_atomically(folder / f"{self.video_id}.json", data.encode())


def failed_report(source: SourceVideo, error: Exception) -> VideoReport:
    """The report on a video of which nothing can be used."""
    problem = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return VideoReport(**source_fields(source), problem=problem)


def source_fields(source: SourceVideo) -> dict[str, Any]:
    """What a report says of any video, read or not."""
    return {
        "video_id": source.video_id,
        "file": str(source.path),
        "file_bytes": file_bytes(source.path),
        "person": source.person,
        "dataset": source.dataset,
        "split": source.split,
    }


def file_bytes(path: Path) -> int:
    """Size of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0
