"""Tests of the neural renderer: starts as the identity, stays inside the person, costs what the design allows."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from sdtalk.config import SDTalkConfig
from sdtalk.reconstruction.activations import LEARNED
from sdtalk.rendering.neural_renderer import NeuralRenderer


def test_untrained_it_is_the_identity_on_the_colours() -> None:
    colours = torch.rand(2, 3, 32, 32)
    out = NeuralRenderer(4, 4)(torch.randn(2, 4, 32, 32), colours, *torch.rand(2, 2, 1, 32, 32))
    assert torch.equal(out, colours)


def test_it_changes_nothing_where_it_is_not_free() -> None:
    renderer = NeuralRenderer(4, 4)
    torch.nn.init.normal_(renderer.out.weight)
    alpha = torch.ones(1, 1, 32, 32)
    alpha[..., 16:] = 0
    colours = torch.rand(1, 3, 32, 32)
    out = renderer(torch.randn(1, 4, 32, 32), colours, torch.ones_like(alpha), alpha)
    assert torch.equal(out[..., 16:], colours[..., 16:]) and not torch.equal(out[..., :16], colours[..., :16])


def test_a_frame_of_mini_costs_less_than_three_gflop() -> None:
    config = SDTalkConfig()
    channels = config.feature_channels - LEARNED.start
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        NeuralRenderer(channels, config.renderer_width)(
            torch.empty(1, channels, 512, 512), torch.empty(1, 3, 512, 512), *torch.empty(2, 1, 1, 512, 512)
        )
    assert counter.get_total_flops() < 3e9
