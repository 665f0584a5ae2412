"""Tests of the motion fields: identity at the start, and the published field's numbers."""

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled, with_rule_weights

from sdtalk.motion.hash_encoding import PlaneHashEncoding, TriplaneHashEncoding
from sdtalk.motion.motion_field import BLOCK, MotionField, PointCode, scaled_difference


def published_field(name: str) -> MotionField:
    ours = {"motion_net_flame": "fine_field.", "motion_net_dense": "coarse_field."}[name]
    return with_rule_weights(MotionField(TriplaneHashEncoding()), ours)


def tiny_field() -> MotionField:
    return MotionField(TriplaneHashEncoding(4, 4, 16, 6), audio_width=5, hidden_width=16, gate_widths=(8, 8))


def test_hash_encoding_equals_the_published_kernel() -> None:
    fixture = np.load(FIXTURES / "b_hashgrid.npz")
    encoding = published_field("motion_net_flame").encoding
    assert encoding.xy.offsets.tolist() == fixture["offsets"].tolist()
    assert encoding.xy.resolutions == fixture["level_resolution"].tolist()
    np.testing.assert_allclose(encoding.xy.level_scales, fixture["level_scale"], rtol=1e-7)
    code = encoding(torch.from_numpy(fixture["xyz"]))
    torch.testing.assert_close(code, torch.from_numpy(fixture["encode_x"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["motion_net_flame", "motion_net_dense"])
def test_motion_field_equals_the_published_one(name: str) -> None:
    fixture = np.load(FIXTURES / "c_motion.npz")
    field = published_field(name)
    points = torch.from_numpy(
        np.stack([parity_rule.normal(f"in/c/xyz{row}", (1000, 3), 0.5) for row in (0, 1)])
    )
    delta = field(
        field.encode(points), torch.from_numpy(fixture[f"{name}_enc_a"]), torch.from_numpy(fixture["eye"])
    )
    ours = torch.cat([delta.means, delta.quats, delta.scales, delta.opacities[..., None]], dim=-1)
    torch.testing.assert_close(ours, torch.from_numpy(fixture[f"{name}_out"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["motion_net_flame", "motion_net_dense"])
def test_every_intermediate_is_the_published_one(name: str) -> None:
    fixture = np.load(FIXTURES / "c_motion.npz")
    field = published_field(name)
    points = np.stack([parity_rule.normal(f"in/c/xyz{row}", (1000, 3), 0.5) for row in (0, 1)])
    code = field.encode(torch.from_numpy(points))
    for values, theirs in (
        (code.position, "enc_x"),
        (code.audio_gate, "aud_ch_att"),
        (code.eye_gate, "eye_ch_att"),
    ):
        assert_sampled(values, fixture, f"{name}_{theirs}", atol=1e-5)
    eyes = field.eye_encoder(torch.from_numpy(fixture["eye"]))
    torch.testing.assert_close(eyes, torch.from_numpy(fixture[f"{name}_enc_eye"]), atol=1e-5, rtol=0)


def test_points_in_blocks_move_as_all_at_once() -> None:
    field = tiny_field()
    torch.nn.init.normal_(field.mlp[-1].weight)
    code = field.encode(torch.randn(1, BLOCK + 7, 3) * 0.3)
    audio, eyes = torch.randn(2, 5), torch.randn(2, 6)
    at_once = field(code, audio, eyes).packed
    with torch.no_grad():
        blocks = field(code, audio, eyes).packed
        people = field(PointCode(*(x.repeat(2, 1, 1) for x in vars(code).values())), audio, eyes).packed
    torch.testing.assert_close(blocks, at_once, atol=1e-6, rtol=0)
    torch.testing.assert_close(people, at_once, atol=1e-6, rtol=0)


def test_codes_may_scale_weights_instead_of_gates_as_on_a_gpu() -> None:
    field = tiny_field()
    torch.nn.init.normal_(field.mlp[-1].weight)
    code = field.encode(torch.randn(1, 9, 3) * 0.3)
    audio, eyes = torch.randn(2, 5), torch.randn(2, 6)
    wanted, inner = field(code, audio, eyes).packed, field.eye_encoder(field.eye_scale * eyes)
    for points in (code, PointCode(*(x.repeat(2, 1, 1) for x in vars(code).values()))):
        found = field.by_small_weights(points, audio, inner)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
    found.sum().backward()
    assert all(p.grad is not None for p in field.parameters())


def test_an_untrained_field_is_the_identity() -> None:
    field = tiny_field()
    delta = field(field.encode(torch.randn(1, 50, 3)), torch.randn(3, 5), torch.randn(3, 6))
    assert all((getattr(delta, name) == 0).all() for name in ("means", "quats", "scales", "opacities"))


def test_gradients_reach_the_tables_once_the_last_layer_is_perturbed() -> None:
    field = tiny_field()
    torch.nn.init.normal_(field.mlp[-1].weight)
    field(
        field.encode(torch.randn(1, 50, 3) * 0.3), torch.randn(3, 5), torch.randn(3, 6)
    ).means.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in field.encoding.parameters())


def test_positions_outside_the_bound_have_a_zero_code() -> None:
    encoding = PlaneHashEncoding(4, 4, 16, 6)
    torch.nn.init.normal_(encoding.embeddings)
    unit = torch.tensor([[-0.01, 0.5], [0.5, 1.01], [0.5, 0.5]])
    assert (encoding(unit)[:2] == 0).all() and (encoding(unit)[2] != 0).any()


def test_difference_of_a_state_with_itself_is_nothing() -> None:
    field = tiny_field()
    torch.nn.init.normal_(field.mlp[-1].weight)
    delta = field(field.encode(torch.randn(1, 9, 3)), torch.randn(1, 5), torch.randn(1, 6))
    assert scaled_difference(delta, delta, torch.ones(1, 9)).means.abs().max() == 0
