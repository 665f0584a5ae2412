"""Evaluation protocols: which clips are rendered from which source pictures, as a list of `EvaluationCase`.

self: the clip's first frame is the source, as in the paper. cross-identity: the source is the first frame of the first
clip of the next person (persons in alphabetical order, the last one followed by the first); poses and eyes move
relative to the source's own, sound as in the clip. In both, measured mouth codes may take the place of the sound.
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
from sdtalk.reenact import check_knows_mouth_codes
from sdtalk.stream import BATCH
from training.data.dataset import PreparedDataset, clip_frames
from training.data.entries import SPLITS, ClipEntry
from training.evaluation.frame_store import FrameStore, TimedIterator
from training.evaluation.metrics import RenderedClip
from training.evaluation.reenactment import check_data_fits, measured_mouth, mouth_source, predicted_frames

PROTOCOLS = ("self", "cross-identity")
HEARD, MEASURED = CODES = ("heard", "measured")
"""What moves the mouth: what the model hears, as its users have it; or the speaker's measured mouth codes, so that only
the picture is measured, not the ears."""

FRAME_RATE_HZ = 25
MEAD_VIEW = re.compile(r"(?:^|[^a-z])(front|(?:left|right)_?(?:30|60)|top|down)(?:[^a-z]|$)")


@dataclass(frozen=True)
class EvaluationCase:
    """A clip to evaluate, and how to get its frames.

    Attributes:
        name: The clip's.
        person: Who speaks.
        group: Data set, for MEAD with the kind of view; means are taken for each.
        open: A context in which the frames are there.
        mouth: What moves the mouth: "sound", "measured" codes or "silence"; "" where others rendered.
        source: Whose picture is animated, where it is another person.
    """

    name: str
    person: str
    group: str
    open: Callable[[], AbstractContextManager[RenderedClip]]
    mouth: str = ""
    source: str = ""


def group_name(dataset: str, clip: str) -> str:
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


def frame_limit(frames: int, seconds: float) -> int:
    """How many frames are measured."""
    return max(1, min(frames, round(seconds * FRAME_RATE_HZ)))


def prepared_cases(
    prepared: PreparedDataset,
    model: SDTalk,
    split: str,
    protocol: str,
    seconds: float,
    device: str,
    codes: str = HEARD,
    exact: bool = False,
) -> list[EvaluationCase]:
    """Cases for the clips of a split of a prepared data set, by key.

    Raises:
        InputError: The split is empty, or the set was not prepared for this model, or the model knows no mouth codes.
    """
    if codes == MEASURED:
        check_knows_mouth_codes(model.config)
    name = str(prepared.store.source)
    check_data_fits(model.config, prepared.index, name)
    entries = {entry.key: entry for entry in prepared.index.of(split)}
    if not entries:
        listed = ", ".join(f"{other} {len(prepared.index.of(other))}" for other in SPLITS)
        raise InputError(f"{name}, split {split!r}", f"it has no clips ({listed})", "Give another --split.")
    pairs = {key: key for key in entries}
    if protocol == "cross-identity":
        pairs = next_person({key: entry.person for key, entry in entries.items()})
    cases = []
    for key, entry in entries.items():
        other = entries[pairs[key]]
        render = partial(_rendered_clip, prepared, model, entry, other, seconds, device, codes, exact)
        clip_mouth = MEASURED if codes == MEASURED else mouth_source(model.config, entry.own_speech)
        shown = other.person if other is not entry else ""
        cases.append(
            EvaluationCase(key, entry.person, group_name(entry.dataset, key), render, clip_mouth, shown)
        )
    return cases


@contextmanager
def _rendered_clip(
    prepared: PreparedDataset,
    model: SDTalk,
    entry: ClipEntry,
    other: ClipEntry,
    seconds: float,
    device: str,
    codes: str,
    exact: bool,
) -> Iterator[RenderedClip]:
    clip, same = prepared.clip(entry), other is entry
    count = frame_limit(entry.frames, seconds)
    _, image, mask = next(clip_frames(prepared, other))
    source = image[None], mask[None], prepared.clip(other).heads(torch.tensor([0]))
    mouth = measured_mouth(clip, range(count), same) if codes == MEASURED else None
    rendered = predicted_frames(
        model, clip, source, range(count), mouth, device, relative=not same, exact=exact
    )
    timed = TimedIterator(rendered, skipped=BATCH)  # the first ones also make the head
    with FrameStore() as predicted, FrameStore() as real:
        for frame in timed:
            predicted.append(frame)
        for number, picture, person in clip_frames(prepared, entry):
            if number == count:
                break
            real.append(to_frames((picture * person)[None])[0])
        yield RenderedClip(
            name=entry.key,
            predicted=predicted.frames(),
            real=real.frames(),
            samples=clip.audio[: count * 640].numpy(),
            own_speech=entry.own_speech,
            source=None if same else to_frames((image * mask)[None])[0],
            fps=timed.rate_hz,
            measured_codes=codes == MEASURED,
            known=clip.known_box,
        )
