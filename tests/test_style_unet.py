"""The StyleUNet: the published network's numbers with the published weights' shape, noise, and its refusals."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled, with_rule_weights
from torch import Tensor, nn

from sdtalk.rendering.style_unet import StyleUNet

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
            assert_sampled(seen[name], fixture, name, 2 * ATOL)
        else:
            torch.testing.assert_close(seen[name], torch.from_numpy(fixture[name]), atol=2 * ATOL, rtol=0)
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
    for conv in (*fresh.decoder.convs, *stored.decoder.convs):
        nn.init.zeros_(conv.strength)
    assert torch.equal(fresh(x), none(x)) and torch.equal(stored(x), none(x))


@torch.no_grad()
def test_samples_do_not_mix_and_colours_stay_in_range() -> None:
    network, x = toy("stored"), features(3) * 5
    together = network(x)
    assert together.shape == (3, 3, 32, 32) and 0 <= together.min() and together.max() <= 1
    torch.testing.assert_close(together[1:2], network(x[1:2]), atol=1e-6, rtol=0)


def test_a_scaled_input_is_a_kernel_of_its_own() -> None:
    """The modulated convolution, against the textbook form: a modulated, normalised kernel for each sample."""
    conv = toy().decoder.convs[1].conv
    x, style = torch.randn(2, conv.weight.shape[2], 6, 6), torch.randn(2, 8)
    kernels = conv.weight * conv.modulation(style)[:, None, :, None, None]
    kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    for sample in range(2):
        expected = torch.nn.functional.conv2d(x[sample : sample + 1], kernels[sample], padding=1)
        torch.testing.assert_close(conv(x, style)[sample : sample + 1], expected)


def test_gradients_reach_every_parameter() -> None:
    network = toy("stored").train()
    network(features()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_bfloat16_stays_close() -> None:
    x = features()
    exact, rough = toy("stored")(x), toy("stored").bfloat16()(x.bfloat16()).float()
    assert 0 < (exact - rough).abs().mean() < 0.02


@pytest.mark.parametrize("size", [4, 48])
def test_sizes_that_cannot_be_halved_down_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        StyleUNet(size=size)


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="16x16 px for a renderer of 32x32"):
        toy()(torch.zeros(1, 5, 16, 16))
