"""Test models: parts of our model with the parity rule's weights, by the names of the authors' checkpoint."""

from pathlib import Path

import numpy as np
import parity_rule
import torch
from torch import Tensor, nn

from sdtalk.published.checkpoint import table_edges
from sdtalk.published.keys import our_tensors, published_layout

FIXTURES = Path(__file__).parent / "fixtures"

SETTINGS = {
    "AUDIO_DRIVE_MODEL": {"NAME": "AudioDriveAvatar", "AUDIO_EXTRACTOR": "hubert"},
    "SIZE": 512,
    "LR": 1e-4,
}
"""Some of what the authors' file says beside the tensors."""


def rule_checkpoint() -> dict[str, Tensor]:
    """All 679 tensors of the authors' layout, by the parity rule."""
    tensors = {}
    for key, (shape, _) in published_layout().items():
        values = parity_rule.weight(key, shape)
        tensors[key] = table_edges() if values is None else torch.from_numpy(values)
    return tensors


def rule_tensors(prefix: str) -> dict[str, Tensor]:
    """Rule-made tensors of all keys of theirs whose name with us starts with a prefix, without the prefix."""
    tensors = {}
    for key, (shape, _) in published_layout().items():
        try:
            names = our_tensors(key, torch.empty(shape, device="meta"))
        except KeyError:
            continue
        if any(name.startswith(prefix) for name in names):
            made = our_tensors(key, torch.from_numpy(parity_rule.weight(key, shape)))
            tensors |= {name.removeprefix(prefix): tensor for name, tensor in made.items()}
    return tensors


def with_rule_weights(module: nn.Module, prefix: str) -> nn.Module:
    """Load rule-made weights strictly; buffers of fixed integers keep what the constructor made."""
    tensors = rule_tensors(prefix)
    kept = {k: v for k, v in module.state_dict().items() if not v.is_floating_point()}
    module.load_state_dict(tensors | kept, strict=True)
    return module.eval()


def assert_sampled(ours: Tensor, fixture: np.lib.npyio.NpzFile, name: str, atol: float) -> None:
    """Compare an array with the sampled values X__val at the flat indices X__idx, and with the shape and mean."""
    assert tuple(ours.shape) == tuple(fixture[f"{name}__shape"].tolist()), name
    values = ours.detach().flatten()[torch.from_numpy(fixture[f"{name}__idx"]).long()]
    torch.testing.assert_close(
        values, torch.from_numpy(fixture[f"{name}__val"]), atol=atol, rtol=0, msg=lambda m: f"{name}: {m}"
    )
    assert abs(ours.double().mean().item() - float(fixture[f"{name}__stats"][0])) < max(atol, 1e-6), name
