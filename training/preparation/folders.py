"""Folder layout of a data set while it is prepared: unfinished work, clips and reports."""

from dataclasses import dataclass
from pathlib import Path

from training.preparation.source_video import SourceVideo


@dataclass(frozen=True)
class PreparationFolders:
    """Where things lie in a data set that is being made.

    Attributes:
        target: The data set.
    """

    target: Path

    @property
    def clips(self) -> Path:
        """Finished clips that are in no complete shard yet."""
        return self.target / "work" / "clips"

    @property
    def report(self) -> Path:
        """The quality report and the contact sheets."""
        return self.target / "report"

    @property
    def reports(self) -> Path:
        """What became of every video."""
        return self.report / "videos"

    def scan(self, source: SourceVideo) -> Path:
        """What is known of a video at work; the name on disk is kept, so that interrupted preparations go on."""
        return self.target / "work" / "surveys" / source.video_id
