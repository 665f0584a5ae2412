"""Tests of the paper's audio codes: the published numbers, alone and through the motion fields."""

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, with_rule_weights
from torch import Tensor

from sdtalk.motion.hash_encoding import TriplaneHashEncoding
from sdtalk.motion.motion_field import MotionField
from sdtalk.motion.token_encoder import TokenEncoder, TokenEncoders

FIELDS = {"motion_net_flame": "fine", "motion_net_dense": "coarse"}  # the published name: ours
CODES = 2e-6  # numbers of the order of one after five layers of up to 1024 terms
OFFSETS = 5e-7  # ten times the noise of the published nets in float32; offsets reach 0.15


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    return dict(np.load(FIXTURES / "c_motion.npz"))


@pytest.fixture(scope="module")
def windows() -> Tensor:
    return torch.from_numpy(parity_rule.normal("in/c/audio", (2, 16, 1024)))


def assert_close(ours: Tensor, theirs: np.ndarray, atol: float) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(theirs), atol=atol, rtol=0)


@pytest.mark.parametrize("name", FIELDS)
def test_every_step_equals_the_published_one(
    name: str, published: dict[str, np.ndarray], windows: Tensor
) -> None:
    encoder = with_rule_weights(TokenEncoder(), f"audio_encoder.{FIELDS[name]}.")
    codes = encoder.mlp(windows)
    assert_close(codes, published[f"{name}_audio_net"], CODES)
    assert_close(encoder.weights(codes), published[f"{name}_audio_attention"], CODES)
    assert_close(encoder(windows), published[f"{name}_enc_a"], CODES)


def test_from_tokens_to_offsets_as_published(published: dict[str, np.ndarray], windows: Tensor) -> None:
    codes = with_rule_weights(TokenEncoders(), "audio_encoder.")(windows).unbind(1)
    points = np.stack([parity_rule.normal(f"in/c/xyz{row}", (1000, 3), 0.5) for row in (0, 1)])
    for name, code in zip(("motion_net_dense", "motion_net_flame"), codes, strict=True):
        field = with_rule_weights(MotionField(TriplaneHashEncoding()), f"{FIELDS[name]}_field.")
        delta = field(field.encode(torch.from_numpy(points)), code, torch.from_numpy(published["eye"]))
        ours = torch.cat([delta.means, delta.quats, delta.scales, delta.opacities[..., None]], dim=-1)
        assert_close(ours, published[f"{name}_out"], OFFSETS)


def test_the_fields_have_encoders_of_their_own_coarse_first() -> None:
    encoders = TokenEncoders(token_width=32, code_width=8, window=6)
    windows = torch.randn(5, 6, 32)
    codes = encoders(windows)
    assert codes.shape == (5, 2, 8)
    assert torch.equal(codes[:, 0], encoders.coarse(windows))
    assert torch.equal(codes[:, 1], encoders.fine(windows))
    assert not torch.allclose(codes[:, 0], codes[:, 1])


def test_the_code_is_a_mean_of_the_token_codes() -> None:
    encoder = TokenEncoder(token_width=8, code_width=4, window=6)  # too narrow to halve four times
    token = torch.randn(1, 1, 8)
    code = encoder(token.expand(1, 6, 8))
    torch.testing.assert_close(code, encoder.mlp(token)[:, 0])


def test_gradients_reach_every_weight() -> None:
    encoders = TokenEncoders(token_width=32, code_width=16, window=16)
    encoders(torch.randn(4, 16, 32)).square().sum().backward()
    dead = [n for n, p in encoders.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
