"""Tests of the ablations: each one trains, saves and loads, and differs from the whole model in one part only."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import SIZE, toy_base, toy_model, toy_picture, toy_track

from sdtalk.camera import FACING, Camera
from sdtalk.checkpoint import load_model
from sdtalk.config import BASE, PRIORS, PUBLISHED_SLIPS, SDTalkConfig
from sdtalk.gaussians import Gaussians
from sdtalk.head import Frame, HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.published.convert import published_config
from sdtalk.tracking.head_track import COMPLETION_POINTS, HeadTrack

TABLE_4 = ("completion_branch", "fine_field")
ALL = [(size, switch) for size in ("mini", "base") for switch in TABLE_4] + [
    ("mini", s) for s in (*PRIORS, "lying_gaussians", "hair_behind", "photo_texture")
]
TWO_SIZES = pytest.mark.parametrize("size", ["mini", "base"])
GAUSSIANS = tuple(Gaussians.__annotations__)
HEADS = (
    "completion_canonical",
    "visible_canonical",
    "moving",
    "support",
    "head_weight",
    "audio_code",
    "texture",
    "detail",
)


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
    return model(head_of(model), model.encode_audio(sound), eyes, camera)


def animated(model: SDTalk) -> Gaussians:
    sound, eyes, _ = state(model)
    return model.animate(head_of(model), model.encode_audio(sound), eyes).gaussians


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
@TWO_SIZES
def test_without_the_completion_branch_the_visible_gaussians_carry_everything(size: str) -> None:
    whole, ablated = whole_and_ablated(size, "completion_branch")
    left_out = {name.partition(".")[0] for name in set(whole.state_dict()) - set(ablated.state_dict())}
    assert left_out == {"reconstructor", "fine_field"} | ({"audio_encoder"} if size == "base" else set())
    assert (
        ablated.motion_fields == [ablated.coarse_field]
        and ablated.encode_audio(state(ablated)[0]).shape[0] == 2
    )
    visible = {name: getattr(animated(whole), name)[:, COMPLETION_POINTS:] for name in GAUSSIANS}
    for name, values in visible.items():
        assert torch.equal(getattr(animated(ablated), name), values), name
    head = head_of(ablated)
    assert head.completion_canonical.shape == (1, 0, 3) and head.head_weight.shape[1] == values.shape[1]
    assert (frame_of(ablated).rasterised - frame_of(whole).rasterised).abs().amax() > 1e-4


@torch.no_grad()
@TWO_SIZES
def test_without_a_fine_field_the_coarse_one_moves_completion_gaussians_too(size: str) -> None:
    whole, ablated = whole_and_ablated(size, "fine_field")
    head, (sound, eyes, _) = head_of(ablated), state(ablated)
    for name in GAUSSIANS:
        assert torch.equal(getattr(head.gaussians, name), getattr(head_of(whole).gaussians, name))
    code = ablated.encode_audio(sound)
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
    before = model.animate(head, model.encode_audio(sound), eyes).gaussians.means
    after = model.animate(model.recoded(head), model.encode_audio(sound), eyes).gaussians.means
    assert torch.equal(before, after)
    after.square().sum().backward()
    for field in model.motion_fields:
        assert all(p.grad is not None and p.grad.any() for p in field.encoding.parameters())


def untrained(**switches: bool) -> SDTalk:
    return toy_model(trained=False, **switches)


def differing(first: HeadGaussians, second: HeadGaussians) -> set[str]:
    """Which of what a head is made of is not the same."""
    pairs = {name: (getattr(first.gaussians, name), getattr(second.gaussians, name)) for name in GAUSSIANS}
    pairs |= {name: (getattr(first, name), getattr(second, name)) for name in HEADS}
    there = {name: pair for name, pair in pairs.items() if pair != (None, None)}
    return {name for name, (a, b) in there.items() if a is None or b is None or not torch.equal(a, b)}


def heights(head: HeadGaussians) -> torch.Tensor:
    """Of the back and of the front layer over the lifting plane."""
    visible = head.gaussians.means[0, COMPLETION_POINTS:]
    return (visible @ head.rest.plane_normal[0]).unflatten(0, (2, -1))


def taught(model: SDTalk, channel: int, value: float) -> SDTalk:
    """With one raw channel of both layers at a value everywhere."""
    for layer in (model.reconstructor.visible_branch.front, model.reconstructor.visible_branch.back):
        layer.out.bias[channel] = value
    return model


@torch.no_grad()
def test_without_the_prior_depth_the_photo_lies_on_a_flat_layer() -> None:
    whole, flat = untrained(), untrained(prior_depth=False)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (whole, flat)]
    stem = "reconstructor.encoder.stem.0.weight"
    assert {k for k in shapes[0] if shapes[0][k] != shapes[1][k]} == {stem}
    assert shapes[0][stem][1] - shapes[1][stem][1] == 4  # depth and canonical position
    head = head_of(flat)
    assert differing(head, head_of(whole)) == {"means", "quats", "scales"}
    back, front = heights(head)
    torch.testing.assert_close(front, torch.full_like(front, 0.5), atol=1e-4, rtol=0)
    torch.testing.assert_close(back, torch.full_like(back, -0.5), atol=1e-4, rtol=0)
    scales = head.gaussians.scales[:, COMPLETION_POINTS:]
    torch.testing.assert_close(scales[..., 0], scales[..., 2])  # nothing steep to close
    assert shows_the_photo(flat) and shows_the_photo(whole)


def shows_the_photo(model: SDTalk) -> bool:
    """From where it was taken."""
    head = model.reconstruct(toy_picture(), torch.ones(1, 1, SIZE, SIZE), track_for(model))
    frame = model(head, head.audio_code, head.eyes, head.rest)
    return bool((frame.colours - toy_picture()).abs().mean() < 0.02 and frame.alpha.min() > 0.9)


@torch.no_grad()
@pytest.mark.parametrize(("raw", "front", "back"), [(4.0, 1.0, 0.0), (-4.0, 0.0, -1.0)])
def test_without_the_prior_depth_all_depths_of_the_paper_can_be_learned(
    raw: float, front: float, back: float
) -> None:
    found = heights(head_of(taught(untrained(prior_depth=False), 0, raw)))
    expected = torch.tensor([[back], [front]]).expand_as(found)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


@torch.no_grad()
def test_without_the_prior_colour_heads_start_grey_and_carry_no_photo() -> None:
    whole, grey = untrained(), untrained(prior_colour=False)
    head = head_of(grey)
    assert (
        differing(head, head_of(whole)) == {"features", "texture"}
        and head.texture is None
        and head.detail is None
    )
    rgb, source = head.gaussians.features.split([3, head.gaussians.features.shape[-1] - 3], dim=-1)
    assert (rgb == 0.5).all() and (source[..., :3] == 0).all()
    frame = frame_of(grey)
    torch.testing.assert_close(frame.colours, 0.5 * frame.alpha.expand_as(frame.colours))
    assert not shows_the_photo(grey)
    red = head_of(taught(grey, 1 + 8, 4.0)).gaussians.features[:, COMPLETION_POINTS:, :3]
    assert (red[..., 0] > 0.999).all() and (red[..., 1:] == 0.5).all()


@torch.no_grad()
def test_without_the_prior_colour_the_renderer_is_free_everywhere() -> None:
    for prior_colour in (False, True):
        model = built("mini", prior_colour=prior_colour)
        head = model.reconstruct(toy_picture(), torch.ones(1, 1, SIZE, SIZE), track_for(model))
        before = model(head, head.audio_code, head.eyes, head.rest)
        model.neural_renderer.out.bias += 0.1
        after = model(head, head.audio_code, head.eyes, head.rest)
        added = (after.colours - before.colours).mean(1, keepdim=True) / 0.1 / before.alpha
        assert added.mean() < 0.3 if prior_colour else (added - 1).abs().amax() < 1e-3


@torch.no_grad()
def test_without_lying_gaussians_they_are_upright_and_only_deep() -> None:
    whole, upright = whole_and_ablated("mini", "lying_gaussians")
    head, lying = head_of(upright), head_of(whole)
    assert differing(head, lying) == {"means", "quats", "scales"}  # what is hidden lies nearer
    moved = [h.gaussians.scales[:, COMPLETION_POINTS:].mean((0, 1)) for h in (head, lying)]
    assert moved[0].argmax() == 2 and moved[1].argmax() == 0


@torch.no_grad()
def test_without_hair_behind_only_the_hidden_layer_has_other_colours() -> None:
    whole, bare = whole_and_ablated("mini", "hair_behind")
    head, haired = head_of(bare), head_of(whole)
    assert differing(head, haired) <= {"features"}
    changed = (head.gaussians.features != haired.gaussians.features).any(-1)[0, COMPLETION_POINTS:]
    back, front = changed.chunk(2)
    assert back.any() and not front.any()


@torch.no_grad()
def test_without_photo_texture_gaussians_have_colours_of_their_own() -> None:
    whole, coloured = whole_and_ablated("mini", "photo_texture")
    head, textured = head_of(coloured), head_of(whole)
    assert differing(head, textured) == {"features", "texture", "detail"}
    front = head.gaussians.features.shape[1] - whole.config.plane_size**2
    assert (textured.gaussians.features[:, front:, :3] == 0).all()
    assert (head.gaussians.features[:, front:, :3] != 0).any()
    frame, other = frame_of(coloured), frame_of(whole)
    assert torch.equal(frame.alpha, other.alpha)
    assert (frame.colours - other.colours).abs().max() > 1e-3


@torch.no_grad()
def test_without_still_shoulders_everything_turns_with_the_head() -> None:
    whole, rigid = whole_and_ablated("mini", "still_shoulders")
    head, shouldered = head_of(rigid), head_of(whole)
    assert differing(head, shouldered) == {"head_weight"}
    assert (head.head_weight == 1).all() and shouldered.head_weight.min() < 0.5
    _, eyes, camera = state(whole)
    for index, same in ((0, True), (1, False)):  # the first is the source camera
        view = camera[index : index + 1]
        pictures = [m(h, h.audio_code, h.eyes, view) for m, h in ((rigid, head), (whole, shouldered))]
        difference = (pictures[0].rasterised - pictures[1].rasterised).abs().amax()
        assert (difference < 1e-3) == same


@torch.no_grad()
def test_without_canonical_positions_the_fields_see_the_gaussians_where_they_are() -> None:
    whole, ablated = whole_and_ablated("mini", "canonical_positions")
    head = head_of(ablated)
    assert differing(head, head_of(whole)) == {"completion_canonical", "visible_canonical"}
    means = head.gaussians.means
    assert torch.equal(head.completion_canonical, means[:, :COMPLETION_POINTS])
    assert torch.equal(head.visible_canonical, means[:, COMPLETION_POINTS:][:, head.moving])
    code = ablated.coarse_field.encode(head.visible_canonical)
    assert torch.equal(head.coarse_code.position, code.position)


def test_positions_send_no_gradient_into_the_reconstruction() -> None:
    head = head_of(built("mini", canonical_positions=False))
    assert head.gaussians.means.requires_grad
    assert not head.visible_canonical.requires_grad and not head.completion_canonical.requires_grad


@torch.no_grad()
def test_all_ablations_together_still_are_a_model() -> None:
    model = built("mini", **dict.fromkeys((*TABLE_4, *PRIORS), False))
    assert frame_of(model).colours.isfinite().all() and len(model.motion_fields) == 1


@pytest.mark.parametrize("switch", PRIORS)
def test_what_belongs_to_the_priors_cannot_be_left_out_without_them(switch: str) -> None:
    with pytest.raises(ValueError, match=f"{switch} = False .* priors = False"):
        replace(BASE, **{switch: False})


def test_converted_weights_are_no_ablation() -> None:
    config = published_config()
    assert all(getattr(config, switch) for switch in (*TABLE_4, *PRIORS)) and not config.priors
    assert all(getattr(config, slip) and not getattr(SDTalkConfig(), slip) for slip in PUBLISHED_SLIPS)
    assert len(PUBLISHED_SLIPS) == 7


@TWO_SIZES
def test_people_listen_alone_and_training_does_not_move_what_they_hear_by(size: str) -> None:
    """In eval mode batches are normalised by what was learned, and gradients flow all the same."""
    model = built(size)
    sound, _, _ = state(model)
    buffers = {name: value.clone() for name, value in model.audio_encoder.named_buffers()}
    together = model.encode_audio(sound)
    for i in range(2):
        torch.testing.assert_close(
            together[i : i + 1], model.encode_audio(sound[i : i + 1]), atol=1e-6, rtol=0
        )
    together.square().sum().backward()
    assert all(torch.equal(value, buffers[name]) for name, value in model.audio_encoder.named_buffers())
    gradients = [p.grad for n, p in model.audio_encoder.named_parameters() if not n.startswith("closure")]
    assert all(g is not None and g.any() for g in gradients)
