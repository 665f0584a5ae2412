"""Every ablation is a model: it trains, saves and loads, and differs from the whole one in what it leaves out only."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import SIZE, toy_base, toy_model, toy_picture, toy_track

from sdtalk.camera import FACING, Camera
from sdtalk.checkpoint import load_model
from sdtalk.gaussians import Gaussians
from sdtalk.head import Frame, HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.tracking.head_track import COMPLETION_POINTS, HeadTrack

TABLE_4 = ("completion_branch", "fine_field")
ALL = [(size, switch) for size in ("mini", "base") for switch in TABLE_4]


@torch.no_grad()
def built(size: str, **switches: bool) -> SDTalk:
    if size == "mini":
        model = toy_model(**switches)
    else:
        model = toy_base(renderer_noise="none", **switches).requires_grad_(True)
    for field in model.motion_fields:  # as if trained: heads move visibly, everywhere differently
        for plane in (field.encoding.xy, field.encoding.yz, field.encoding.xz):
            plane.embeddings.normal_()
        field.mlp[-1].weight.normal_(std=0.01)
    return model


def whole_and_ablated(size: str, switch: str) -> tuple[SDTalk, SDTalk]:
    """With the same weights, where they have the same tensors."""
    whole, ablated = built(size), built(size, **{switch: False})
    weights = whole.state_dict()
    ablated.load_state_dict({name: weights[name] for name in ablated.state_dict()})
    return whole, ablated


def track_for(model: SDTalk) -> HeadTrack:
    track = toy_track()
    if model.config.template == "flame":
        return replace(track, completion_rows=torch.arange(COMPLETION_POINTS) + 7)
    return track


def head_of(model: SDTalk) -> HeadGaussians:
    mask = torch.ones(1, 1, SIZE, SIZE)
    mask[..., : SIZE // 8] = 0
    return model.reconstruct(toy_picture(), mask, track_for(model))


def state(model: SDTalk) -> tuple[torch.Tensor, torch.Tensor, Camera]:
    """What two frames hear and see, and the cameras: for base of 512 px, since its renderer wants that."""
    c, generator = model.config, torch.Generator().manual_seed(1)
    steps, channels, size = (37, c.mel_bins, SIZE) if c.audio_encoder == "mel" else (16, c.audio_width, 512)
    sound = torch.randn(2, steps, channels, generator=generator)
    camera = Camera.from_pose(FACING.repeat(2, 1, 1), torch.tensor([[0, 0, 9.5], [0.1, 0, 10]]), size)
    return sound, torch.rand(2, 6, generator=generator) * 0.05, camera


def frame_of(model: SDTalk) -> Frame:
    sound, eyes, camera = state(model)
    return model(head_of(model), model.listen(sound), eyes, camera)


def animated(model: SDTalk) -> Gaussians:
    sound, eyes, _ = state(model)
    return model.animate(head_of(model), model.listen(sound), eyes)


def untouched(model: SDTalk) -> set[str]:
    """Parameters that neither stage's picture has a gradient for."""
    frame = frame_of(model)
    (frame.colours.square().sum() + frame.rasterised.square().sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is None or g.isfinite().all() for g in gradients.values())
    return {name for name, g in gradients.items() if g is None}


@pytest.mark.parametrize(("size", "switch"), ALL)
def test_an_ablation_trains_and_has_no_parameters_for_what_it_leaves_out(size: str, switch: str) -> None:
    model = built(size, **{switch: False})
    assert untouched(model) <= untouched(built(size))


@torch.no_grad()
@pytest.mark.parametrize(("size", "switch"), ALL)
def test_an_ablation_saved_and_loaded_computes_the_same(size: str, switch: str, tmp_path: Path) -> None:
    model = built(size, **{switch: False})
    model.save_pretrained(tmp_path)
    for loaded in (load_model(tmp_path), SDTalk.from_pretrained(tmp_path)):
        assert loaded.config == model.config and not getattr(loaded.config, switch)
        assert torch.equal(frame_of(loaded).colours, frame_of(model).colours)


@torch.no_grad()
@pytest.mark.parametrize("size", ["mini", "base"])
def test_without_the_completion_branch_the_visible_gaussians_carry_everything(size: str) -> None:
    whole, ablated = whole_and_ablated(size, "completion_branch")
    left_out = {name.partition(".")[0] for name in set(whole.state_dict()) - set(ablated.state_dict())}
    assert left_out == {"reconstructor", "fine_field"} | ({"audio_encoder"} if size == "base" else set())
    assert ablated.motion_fields == [ablated.coarse_field] and ablated.listen(state(ablated)[0]).shape[0] == 2
    visible = {
        name: getattr(animated(whole), name)[:, COMPLETION_POINTS:] for name in Gaussians.__annotations__
    }
    for name, values in visible.items():
        assert torch.equal(getattr(animated(ablated), name), values), name
    head = head_of(ablated)
    assert head.completion_canonical.shape == (1, 0, 3) and head.head_weight.shape[1] == values.shape[1]
    assert (frame_of(ablated).rasterised - frame_of(whole).rasterised).abs().amax() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("size", ["mini", "base"])
def test_without_a_fine_field_the_coarse_one_moves_completion_gaussians_too(size: str) -> None:
    whole, ablated = whole_and_ablated(size, "fine_field")
    head, (sound, eyes, _) = head_of(ablated), state(ablated)
    for name in Gaussians.__annotations__:
        assert torch.equal(getattr(head.gaussians, name), getattr(head_of(whole).gaussians, name))
    code = ablated.listen(sound)
    codes = code[:, 0] if size == "base" else code
    field, points = ablated.coarse_field, head.completion_canonical
    expected = field(field.encode(points), codes, eyes).means
    if head.audio_code is not None:
        expected = expected - field(field.encode(points), head.audio_code, head.eyes).means
    means, before = animated(ablated).means, head.gaussians.means
    torch.testing.assert_close((means - before)[:, :COMPLETION_POINTS], expected, atol=1e-6, rtol=0)
    assert expected.abs().amax() > 1e-5
    of_whole = animated(whole).means
    torch.testing.assert_close(
        means[:, COMPLETION_POINTS:], of_whole[:, COMPLETION_POINTS:], atol=1e-6, rtol=0
    )
    assert (means - of_whole)[:, :COMPLETION_POINTS].abs().amax() > 1e-5


@pytest.mark.parametrize(("size", "switch"), ALL)
def test_an_ablation_encodes_its_points_again_with_gradients(size: str, switch: str) -> None:
    model = built(size, **{switch: False})
    with torch.no_grad():
        head = head_of(model)
    sound, eyes, _ = state(model)
    before = model.animate(head, model.listen(sound), eyes).means
    after = model.animate(model.recoded(head), model.listen(sound), eyes).means
    assert torch.equal(before, after)
    after.square().sum().backward()
    for field in model.motion_fields:
        assert all(p.grad is not None and p.grad.any() for p in field.encoding.parameters())
