"""Which videos there are, and which of their people are for what."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sdtalk.errors import InputError
from training.preparation.layouts import RECIPES
from training.preparation.settings import Shares
from training.preparation.source import Source
from training.video_files import SUFFIXES


def find_sources(given: Path, recipe: str | None) -> list[Source]:
    """The videos of an input, in a fixed order.

    Args:
        given: A folder, or a manifest.
        recipe: One of `RECIPES`; None: a manifest for a file, a folder for a folder.

    Raises:
        InputError: There is nothing to prepare, or the manifest or the lists cannot be used.
    """
    recipe = recipe or ("manifest" if given.is_file() else "folder")
    if not given.exists():
        raise InputError(str(given), "there is no such file or folder", "Check the path of the videos.")
    if given.is_dir() == (recipe == "manifest"):
        wanted = "the file manifest.json" if recipe == "manifest" else "a folder"
        raise InputError(
            str(given), f"the recipe {recipe!r} needs {wanted}", "Give that, or another --recipe."
        )
    sources = sorted(RECIPES[recipe](given), key=lambda source: source.video_id)
    if not sources:
        problem = f"no videos were found in it ({', '.join(SUFFIXES)})"
        raise InputError(str(given), problem, "Give a folder with videos, or another --recipe.")
    for one, other in zip(sources, sources[1:], strict=False):
        if one.video_id == other.video_id:
            problem = f"{one.path} and {other.path} would both be called {one.video_id!r}"
            raise InputError(str(given), problem, "Rename one of them.")
    return sources


def with_splits(sources: Sequence[Source], shares: Shares) -> list[Source]:
    """Give every video a split: its own or its person's explicit one, else by a hash of the person's name.

    Raises:
        InputError: A person is in two splits.
    """
    explicit: dict[str, Source] = {}
    for source in sources:
        first = explicit.setdefault(source.person, source) if source.split else source
        if first.split != source.split:
            problem = f"in {source.split} ({source.video_id}) and in {first.split} ({first.video_id})"
            raise InputError(
                f"person {source.person!r}", problem, "Put all videos of a person into one split."
            )
    return [
        replace(s, split=explicit[s.person].split if s.person in explicit else split_of(s.person, shares))
        for s in sources
    ]


def split_of(person: str, shares: Shares) -> str:
    """The split of a person: the same on every machine, whoever else there is."""
    at = int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) / 2**64
    if at < shares.dev:
        return "dev"
    return "test" if at < shares.dev + shares.test else "train"
