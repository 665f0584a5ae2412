"""Test runs: settings of training runs of toy size, and comparisons of their results."""

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from made_up_data import make_prepared
from safetensors.torch import load_file
from torch import Tensor

MINI = {
    "encoder_width": 8, "local_channels": 8, "global_width": 8, "plane_size": 32, "template_width": 8,
    "feature_channels": 8, "hash_levels": 3, "hash_finest_resolution": 16, "hash_log2_table": 8, "motion_width": 8,
    "audio_width": 6, "renderer_width": 4,
}  # fmt: skip

BASE = {
    "backbone_width": 32, "backbone_depth": 4, "backbone_heads": 2, "backbone_picture_px": 56, "local_channels": 8,
    "global_width": 32, "plane_size": 32, "head_width": 8, "template_width": 8, "hash_levels": 4,
    "hash_base_resolution": 4, "hash_finest_resolution": 16, "hash_log2_table": 8, "motion_width": 8,
    "audio_width": 32, "audio_code_width": 8, "renderer_width": 1, "style_width": 8,
}  # fmt: skip

RATES = {
    1: {"reconstructor": 1e-3, "neural_renderer": 1e-3},
    2: {"fields": 1e-3, "tables": 1e-2, "audio_encoder": 1e-3, "neural_renderer": 1e-3},
}
LOSSES = {
    ("mini", 1): {"image": 1, "rasterised": 0.5, "alpha": 0.2, "perceptual": 0.5, "landmarks": 2, "lifting": 1},
    ("mini", 2): {"image": 1, "lip": 1, "geometry": 0.1, "sound": 1},
    ("base", 1): {"image": 0.5, "rasterised": 0.5, "box": 1, "lifting": 10},
    ("base", 2): {"image": 0.5, "rasterised": 0.5, "box": 1, "lip": 1, "lifting": 10},
}  # fmt: skip


def prepared_for(folder: Path, size: str = "mini", **options: Any) -> Path:
    """A made-up data set that fits a size; made once per folder."""
    if not (folder / "index.json").is_file():
        kinds = (
            {"sound": "mel", "tracker": "face_mesh"}
            if size == "mini"
            else {"sound": "hubert", "tracker": "flame"}
        )
        make_prepared(folder, **(kinds | options))
    return folder


def settings_file(folder: Path, source: Path, size: str = "mini", stage: int = 1, **changes: Any) -> Path:
    """Settings of a run of four steps; its folder is `folder`/run."""
    values: dict[str, Any] = {
        "stage": stage, "size": size, "start": None, "model": MINI if size == "mini" else BASE,
        "output": str(folder / "run"), "steps": 4, "window_px": 320 if size == "mini" else 512,
        "data": {"source": str(source), "threads": 1, "prefetch": 1, "pool": 2, "draws_per_piece": 4},
        "optimiser": {"rates": RATES[stage], "warmup_steps": 2}, "losses": LOSSES[size, stage], "lifting_step": 8,
        "log": {"trackers": [], "every": 1, "samples_every": 0}, "checkpoints": {"every": 2, "keep": 2},
        "perceptual": "face_mesh",
    }  # fmt: skip
    if size == "base":
        values["backbone"] = "random"
    for name, value in changes.items():
        both = isinstance(value, dict) and name not in ("model", "losses")
        values[name] = values[name] | value if both and name in values else value
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def weights(folder: Path) -> dict[str, Tensor]:
    """Of a model or a checkpoint."""
    return load_file(folder / "model.safetensors")


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Parts of a model in which anything differs."""
    assert set(before) == set(after)
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def farthest(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """Largest difference of any number."""
    assert set(before) == set(after)
    return max((before[k] - after[k]).abs().max().item() if before[k].numel() else -math.inf for k in before)
