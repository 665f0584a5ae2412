"""The protocols: which clips are repeated from which pictures. Each `Recipe` makes the frames of one take.

self: the clip's first frame is the source, as in the paper. cross-identity: the source is the first frame of the first
clip of the next person (persons in alphabetical order, the last one followed by the first); poses and eyes move
relative to the source's own, sound as in the clip.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from sdtalk.errors import InputError
from sdtalk.image import to_frames
from sdtalk.model import SDTalk
from sdtalk.stream import BATCH
from training.data.dataset import PreparedDataset, clip_frames
from training.data.entries import SPLITS, ClipEntry
from training.evaluation.figures import Take
from training.evaluation.frames import FrameStore, Timed
from training.evaluation.reenactment import check_fits, mouth_from, predicted_frames

PROTOCOLS = ("self", "cross-identity")
FRAME_RATE_HZ = 25
MEAD_VIEW = re.compile(r"(?:^|[^a-z])(front|(?:left|right)_?(?:30|60)|top|down)(?:[^a-z]|$)")


@dataclass(frozen=True)
class Recipe:
    """How to make one take.

    Attributes:
        name: The clip's.
        person: Who speaks.
        group: Data set, for MEAD with the kind of view; means are taken for each.
        make: A context that holds the frames.
        mouth: What moves the mouth: "sound", "measured" codes or "silence"; "" where others rendered.
        source: Whose picture is animated, where it is another person.
    """

    name: str
    person: str
    group: str
    make: Callable[[], AbstractContextManager[Take]]
    mouth: str = ""
    source: str = ""


def group_of(dataset: str, clip: str) -> str:
    """The data set, and for MEAD whether the camera is in front, as the paper's table parts it."""
    if dataset.lower() != "mead":
        return dataset or "unnamed"
    view = MEAD_VIEW.search(clip.lower())
    if view is None:
        return "MEAD"
    return "MEAD, frontal" if view[1] == "front" else "MEAD, other poses"


def next_person(persons: dict[str, str]) -> dict[str, str]:
    """For each clip the clip whose first frame it animates.

    Args:
        persons: For each clip its person.

    Raises:
        InputError: All clips show the same person.
    """
    names = sorted(set(persons.values()))
    if len(names) < 2:
        problem = "all of its clips show the same person"
        raise InputError("--protocol cross-identity", problem, "Give data of at least two persons.")
    first = {name: min(clip for clip, who in persons.items() if who == name) for name in names}
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return {clip: first[following[who]] for clip, who in persons.items()}


def limited(frames: int, seconds: float) -> int:
    """How many frames are measured."""
    return max(1, min(frames, round(seconds * FRAME_RATE_HZ)))


def prepared_recipes(
    prepared: PreparedDataset, model: SDTalk, split: str, protocol: str, seconds: float, device: str
) -> list[Recipe]:
    """Recipes for the clips of a split of a prepared data set, by key.

    Raises:
        InputError: The split is empty, or the set was not prepared for this model.
    """
    name = str(prepared.store.source)
    check_fits(model.config, prepared.index, name)
    entries = {entry.key: entry for entry in prepared.index.of(split)}
    if not entries:
        listed = ", ".join(f"{other} {len(prepared.index.of(other))}" for other in SPLITS)
        raise InputError(f"{name}, split {split!r}", f"it has no clips ({listed})", "Give another --split.")
    pairs = {key: key for key in entries}
    if protocol == "cross-identity":
        pairs = next_person({key: entry.person for key, entry in entries.items()})
    recipes = []
    for key, entry in entries.items():
        other = entries[pairs[key]]
        make = partial(_prepared_take, prepared, model, entry, other, seconds, device)
        clip_mouth = mouth_from(model.config, entry.own_speech)
        shown = other.person if other is not entry else ""
        recipes.append(Recipe(key, entry.person, group_of(entry.dataset, key), make, clip_mouth, shown))
    return recipes


@contextmanager
def _prepared_take(
    prepared: PreparedDataset, model: SDTalk, entry: ClipEntry, other: ClipEntry, seconds: float, device: str
) -> Iterator[Take]:
    clip, same = prepared.clip(entry), other is entry
    count = limited(entry.frames, seconds)
    _, image, mask = next(clip_frames(prepared, other))
    source = image[None], mask[None], prepared.clip(other).heads(torch.tensor([0]))
    rendered = predicted_frames(model, clip, source, range(count), None, device, relative=not same)
    timed = Timed(rendered, skipped=BATCH)  # the first ones also make the head
    with FrameStore() as predicted, FrameStore() as real:
        for frame in timed:
            predicted.append(frame)
        for number, picture, person in clip_frames(prepared, entry):
            if number == count:
                break
            real.append(to_frames((picture * person)[None])[0])
        yield Take(
            name=entry.key,
            predicted=predicted.frames(),
            real=real.frames(),
            samples=clip.audio[: count * 640].numpy(),
            own_speech=entry.own_speech,
            source=None if same else to_frames((image * mask)[None])[0],
            fps=timed.rate_hz,
        )
