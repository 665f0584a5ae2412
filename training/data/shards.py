"""Shard writer: packs finished clips into the WebDataset shards of a prepared data set.

A finished clip is a folder called by its key: `clip.json` (`ClipMetadata`), `clip.npz` (its arrays), and for every
frame `000012.jpg` and `000012.png` (the picture and the person mask). Three steps make a data set of such folders:

1. `plan_shards`, on one process while the others wait, decides which clips go into which shard, and writes that down
   in `parts/plan.json`. What is in a plan stays as it is: clips that come later get shards of their own.
2. `write_shards`, on all processes at once, each writing shards of its own. A shard is complete when its part of the
   index, `parts/train-00000.json`, is there; complete ones are kept, so an interrupted run goes on where it stopped.
   The same clips give the same bytes, whoever writes them, and when.
3. `finish_dataset`, on one process when all are done, joins the parts into index.json and writes the data card.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sdtalk.errors import InputError
from training.data.atomic import cannot_write, write_atomically
from training.data.data_card import write_data_card
from training.data.entries import ClipEntry, entry_from_json, entry_to_json
from training.data.index import Index
from training.data.packing import END_OF_TAR, append_clip, read_clip_metadata

SHARD_MB = 256.0
PIECE_FRAMES = 64
PARTS = "parts"


@dataclass(frozen=True)
class ShardPlan:
    """Which clips a shard holds.

    Attributes:
        split: "train", "dev" or "test".
        number: Of the shard within its split.
        clips: Their keys.
    """

    split: str
    number: int
    clips: tuple[str, ...]

    @property
    def name(self) -> str:
        """What its files are called, without their ending."""
        return f"{self.split}-{self.number:05d}"


def plan_shards(clips: Sequence[Path], target: Path, shard_mb: float = SHARD_MB) -> list[ShardPlan]:
    """Assign clips to shards; on one process only, and before any of them writes.

    Args:
        clips: Folders of all finished clips. Those of shards that are complete may be gone.
        target: The data set.
        shard_mb: A shard is closed when its frames take about so many megabytes; a clip is never split.

    Returns:
        All shards there shall be, those of earlier calls first and unchanged.

    Raises:
        InputError: A clip's folder is not complete, or the plan cannot be written.
    """
    path = target / PARTS / "plan.json"
    plans = _read_plan(path)
    numbers = {plan.split: plan.number for plan in sorted(plans, key=lambda plan: plan.number)}
    planned = {key for plan in plans for key in plan.clips}
    groups: dict[str, list[Path]] = {}
    for folder in sorted(clips, key=lambda folder: folder.name):
        if folder.name not in planned:
            groups.setdefault(read_clip_metadata(folder).split, []).append(folder)
    for split, folders in sorted(groups.items()):
        for number, keys in enumerate(_group_by_size(folders, shard_mb * 1e6), numbers.get(split, -1) + 1):
            plans.append(ShardPlan(split, number, keys))
    write_atomically(path, json.dumps([dataclasses.asdict(plan) for plan in plans]).encode())
    return plans


def write_shards(
    plans: Sequence[ShardPlan],
    clips: Sequence[Path],
    target: Path,
    piece_frames: int = PIECE_FRAMES,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[tuple[ShardPlan, bool]]:
    """Write this process's share of the shards.

    Args:
        plans: From `plan_shards`, the same on all processes.
        clips: Folders of the finished clips.
        target: The data set.
        piece_frames: Up to so many frames are read at once in training.
        rank: Number of this process.
        processes: How many there are.

    Yields:
        Each shard, and whether it was written now (it may have been complete).

    Raises:
        InputError: A clip is missing, not complete, or not what a complete shard was made of; or the disk is full.
    """
    folders = {folder.name: folder for folder in clips}
    for plan in plans[rank::processes]:
        yield plan, _write_shard(plan, folders, target, piece_frames)


def remove_clip_folder(clip: Path) -> None:
    """Remove the folder of a clip whose shard is complete, so that no half of it ever looks like a finished clip."""
    going = clip.with_name(f"{clip.name}.partial")
    shutil.rmtree(going, ignore_errors=True)
    if clip.exists():
        clip.rename(going)
        shutil.rmtree(going, ignore_errors=True)


def finish_dataset(
    target: Path, tracker: str, sound: str, sound_width: int = 80, token_alignment: str | None = None
) -> Index:
    """Write the index and the data card over all shards of the plan; on one process only.

    Raises:
        InputError: A shard is not there, or a person is in two splits.
    """
    entries: list[ClipEntry] = []
    for plan in _read_plan(target / PARTS / "plan.json"):
        part = _read_part(plan, target)
        if part is None:
            problem = f"the shard {plan.name} is not complete"
            raise InputError(
                str(target), problem, "Run training/prepare.py again: it goes on where it stopped."
            )
        entries += part[1]
    splits: dict[str, str] = {}
    for clip in entries:
        if splits.setdefault(clip.person, clip.split) != clip.split:
            problem = f"the person {clip.person!r} is in the splits {splits[clip.person]} and {clip.split}"
            raise InputError(str(target), problem, "Put all clips of a person into one split.")
    entries.sort(key=lambda clip: clip.key)
    index = Index(tracker, sound, sound_width, token_alignment, tuple(entries))
    Index.from_json(index.to_json(), str(target))  # as strict about what we write as about what we read
    write_data_card(target, index)
    index.write(target)
    return index


def _read_plan(path: Path) -> list[ShardPlan]:
    if not path.exists():
        return []
    try:
        plans = json.loads(path.read_text(encoding="utf-8"))
        return [ShardPlan(p["split"], p["number"], tuple(p["clips"])) for p in plans]
    except (ValueError, KeyError, TypeError) as error:
        remedy = "Delete the data set and prepare it again, or copy it again."
        raise InputError(str(path), "it is damaged", remedy) from error


def _group_by_size(folders: list[Path], limit: float) -> Iterator[tuple[str, ...]]:
    """Clips shard by shard."""
    keys: list[str] = []
    size = 0
    for folder in folders:
        more = sum(file.stat().st_size for file in folder.iterdir())
        if keys and size + more > limit:
            yield tuple(keys)
            keys, size = [], 0
        keys.append(folder.name)
        size += more
    if keys:
        yield tuple(keys)


def _write_shard(plan: ShardPlan, folders: Mapping[str, Path], target: Path, piece_frames: int) -> bool:
    part = _read_part(plan, target)
    missing = [key for key in plan.clips if key not in folders]
    if missing:
        if part is not None:
            return False
        problem = f"the clip {missing[0]} is gone, and its shard {plan.name} is not complete"
        raise InputError(str(target), problem, "Prepare it again; the plan of the shards counts on it.")
    digest = _digest([folders[key] for key in plan.clips])
    if part is not None:
        if part[0] == digest:
            return False
        problem = f"the clips of its complete shard {plan.name} have changed"
        raise InputError(
            str(target), problem, "Prepare into a new folder, or delete that shard and its part."
        )
    entries = _write_tars([folders[key] for key in plan.clips], plan, target, piece_frames)
    text = json.dumps({"digest": digest, "clips": [entry_to_json(entry) for entry in entries]})
    write_atomically(target / PARTS / f"{plan.name}.json", text.encode())
    return True


def _read_part(plan: ShardPlan, target: Path) -> tuple[str, list[ClipEntry]] | None:
    """What a complete shard was made of, and its share of the index; None where it is not complete."""
    try:
        part = json.loads((target / PARTS / f"{plan.name}.json").read_text(encoding="utf-8"))
        entries = [entry_from_json(clip) for clip in part["clips"]]
        for span in (span for entry in entries for span in (entry.record, entry.pieces[-1])):
            if (target / span.shard).stat().st_size < span.offset + span.size:
                return None
        return part["digest"], entries
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(folders: Sequence[Path]) -> str:
    """Tells clips apart by their metadata, and by the names and sizes of their files."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(read_clip_metadata(folder).key.encode() + (folder / "clip.json").read_bytes())
        for file in sorted(folder.iterdir()):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _write_tars(folders: list[Path], plan: ShardPlan, target: Path, piece_frames: int) -> list[ClipEntry]:
    shard = f"{plan.name}.tar"
    partial = [target / kind / f"{shard}.partial" for kind in ("frames", "clips")]
    try:
        for path in partial:
            path.parent.mkdir(parents=True, exist_ok=True)
        with partial[0].open("wb") as frames, partial[1].open("wb") as clips:
            entries = [append_clip(folder, frames, clips, shard, piece_frames) for folder in folders]
            for file in (frames, clips):
                file.write(END_OF_TAR)
                file.flush()
                os.fsync(file.fileno())
        for path in partial:
            path.rename(path.with_suffix(""))
    except OSError as error:
        for path in partial:
            path.unlink(missing_ok=True)
        raise cannot_write(target, error) from error
    return entries
