"""Data card: the README.md of a prepared data set, for people and for the library `datasets`."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training.data.atomic import write_atomically
from training.data.entries import SPLITS, ClipMetadata
from training.data.index import Index
from training.data.store import LocalStore, read_record

METADATA_TYPES: dict[str, Any] = {
    "key": "string",
    "person": "string",
    "dataset": "string",
    "split": "string",
    "frames": "int64",
    "own_speech": "bool",
    "video": "string",
    "start_s": "float64",
    "crop": {"left": "float64", "top": "float64", "side": "float64"},
    "source_fps": "float64",
    "source_size": ["int64"],
    "audio_late_ms": "float64",
    "audio_late_from": "string",
    "notes": ["string"],
}
"""Types of a clip's metadata, but for what was measured; of lists the type of their values."""

FRAME = {
    "jpg": "image",
    "mask.png": "image",
    "json": {"clip": "string", "frame": "int64", "person": "string"},
}

TEXT = """
# A prepared data set for SDTalk

Written by `training/prepare.py`. {clips:,} clips of {people:,} people, {frames:,} frames ({hours:.2f} h, 25 a second).

{table}

People are in one split only. Heads are tracked with `{tracker}`; beside the sound lie {sound} features.

## What is in it

- `frames/`: one sample a frame. `jpg`: the picture, 512 x 512, black where the person certainly is not, else as filmed;
  `mask.png`: the person mask; `json`: clip, number of the frame in it, person.
- `clips/`: one sample a clip. `json`: where it comes from and how good it is; `npz`: its arrays:

{arrays}

- `index.json`: which bytes of which shard each clip takes, so that training reads ranges; `parts/`: the same by shard,
  and the plan by which more clips are added.

```python
from datasets import load_dataset

frames = load_dataset("{name}", "frames", split="{split}", streaming=True)
clips = load_dataset("{name}", "clips", split="{split}", streaming=True)
```

For training: `data.source: {name}` in the settings of `training/train.py`, or `hf://datasets/USER/NAME` once it is on
the Hub.

"""

RIGHTS = """
## Licence and people shown
"""

NOT_STATED = """
The videos are not ours: their licences, and the consent of the people they show, hold for this data set, too. State
them here before you pass it on: what stands below this heading stays when more clips are added. Sets are private on the
Hub unless you decide otherwise.
"""


def write_data_card(folder: Path, index: Index) -> None:
    """Write README.md; of an older one only what it says of rights is kept, which somebody may have written by hand.

    Args:
        folder: The data set, all shards complete.
        index: Its index.

    Raises:
        InputError: A shard cannot be read, or the card not be written.
    """
    arrays, quality = _first_clip(folder, index)
    head = yaml.safe_dump(_head(index, arrays, quality), sort_keys=False)
    text = _text(folder, index, arrays) + RIGHTS + _rights(folder / "README.md")
    write_atomically(folder / "README.md", f"---\n{head}---\n{text}".encode())


def _rights(card: Path) -> str:
    """What the card says of rights so far."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    return text.partition(RIGHTS)[2] or NOT_STATED


def _first_clip(folder: Path, index: Index) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays of the first clip, and what was measured of it."""
    span = index.clips[0].record
    source = f"{folder}/{span.shard}, clip {index.clips[0].key}"
    metadata, arrays = read_record(LocalStore(str(folder)).span(span), source)
    return arrays, ClipMetadata.from_json(metadata, source).quality


def _head(index: Index, arrays: dict[str, np.ndarray], quality: dict[str, Any]) -> dict[str, Any]:
    """The YAML head. The types are given because `datasets` else guesses them from the first five samples."""
    splits = _splits(index)
    measured = {name: ["float64"] if isinstance(v, list) else "float64" for name, v in quality.items()}
    metadata = METADATA_TYPES | {"quality": measured} if measured else METADATA_TYPES
    clip = {"json": metadata, "npz": {name: _nested(array) for name, array in arrays.items()}}
    keys = {"__key__": "string", "__url__": "string"}
    kinds = {"frames": FRAME | keys, "clips": clip | keys}
    return {
        "license": "other",
        "pretty_name": "Prepared talking-head clips (SDTalk)",
        "tags": ["talking-head", "webdataset"],
        "configs": [
            {
                "config_name": kind,
                "data_files": [{"split": split, "path": f"{kind}/{split}-*.tar"} for split in splits],
            }
            | ({"default": True} if kind == "frames" else {})
            for kind in kinds
        ],
        "dataset_info": [
            {"config_name": kind, "features": _features(types)} for kind, types in kinds.items()
        ],
    }


def _nested(array: np.ndarray) -> Any:
    types: Any = str(array.dtype)
    for _ in range(array.ndim):
        types = [types]
    return types


def _features(types: dict[str, Any]) -> list[dict[str, Any]]:
    """As `datasets` writes them."""
    return [{"name": name} | _feature(kind) for name, kind in types.items()]


def _feature(kind: Any) -> dict[str, Any]:
    if isinstance(kind, dict):
        return {"struct": _features(kind)}
    if isinstance(kind, list):
        inner = _feature(kind[0])
        return {"list": inner["dtype"] if "dtype" in inner else inner}
    return {"dtype": kind}


def _splits(index: Index) -> list[str]:
    return [split for split in SPLITS if index.of(split)]


def _text(folder: Path, index: Index, arrays: dict[str, np.ndarray]) -> str:
    rows = ["| split | clips | people | frames | with their own voice |", "|---|---|---|---|---|"]
    for split in _splits(index):
        clips = index.of(split)
        own = sum(clip.own_speech for clip in clips)
        frames = sum(clip.frames for clip in clips)
        rows.append(
            f"| {split} | {len(clips):,} | {len({c.person for c in clips}):,} | {frames:,} | {own:,} |"
        )
    first, frames = index.clips[0], sum(clip.frames for clip in index.clips)
    shapes = [
        f"  - `{name}`: {array.dtype}, {' x '.join(map(str, array.shape))} for the {first.frames} frames of {first.key}"
        for name, array in arrays.items()
    ]
    return TEXT.format(
        clips=len(index.clips),
        people=len({clip.person for clip in index.clips}),
        frames=frames,
        hours=frames / 25 / 3600,
        table="\n".join(rows),
        tracker=index.tracker,
        sound=index.sound,
        arrays="\n".join(shapes),
        name=folder.name,
        split=_splits(index)[0],
    )
