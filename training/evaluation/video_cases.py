"""Evaluation cases from video files: clips of a manifest, reenacted by a model, or predictions of other methods."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sdtalk.camera import FRAME_SIZE
from sdtalk.errors import InputError
from sdtalk.image import box_within
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.reenact import ReenactOptions, check_knows_mouth_codes, prepare, real_frames
from sdtalk.speech.audio import read_speech
from sdtalk.stream import BATCH, render_frames
from sdtalk.tracking.head_track import Portrait
from sdtalk.video import probe, read_frames
from training.evaluation.frame_store import FrameStore, TimedIterator
from training.evaluation.metrics import RenderedClip
from training.evaluation.protocols import (
    HEARD,
    MEASURED,
    EvaluationCase,
    frame_limit,
    group_name,
    next_person,
)
from training.video_files import VIDEO_SUFFIXES

SAME_LENGTH_FRAMES = 5
"""Predictions may be so many frames longer or shorter than their targets; what both have is compared."""

SAME_SHAPE = 0.01
"""Largest difference of the logarithms of width over height."""


def manifest_cases(
    path: Path,
    pipeline: SDTalkPipeline,
    split: str,
    protocol: str,
    seconds: float,
    codes: str = HEARD,
    exact: bool = False,
) -> list[EvaluationCase]:
    """Cases for the clips of a manifest: a JSON list of {file, split, identity, dataset, own_speech_audio}.

    Raises:
        InputError: It cannot be read, or has no clips of the split, or the model knows no mouth codes.
    """
    if codes == MEASURED:
        check_knows_mouth_codes(pipeline.model.config)
    entries = manifest_videos(path, split)
    persons = {entry["file"]: str(entry.get("identity", entry["file"])) for entry in entries}
    pairs = {file: file for file in persons}
    if protocol == "cross-identity":
        pairs = next_person(persons)
    cases, mouth = [], MEASURED if codes == MEASURED else "sound"
    for entry in entries:
        file, own = entry["file"], entry.get("own_speech_audio") is True
        other = None if pairs[file] == file else path.parent / pairs[file]
        render = partial(_reenacted_clip, pipeline, path.parent / file, other, own, seconds, codes, exact)
        shown = persons[pairs[file]] if other else ""
        group = group_name(str(entry.get("dataset", "")), file)
        cases.append(EvaluationCase(Path(file).stem, persons[file], group, render, mouth, shown))
    return cases


def manifest_videos(path: Path, split: str) -> list[dict[str, Any]]:
    """Entries of a manifest for the videos of a split.

    Raises:
        InputError: It cannot be read, or has none.
    """
    videos = [e for e in _manifest(path) if e["file"].lower().endswith(VIDEO_SUFFIXES)]
    entries = [e for e in videos if e.get("split") == split]
    if not entries:
        raise InputError(str(path), f"it names no videos of the split {split!r}", "Give another --split.")
    return entries


def _manifest(path: Path) -> list[dict[str, Any]]:
    remedy = "Give a prepared data set, or a manifest.json: a list of {file, split, identity, dataset}."
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), f"it cannot be read ({error.strerror})", remedy) from error
    except ValueError as error:
        raise InputError(str(path), "it is no JSON", remedy) from error
    if not isinstance(entries, list) or not all(
        isinstance(e, dict) and isinstance(e.get("file"), str) for e in entries
    ):
        raise InputError(str(path), "it is no list of entries with a `file`", remedy)
    return entries


@contextmanager
def _reenacted_clip(
    pipeline: SDTalkPipeline,
    clip: Path,
    other: Path | None,
    own_speech: bool,
    seconds: float,
    codes: str,
    exact: bool,
) -> Iterator[RenderedClip]:
    portrait = None
    with tempfile.TemporaryDirectory() as folder, FrameStore() as predicted, FrameStore() as real:
        if other is not None:
            portrait = str(Path(folder) / "source.png")
            Image.fromarray(first_frame(other)).save(portrait)
        options = ReenactOptions(portrait, measured_codes=codes == MEASURED, exact=exact)
        reenactment = prepare(pipeline, clip, options)
        count, info = frame_limit(len(reenactment.signals), seconds), probe(clip)
        signals, scene = reenactment.signals[:count], reenactment.scene
        batches = render_frames(pipeline.model, reenactment.head, signals, scene, exact=exact)
        # by themselves: they are made on all cores while others look at the last ones
        timed = TimedIterator(chain.from_iterable(batches), skipped=BATCH)
        for frame in timed:
            predicted.append(frame)
        filmed = islice(read_frames(clip), count)
        while some := list(islice(filmed, BATCH)):
            for frame in real_frames(pipeline, reenactment, some):
                real.append(frame)
        yield RenderedClip(
            name=clip.stem,
            predicted=predicted.frames(),
            real=real.frames(),
            samples=read_speech(clip).samples.numpy()[: count * 640] if info.has_sound else None,
            own_speech=own_speech,
            source=None if other is None else _source_picture(pipeline, other),
            fps=timed.rate_hz,
            measured_codes=codes == MEASURED,
            known=box_within(reenactment.crop, info.width, info.height, FRAME_SIZE),
        )


def first_frame(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """The first frame of a video.

    Raises:
        InputError: It cannot be read.
    """
    frames = read_frames(path)
    try:
        return next(frames)
    finally:
        frames.close()  # type: ignore[attr-defined]


def _source_picture(pipeline: SDTalkPipeline, other: Path) -> UInt8[np.ndarray, "512 512 3"]:
    """The source as it was cut out, before the same background."""
    person: Portrait = pipeline.tracker.portrait(first_frame(other), str(other))
    picture = (person.image * person.mask)[0].permute(1, 2, 0).numpy()
    return (picture * 255).round().astype(np.uint8)


def prediction_cases(
    predictions: Path, targets: Path, seconds: float
) -> tuple[list[EvaluationCase], list[tuple[str, str]]]:
    """Cases for videos that others have predicted, matched with their targets by name.

    Returns:
        The cases; and what has no counterpart, with what it lacks.

    Raises:
        InputError: A folder is missing, has two videos of one name, or none that match.
    """
    ours, theirs = _videos(predictions), _videos(targets)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        problem = f"none of its {len(ours)} videos has the name of one of the {len(theirs)} in {targets}"
        raise InputError(str(predictions), problem, "Name each prediction like its target.")
    cases = [
        EvaluationCase(
            name, name, targets.resolve().name, partial(_predicted_clip, ours[name], theirs[name], seconds)
        )
        for name in both
    ]
    alone = [
        (str(mine[name]), f"it has no {lacks} of the same name")
        for mine, others, lacks in ((ours, theirs, "target"), (theirs, ours, "prediction"))
        for name in sorted(mine.keys() - others.keys())
    ]
    return cases, alone


def _videos(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(str(folder), "there is no such folder", "Give a folder of videos.")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            if path.stem in found:
                problem = f"{found[path.stem].name} and {path.name} have the same name"
                raise InputError(str(folder), problem, "Keep one of them.")
            found[path.stem] = path
    return found


@contextmanager
def _predicted_clip(prediction: Path, target: Path, seconds: float) -> Iterator[RenderedClip]:
    """Frames of both at 25 a second, as large as the target would be with a longer side of 512 px."""
    ours, theirs = probe(prediction), probe(target)
    if abs(np.log(ours.width / ours.height * theirs.height / theirs.width)) > SAME_SHAPE:
        problem = f"it is {ours.width} x {ours.height} px, and its target {theirs.width} x {theirs.height} px"
        raise InputError(str(prediction), problem, "Crop both alike.")
    scale = FRAME_SIZE / max(theirs.width, theirs.height)
    size = round(theirs.width * scale), round(theirs.height * scale)
    with FrameStore() as predicted, FrameStore() as real:
        most = frame_limit(1 << 40, seconds)
        extra = 0
        for one, other in islice(zip_longest(read_frames(prediction), read_frames(target)), most):
            if one is None or other is None:
                extra += 1
                continue
            predicted.append(_resized(one, size))
            real.append(_resized(other, size))
        if extra > SAME_LENGTH_FRAMES:
            problem = f"it and its target share {real.count} frames, and one has {extra} more"
            raise InputError(str(prediction), problem, "Predict the whole target, frame by frame.")
        sound = read_speech(target).samples.numpy() if theirs.has_sound else None
        yield RenderedClip(
            name=target.stem,
            predicted=predicted.frames(),
            real=real.frames(),
            samples=None if sound is None else sound[: real.count * 640],
            own_speech=sound is not None,
        )


def _resized(frame: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(frame)
    return np.asarray(picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS))
