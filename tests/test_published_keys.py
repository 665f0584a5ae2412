"""Tests of the checkpoint keys: each of the authors' tensors has one place in our model, or a reason for none."""

import re
from collections import Counter

import pytest
import torch

from sdtalk.published.keys import RENAMES, UNUSED, our_tensors, published_layout

KEYS = list(published_layout())


def is_unused(key: str) -> bool:
    return any(re.fullmatch(pattern, key) for pattern in UNUSED)


def places(key: str) -> dict[str, torch.Tensor] | None:
    """Our names for a tensor of theirs; None where there is no place for it."""
    shape, _ = published_layout()[key]
    try:
        return our_tensors(key, torch.empty(shape, device="meta"))
    except KeyError:
        return None


def test_the_checkpoint_has_679_tensors_of_the_published_size() -> None:
    sizes = [torch.Size(shape).numel() for shape, _ in published_layout().values()]
    assert len(KEYS) == 679 and sum(sizes) * 4 == 763_989_448


def test_every_tensor_has_a_place_or_a_reason() -> None:
    assert [key for key in KEYS if places(key) is None] == []


def test_no_two_tensors_have_the_same_place() -> None:
    names = Counter(name for key in KEYS for name in places(key) or {})
    assert [name for name, count in names.items() if count > 1] == []


def test_parts_of_a_tensor_are_all_of_it() -> None:
    for key in KEYS:
        if not is_unused(key) and (parts := places(key)) is not None:
            whole, _ = published_layout()[key]
            shapes = {tuple(part.shape) for part in parts.values()}
            assert len(shapes) == 1, f"{key}: unequal parts"
            assert sum(part.numel() for part in parts.values()) == torch.Size(whole).numel(), key


@pytest.mark.parametrize("pattern", UNUSED)
def test_every_reason_is_needed(pattern: str) -> None:
    assert any(re.fullmatch(pattern, key) for key in KEYS)


def test_every_renaming_is_needed() -> None:
    first = {
        next((pattern for pattern, _ in RENAMES if re.fullmatch(pattern, key)), None)
        for key in KEYS
        if not is_unused(key)
    }
    assert [pattern for pattern, _ in RENAMES if pattern not in first] == []


def test_the_perceptual_networks_are_36_tensors_and_unused() -> None:
    networks = [key for key in KEYS if key.startswith("percep_loss.")]
    pattern = next(pattern for pattern in UNUSED if pattern.startswith("percep_loss"))
    assert networks == [key for key in KEYS if re.fullmatch(pattern, key)]
    kinds = (r"vggface\.network\.\d+", r"net\.slice[1-5]\.\d+")
    counts = [
        sum(bool(re.fullmatch(rf"percep_loss\.{k}\.(weight|bias)", n)) for n in networks) for k in kinds
    ]
    assert len(networks) == 36 and counts == [26, 10]


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(KeyError, match="head_basis"):
        our_tensors("head_basis", torch.zeros(1))
