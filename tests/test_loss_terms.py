"""Tests of the loss terms: against the published losses as written down once more, and by hand-made values."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from toy import toy_track

from sdtalk.camera import Camera
from sdtalk.errors import InputError
from sdtalk.head import Frame
from sdtalk.motion.audio_encoder import AudioEncoder, MouthEncoder, WhisperHead
from sdtalk.tracking.landmarks68 import landmarks68, lip_box_px
from training import loss_terms
from training.loss_terms import IMAGE_TERMS, LossTerms, RenderedBatch
from training.published_losses import Comparison, stage1_losses, stage2_losses
from training.settings import read_settings
from training.stages import mouth_code_loss
from training.train_settings import LOSS_TERMS, TrainSettings

CONFIGS = Path(__file__).parent.parent / "training" / "configs"
SIZE = 128


class PlainDistance(torch.nn.Module):
    """In the place of a perceptual network: the mean difference of each picture."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean((1, 2, 3))


@pytest.fixture(scope="module")
def rendered() -> RenderedBatch:
    torch.manual_seed(0)
    track = toy_track(2)
    camera = Camera.from_pose(track.camera.rotation, track.camera.translation, SIZE)
    pictures = [torch.rand(2, 3, SIZE, SIZE) for _ in range(3)]
    frame = Frame(pictures[0], torch.rand(2, 1, SIZE, SIZE), pictures[1])
    points = [torch.randn(2, count, 3) for count in (20, 60, 30)]
    face_px = camera.project(track.mesh)
    return RenderedBatch(frame, pictures[2], torch.rand(2, 1, SIZE, SIZE), face_px, points[0], points[1:])


def base(stage: int, *changes: str) -> TrainSettings:
    return read_settings(CONFIGS / f"base_stage{stage}.yaml", TrainSettings, changes)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_settings_of_base_give_the_published_losses(monkeypatch, rendered, stage) -> None:
    monkeypatch.setattr(loss_terms, "_features", lambda settings: ("published", PlainDistance()))
    if stage == 1:
        rendered = replace(rendered, lifted=rendered.lifted[:1])
    ours = LossTerms(base(stage, "losses.perceptual=0.01"))(rendered)
    pictures = Comparison(rendered.frame.rasterised, rendered.frame.colours, rendered.wanted)
    low, high = rendered.face_px.amin(1) / SIZE, rendered.face_px.amax(1) / SIZE
    boxes = torch.cat([low, high], dim=1)
    shared = (rendered.vertices, *rendered.lifted, F.l1_loss)
    if stage == 1:
        theirs = stage1_losses(pictures, boxes, *shared)
    else:
        theirs = stage2_losses(pictures, boxes, lip_box_px(landmarks68(rendered.face_px)), *shared)
    ours["image"] = ours["image"] + ours.pop("rasterised")
    assert set(ours) == set(theirs)
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_what_has_no_weight_is_not_computed(rendered) -> None:
    found = LossTerms(base(1, "losses={alpha: 2}"))
    assert found.face_network is None and found.features is None
    losses = found(rendered)
    assert set(losses) == {"alpha"}
    torch.testing.assert_close(losses["alpha"], 2 * (rendered.frame.alpha - rendered.mask).abs().mean())


def test_every_picture_term_has_a_gradient(rendered) -> None:
    mini = read_settings(
        CONFIGS / "mini_stage1.yaml",
        TrainSettings,
        [f"losses={{{', '.join(f'{t}: 1' for t in IMAGE_TERMS)}}}"],
    )
    frame = Frame(
        *(getattr(rendered.frame, n).clone().requires_grad_() for n in ("colours", "alpha", "rasterised"))
    )
    points = [group.clone().requires_grad_() for group in rendered.lifted]
    losses = LossTerms(mini)(replace(rendered, frame=frame, lifted=points))
    assert set(losses) == IMAGE_TERMS and set(LOSS_TERMS) - IMAGE_TERMS == {"geometry", "sound"}
    for name, loss in losses.items():
        leaves = [frame.colours, frame.alpha, frame.rasterised, *points]
        found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
        assert any(g is not None and g.abs().max() > 0 for g in found), name


def test_lpips_that_is_not_there_is_an_error_only_where_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(loss_terms.Lpips, "installed", classmethod(lambda cls: None))
    with pytest.raises(InputError, match="assets add lpips"):
        LossTerms(base(1, "perceptual=lpips"))
    assert LossTerms(base(1)).kind == "face_mesh"


def test_a_published_checkpoint_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="SDGTalk.pt"):
        LossTerms(base(1, "perceptual=published", f"perceptual_file={tmp_path / 'SDGTalk.pt'}"))


@pytest.mark.parametrize("kind, shape", [(AudioEncoder, (2, 37, 80)), (WhisperHead, (2, 17, 512))])
def test_the_code_is_learned_from_speakers_own_sound(
    kind: type[MouthEncoder], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    encoder = kind(width=6).eval()
    with torch.no_grad():
        encoder.head.bias[::5] = -5  # far below closed: limited to 0 in use
    windows, tracked = torch.randn(shape), torch.tensor([[0.9, 0, 0, 0, 0], [0.1, 1, 1, 1, 1]])
    both, first = (
        mouth_code_loss(encoder, windows, tracked, torch.tensor(own)) for own in ([1.0, 1.0], [1.0, 0.0])
    )
    alone = mouth_code_loss(encoder, windows[:1], tracked[:1], torch.ones(1))
    torch.testing.assert_close(first, alone / 2)
    assert both > first and mouth_code_loss(encoder, windows, tracked, torch.zeros(2)) == 0
    alone.backward()
    assert encoder.head.bias.grad[0] < 0 < encoder.closure.bias.grad[0]  # open more, and do not close
