"""Discovery of source videos in a given layout, and their assignment to splits."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdtalk.errors import InputError
from training.preparation.layouts import LAYOUTS
from training.preparation.settings import SplitShares
from training.preparation.source_video import SourceVideo
from training.video_files import VIDEO_SUFFIXES


def find_videos(given: Path, layout: str | None) -> list[SourceVideo]:
    """The videos of an input, in a fixed order.

    Args:
        given: A folder, or a manifest.
        layout: One of `LAYOUTS`; None: a manifest for a file, a folder for a folder.

    Raises:
        InputError: There is nothing to prepare, or the manifest or the lists cannot be used.
    """
    layout = layout or ("manifest" if given.is_file() else "folder")
    if not given.exists():
        raise InputError(str(given), "there is no such file or folder", "Check the path of the videos.")
    if given.is_dir() == (layout == "manifest"):
        wanted = "the file manifest.json" if layout == "manifest" else "a folder"
        raise InputError(
            str(given), f"the layout {layout!r} needs {wanted}", "Give that, or another --layout."
        )
    sources = sorted(LAYOUTS[layout](given), key=lambda source: source.video_id)
    if not sources:
        problem = f"no videos were found in it ({', '.join(VIDEO_SUFFIXES)})"
        raise InputError(str(given), problem, "Give a folder with videos, or another --layout.")
    for one, other in zip(sources, sources[1:], strict=False):
        if one.video_id == other.video_id:
            problem = f"{one.path} and {other.path} would both be called {one.video_id!r}"
            raise InputError(str(given), problem, "Rename one of them.")
    return sources


def assign_splits(sources: Sequence[SourceVideo], shares: SplitShares) -> list[SourceVideo]:
    """Give every video a split: its own or its person's explicit one, else by a hash of the person's name.

    Raises:
        InputError: A person is in two splits.
    """
    explicit: dict[str, SourceVideo] = {}
    for source in sources:
        first = explicit.setdefault(source.person, source) if source.split else source
        if first.split != source.split:
            problem = f"in {source.split} ({source.video_id}) and in {first.split} ({first.video_id})"
            raise InputError(
                f"person {source.person!r}", problem, "Put all videos of a person into one split."
            )
    return [
        replace(
            s, split=explicit[s.person].split if s.person in explicit else split_for_person(s.person, shares)
        )
        for s in sources
    ]


def split_for_person(person: str, shares: SplitShares) -> str:
    """The split of a person: the same on every machine, whoever else there is."""
    at = int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) / 2**64
    if at < shares.dev:
        return "dev"
    return "test" if at < shares.dev + shares.test else "train"
