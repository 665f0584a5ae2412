"""Untrained full model: the paper's sizes with random weights, without FLAME; for measuring speed only."""

from dataclasses import replace

import torch
from torch import nn

from sdtalk.config import BASE
from sdtalk.devices import choose_device, choose_precision
from sdtalk.model import SDTalk
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.encoder import HubertWindows, SpeechEncoder
from sdtalk.speech.hubert import HubertFeatures
from sdtalk.tracking.head_track import COMPLETION_POINTS
from sdtalk.tracking.tracker import Tracker
from sdtalk.weights.assets import OPTIONAL_ASSETS

CONFIG = replace(BASE, name="base, untrained", template="face_mesh", template_points=COMPLETION_POINTS)
"""Its 1,920 completion points lie on the face mesh, so that no licensed file is needed."""


def untrained_base(device: str = "auto", precision: str = "auto") -> SDTalkPipeline:
    """A pipeline of the true sizes with random weights.

    Raises:
        InputError: The device or the precision cannot be used.
    """
    chosen = choose_device(device)
    dtype = choose_precision(precision, CONFIG, chosen)
    model = SDTalk(CONFIG).eval().requires_grad_(False).to(chosen).in_precision(dtype)
    features = HubertWindows(_hubert(chosen, dtype), CONFIG.token_alignment)
    return SDTalkPipeline(model, Tracker.from_bundled(chosen), chosen, SpeechEncoder(model, features, chosen))


def _hubert(device: torch.device, dtype: torch.dtype) -> HubertFeatures:
    """The speech network of this machine, or one of its size."""
    if next(asset for asset in OPTIONAL_ASSETS if asset.name == "hubert").found():
        return HubertFeatures.installed(device, dtype)
    from transformers import HubertConfig, HubertModel  # slow to import

    sizes = HubertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )
    network: nn.Module = HubertModel(sizes)
    return HubertFeatures(network.to(device, dtype))
