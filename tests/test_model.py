"""Tests of the whole network's contract, at toy size."""

import pytest
import torch
from made_up_heads import turned
from toy import SIZE, TOY, toy_model, toy_picture, toy_track

from sdtalk.camera import Camera
from sdtalk.checkpoint import load_model
from sdtalk.head import HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.tracking.head_track import HeadTrack


@pytest.fixture(scope="module", params=["residual", "windows"])
def model(request: pytest.FixtureRequest) -> SDTalk:
    return toy_model(neural_renderer=request.param)


def head_of(model: SDTalk, seed: int = 0) -> HeadGaussians:
    return model.reconstruct(toy_picture(seed), torch.ones(1, 1, SIZE, SIZE), toy_track())


def state(frames: int) -> tuple[torch.Tensor, torch.Tensor, Camera]:
    torch.manual_seed(1)
    track = toy_track(frames)
    return torch.rand(frames, TOY.audio_code_width), track.eyes * torch.rand(frames, 1), track.camera


@torch.no_grad()
def test_the_state_of_the_photo_gives_the_photo_back(model: SDTalk) -> None:
    head = head_of(model)
    same = model.animate(head, head.audio_code, head.eyes)
    for name in ("means", "quats", "scales", "opacities"):
        torch.testing.assert_close(
            getattr(same.gaussians, name), getattr(head.gaussians, name), atol=1e-6, rtol=0
        )
    untrained = toy_model(trained=False)
    head = head_of(untrained)
    frame = untrained(head, head.audio_code, head.eyes, head.rest)
    assert frame.alpha.min() > 0.9
    assert (frame.colours - toy_picture()).abs().mean() < 0.02


@torch.no_grad()
def test_another_state_moves_the_face_but_not_the_background(model: SDTalk) -> None:
    head = head_of(model)
    code, eyes, camera = state(2)
    moved = model.animate(head, code, eyes).gaussians.means - head.gaussians.means
    assert moved[:, :1920].abs().amax() > 0 and not torch.equal(moved[0], moved[1])
    still = torch.ones(moved.shape[1], dtype=torch.bool)
    still[:1920] = False
    still[1920 + head.moving] = False
    assert still.any() and (moved[:, still] == 0).all()


@torch.no_grad()
def test_what_is_kept_of_the_photos_own_state_is_what_the_fields_say(model: SDTalk) -> None:
    """Training, whose fields change, keeps nothing of it."""
    code, eyes, _ = state(2)
    head = head_of(model)
    assert head.rest_offsets is not None and model.recoded(head).rest_offsets is None
    kept, asked = (model.animate(h, code, eyes).gaussians for h in (head, model.recoded(head)))
    torch.testing.assert_close(kept.means, asked.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(kept.scales, asked.scales, atol=1e-6, rtol=0)
    with torch.enable_grad():
        assert head_of(model).rest_offsets is None


@torch.no_grad()
def test_two_portraits_do_not_mix(model: SDTalk) -> None:
    code, eyes, camera = state(1)
    head = head_of(model, 0)
    before = model(head, code, eyes, camera).colours
    other = model(head_of(model, 1), code, eyes, camera).colours
    assert torch.equal(model(head, code, eyes, camera).colours, before)
    assert (other - before).abs().mean() > 0.02


@torch.no_grad()
def test_a_batch_is_its_frames(model: SDTalk) -> None:
    head = head_of(model)
    code, eyes, camera = state(3)
    together = model(head, code, eyes, camera).colours
    for i in range(3):
        alone = model(head, code[i : i + 1], eyes[i : i + 1], camera[i : i + 1]).colours
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=0)


def people() -> tuple[torch.Tensor, torch.Tensor, HeadTrack]:
    """Two that differ in picture, outline, pose, distance and mouth: other cells of their planes take part."""
    tracks = [toy_track(opening=o) for o in (0.0, 0.8)]
    cameras = [
        Camera.from_pose(turned(*torch.tensor([[yaw], [5.0], [3.0]])), torch.tensor([at]), SIZE)
        for yaw, at in ((-12.0, [0.1, 0.0, 9.0]), (15.0, [-0.1, 0.2, 12.0]))
    ]
    both = HeadTrack(
        Camera(
            torch.cat([c.world_to_camera for c in cameras]), cameras[0].intrinsics.repeat(2, 1, 1), SIZE, SIZE
        ),
        *(torch.cat([getattr(t, name) for t in tracks]) for name in ("mesh", "completion_points", "eyes")),
    )
    mask = torch.ones(2, 1, SIZE, SIZE)
    mask[1, :, :, : SIZE // 4] = 0
    return torch.cat([toy_picture(0), toy_picture(1)]), mask, both


@torch.no_grad()
def test_two_people_together_are_each_alone() -> None:
    model = toy_model()
    for parameter in model.coarse_field.parameters():
        parameter.mul_(10)  # so that what moves a little shows
    image, mask, track = people()
    code, eyes, camera = state(2)
    camera = camera.window(torch.tensor([2, 9]), torch.tensor([5, 0]), 48)
    head = model.reconstruct(image, mask, track)
    moved = model.animate(head, code, eyes)
    together, moving = model.render(head, moved, camera), []
    for i in range(2):
        one = slice(i, i + 1)
        head_alone = model.reconstruct(image[one], mask[one], track[one])
        moved_alone = model.animate(head_alone, code[one], eyes[one])
        torch.testing.assert_close(moved.gaussians.means[one], moved_alone.gaussians.means, atol=1e-6, rtol=0)
        alone = model.render(head_alone, moved_alone, camera[one])
        for name in ("colours", "alpha", "rasterised"):
            torch.testing.assert_close(getattr(together, name)[one], getattr(alone, name), atol=1e-5, rtol=0)
        moving.append(set(head_alone.moving.tolist()))
    assert moving[0] - moving[1] and moving[1] - moving[0]
    assert set(head.moving.tolist()) == moving[0] | moving[1]


def test_gradients_reach_every_part(model: SDTalk) -> None:
    model.zero_grad()
    windows = torch.randn(2, 37, TOY.mel_bins)
    _, eyes, camera = state(2)
    frame = model(head_of(model), model.encode_audio(windows), eyes, camera)
    (frame.colours.square().sum() + frame.rasterised.square().sum()).backward()
    for name, part in model.named_children():
        gradients = [p.grad for p in part.parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), name
        assert all(g is None or torch.isfinite(g).all() for g in gradients), name
    model.zero_grad()


@torch.no_grad()
def test_saved_and_loaded_it_computes_the_same(model: SDTalk, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config and not loaded.training
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    code, eyes, camera = state(1)
    torch.testing.assert_close(
        loaded(head_of(loaded), code, eyes, camera).colours, model(head_of(model), code, eyes, camera).colours
    )


def test_the_sizes_alone_decide_the_network() -> None:
    first, second = toy_model(motion_width=16), toy_model(motion_width=16)
    shapes = {k: v.shape for k, v in first.state_dict().items()}
    assert shapes == {k: v.shape for k, v in second.state_dict().items()}
    assert shapes != {k: v.shape for k, v in toy_model().state_dict().items()}
