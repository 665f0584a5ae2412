"""Tests of the StyleUNet: the published network's numbers, noise, and refusals."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled, with_rule_weights
from torch import Tensor, nn

from sdtalk.rendering.modulated_conv import ModulatedConv
from sdtalk.rendering.style_unet import ResidualBlock, StyleUNet

ATOL = 1.8e-5
"""Ten times the noise floor of the published module."""


@contextmanager
def recorded(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """What modules return, by name."""
    seen: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda _, __, y, name=name: seen.__setitem__(name, y))
        for name, module in modules.items()
    ]
    yield seen
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_every_stage_is_the_published_one() -> None:
    fixture = np.load(FIXTURES / "f_styleunet.npz")
    network = with_rule_weights(StyleUNet(noise="stored"), "neural_renderer.")
    features = torch.from_numpy(parity_rule.normal("in/f/feature", (1, 32, 512, 512), 0.5))
    stages = {f"down{i}": m for i, m in enumerate(network.downs)} | {
        f"up{i}": m for i, m in enumerate(network.ups)
    }
    stages |= {f"rgb{4 * 2**i}": m for i, m in enumerate(network.decoder.to_rgb)}
    with recorded({**stages, "style_code": network.to_style, "mapped": network.decoder.mapping[-1]}) as seen:
        image = network(features)
    assert_sampled(image, fixture, "image_noise_buffers", ATOL)
    for name in stages:
        if f"{name}__idx" in fixture.files:
            assert_sampled(seen[name], fixture, name, ATOL)
        else:
            torch.testing.assert_close(seen[name], torch.from_numpy(fixture[name]), atol=ATOL, rtol=0)
    torch.testing.assert_close(seen["style_code"], torch.from_numpy(fixture["style_code"]), atol=ATOL, rtol=0)
    latent = torch.nn.functional.leaky_relu(seen["mapped"], 0.2)
    torch.testing.assert_close(latent, torch.from_numpy(fixture["style_latent"]), atol=ATOL, rtol=0)
    network.noise = "none"
    assert_sampled(network(features), fixture, "image_zero_noise", ATOL)


def toy(noise: str = "none") -> StyleUNet:
    torch.manual_seed(0)
    network = StyleUNet(inputs=5, width=2, style_width=8, size=32, noise=noise)
    for conv in network.decoder.convs:
        nn.init.constant_(conv.strength, 0.5)
    return network.eval()


def features(count: int = 1) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 5, 32, 32)


@torch.no_grad()
def test_noise_is_none_or_always_the_same_or_always_new() -> None:
    x = features()
    none, stored, fresh = (toy(noise) for noise in ("none", "stored", "fresh"))
    assert torch.equal(none(x), none(x)) and torch.equal(stored(x), stored(x))
    assert not torch.equal(fresh(x), fresh(x)) and not torch.equal(stored(x), none(x))
    two = fresh(x.expand(2, -1, -1, -1))
    assert not torch.equal(two[0], two[1])
    for conv in (*fresh.decoder.convs, *stored.decoder.convs):
        nn.init.zeros_(conv.strength)
    assert torch.equal(fresh(x), none(x)) and torch.equal(stored(x), none(x))


@torch.no_grad()
def test_samples_do_not_mix_and_colours_stay_in_range() -> None:
    network, x = toy("stored"), features(3) * 5
    together = network(x)
    assert together.shape == (3, 3, 32, 32) and 0 <= together.min() and together.max() <= 1
    torch.testing.assert_close(together[1:2], network(x[1:2]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", [None, 2**0.5])
def test_a_kernel_for_each_sample_is_a_shared_kernel_between_two_scalings(norm: float | None) -> None:
    """The other way to write a modulated convolution: scale what goes in and what comes out."""
    torch.manual_seed(2)
    conv = ModulatedConv(5, 4, 3, 8, norm).double()
    x, style, bias = (
        torch.randn(3, 5, 6, 6).double(),
        torch.randn(3, 8).double(),
        torch.randn(1, 4, 1, 1).double(),
    )
    scale = conv.modulation(style)
    expected = nn.functional.conv2d(x * scale[..., None, None], conv.weight, padding=1)
    if norm is not None:
        energy = (conv.weight * scale[:, None, :, None, None]).square().sum((2, 3, 4))
        expected = expected * norm / energy.sqrt()[..., None, None]
    for found in (conv(x, style, bias), conv.shared_kernel(x, scale, bias)):
        torch.testing.assert_close(found, expected + bias, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_shortcut_may_be_resized_before_or_after_its_convolution(scale: float) -> None:
    torch.manual_seed(2)
    block, x = ResidualBlock(4, 3, scale), torch.randn(2, 4, 8, 8)
    for conv in (block.conv_in, block.conv_out):  # the shortcut alone
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)
    resized = nn.functional.interpolate(x, scale_factor=scale, mode="bilinear")
    torch.testing.assert_close(block(x), block.skip(resized))


def test_the_state_dict_keeps_the_published_shapes() -> None:
    network, other = toy(), StyleUNet(inputs=5, width=2, style_width=8, size=32).eval()
    state = network.state_dict()
    assert state["decoder.convs.1.conv.weight"].shape == (1, 16, 32, 3, 3)
    assert state["decoder.to_rgb.0.conv.weight"].shape == (1, 3, 32, 1, 1)
    assert [state[f"decoder.convs.{i}.noise"].shape[-1] for i in range(7)] == [4, 8, 8, 16, 16, 32, 32]
    other.load_state_dict(state, strict=True)
    assert torch.equal(other(features()), network(features()))
    assert state["decoder.convs.1.conv.weight"].dim() == 5  # loading leaves what it is given alone
    del state["decoder.convs.1.conv.weight"]
    with pytest.raises(RuntimeError, match="Missing key.*decoder.convs.1.conv.weight"):
        other.load_state_dict(state, strict=True)


@torch.no_grad()
def test_fresh_noise_may_be_drawn_before() -> None:
    network, x = toy("fresh"), features(2)
    silent = torch.zeros(2, network.noise_numbers)
    assert torch.equal(network(x, silent), toy("none")(x))
    stored = torch.cat([conv.noise.flatten() for conv in network.decoder.convs])
    torch.testing.assert_close(network(x, stored.expand(2, -1)), toy("stored")(x), atol=1e-6, rtol=0)
    one = torch.stack([stored, silent[0]])  # each frame has its own
    torch.testing.assert_close(network(x, one)[1], toy("none")(x)[1], atol=1e-6, rtol=0)


def test_noise_is_one_map_for_all_channels_scaled_by_its_strength() -> None:
    conv = toy("fresh").decoder.convs[0]
    nn.init.zeros_(conv.conv.weight)  # leaves the noise alone
    nn.init.constant_(conv.strength, 2.0)
    y = conv(torch.zeros(500, 32, 4, 4), torch.zeros(500, 8), "fresh")
    assert torch.equal(y, y[:, :1].expand_as(y))
    noise = torch.where(y < 0, y / 0.2, y)[:, 0]
    assert abs(noise.std().item() - 2) < 0.1 and abs(noise.mean().item()) < 0.1


def test_gradients_reach_every_parameter() -> None:
    network = toy("stored").train()
    network(features(2)).square().sum().backward()
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead
    still = [n for n, p in network.named_parameters() if not p.grad.any()]
    assert not still


@torch.no_grad()
def test_bfloat16_stays_close() -> None:
    x = features()
    exact, rough = toy("stored")(x), toy("stored").bfloat16()(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert 0 < (exact - rough.float()).abs().mean() < 0.02


@torch.no_grad()
def test_the_memory_format_changes_nothing() -> None:
    x = features(2)
    network = toy("stored").to(memory_format=torch.channels_last)
    image = network(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(image, toy("stored")(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [-8, 0, 2, 4, 48])
def test_sizes_that_cannot_be_halved_down_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        StyleUNet(size=size)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="16x16 px for a renderer of 32x32"):
        toy()(torch.zeros(1, 5, 16, 16))


def test_an_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="not 'loud'"):
        StyleUNet(noise="loud")
