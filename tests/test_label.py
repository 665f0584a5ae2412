"""Tests of the "AI-generated" label: its place, its legibility, and that the rest of the picture stays."""

import numpy as np
import pytest
import torch

from sdtalk.errors import InputError
from sdtalk.pipeline import TalkOptions
from sdtalk.video.label import AI_GENERATED, LONGEST_LABEL, DeviceLabel, draw_label, labelled


def stamped(frames: np.ndarray, text: str = AI_GENERATED) -> np.ndarray:
    return next(labelled(iter([frames.copy()]), text, (frames.shape[2], frames.shape[1])))


@pytest.mark.parametrize("size", [64, 65, 512, 1024])
@pytest.mark.parametrize("text", [AI_GENERATED, "W" * LONGEST_LABEL])
def test_only_the_corner_changes(size: int, text: str) -> None:
    frames = np.full((2, size, size, 3), 90, np.uint8)
    changed = (stamped(frames, text) != frames).any(axis=(0, 3))
    assert changed.any()
    height = draw_label(text, size).shape[0]
    assert not changed[: size - height - size // 40].any()


@pytest.mark.parametrize("shade", [0, 255])
def test_it_can_be_read_on_light_and_dark(shade: int) -> None:
    label = draw_label(AI_GENERATED, 512)
    frame = stamped(np.full((1, 512, 512, 3), shade, np.uint8))[0].astype(int)
    corner = frame[512 - 12 - label.shape[0] : 512 - 12, 512 - 12 - label.shape[1] : 512 - 12]
    assert np.percentile(corner, 98) - np.median(corner) > 90


@pytest.mark.parametrize("shade", [0, 255])
def test_where_frames_are_transparent_it_is_opaque(shade: int) -> None:
    frames = np.full((1, 512, 512, 4), shade, np.uint8)
    frames[..., 3] = 0
    changed = stamped(frames)[0]
    label = draw_label(AI_GENERATED, 512)
    inside = label[..., 3] > 0
    corner = changed[512 - 12 - label.shape[0] : 512 - 12, 512 - 12 - label.shape[1] : 512 - 12]
    assert np.array_equal(corner[..., 3], np.where(inside, 255, 0))
    over_black = (label[..., :3].astype(float) * label[..., 3:] / 255)[inside]
    assert np.abs(corner[..., :3][inside] - over_black).max() <= 1, "what is not seen does not shine through"
    assert (changed[..., 3] > 0).sum() == inside.sum()


def test_opaque_frames_with_alpha_get_the_same_label() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 4), np.uint8)
    frames[..., 3] = 255
    found = stamped(frames)
    assert (found[..., 3] == 255).all()
    assert np.array_equal(found[..., :3], stamped(frames[..., :3]))


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (65, 4), (512, 4)])
def test_a_device_draws_the_same_label(size: int, channels: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, size, size, channels), np.uint8)
    found = torch.from_numpy(frames.copy())
    DeviceLabel(AI_GENERATED, (size, size), torch.device("cpu")).draw(found)
    assert np.array_equal(found.numpy(), stamped(frames)) and not np.array_equal(found.numpy(), frames)


def test_no_text_no_change() -> None:
    frames = np.zeros((1, 64, 64, 3), np.uint8)
    assert (stamped(frames, "") == frames).all()


@pytest.mark.parametrize("text", ["x" * (LONGEST_LABEL + 1), "two\nlines"])
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="does not fit"):
        TalkOptions(label=text)
