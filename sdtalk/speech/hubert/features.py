"""HuBERT features: sound to tokens to the window of tokens that each video frame hears."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.speech.audio import frame_count
from sdtalk.speech.hubert.band import Band, through_layer, with_positions
from sdtalk.speech.hubert.weights import HOP, KERNEL, check_kind, read_hubert
from sdtalk.speech.hubert.windows import token_windows
from sdtalk.weights.assets import optional_asset

REACH = 1000  # tokens that a token attends to: 20 s
BLOCK = 500  # tokens computed at a time
_STATISTICS_CHUNK = 1 << 20


class HubertFeatures:
    """Tokens of recordings of any length, in memory that does not grow with it.

    Args:
        model: A `transformers.HubertModel` with layer norm in its convolutions and before its attention, as the
            large ones have.
        block: Tokens computed at a time; a smaller number needs less memory.
        reach: Tokens that a token attends to.

    Raises:
        InputError: The network is of another kind.
    """

    def __init__(self, model: nn.Module, block: int = BLOCK, reach: int = REACH) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        check_kind(self.model.config, "the HuBERT network")
        self.block, self.reach = block, reach

    @classmethod
    def installed(
        cls, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "HubertFeatures":
        """The network that was added to this machine, or that the Hub's cache holds.

        Args:
            device: Where to compute.
            dtype: What to compute in.

        Raises:
            InputError: There is none, or it is damaged.
        """
        return cls.from_folder(optional_asset("hubert"), device, dtype)

    @classmethod
    def from_folder(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "HubertFeatures":
        """The network in a folder; never downloads.

        Args:
            folder: As for `sdtalk.speech.hubert.weights.read_hubert`.
            device: Where to compute.
            dtype: What to compute in.

        Raises:
            InputError: A file is missing or damaged, or the network is of another kind.
        """
        return cls(read_hubert(Path(folder)).to(device=device, dtype=dtype))

    @torch.no_grad()
    def tokens(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "token width"]]:
        """The last layer's tokens, 50 a second, a block at a time; float32, on the network's device.

        Token k hears samples 320 k to 320 k + 399 first hand; N video frames give 2 N - 1 tokens. The sound is
        brought to mean 0 and variance 1 over the whole recording, as the network was trained.

        Args:
            samples: Mono, 16 kHz; at least 400, as `sdtalk.speech.audio.read_speech` sees to.
        """
        encoder, band = self.model.encoder, Band(token_count(samples), self.reach)
        blocks = with_positions(encoder.pos_conv_embed, self._heard(samples, band.total), band.total)
        for layer in encoder.layers:
            blocks = through_layer(layer, blocks, band, self.block)
        for block in blocks:
            yield encoder.layer_norm(block)[0].float()

    def windows(
        self, samples: Float[Tensor, " samples"], alignment: str = "ahead"
    ) -> Iterator[Float[Tensor, "frame 16 width"]]:
        """What each of the `frame_count(samples)` video frames hears, some frames at a time.

        Args:
            samples: As for `tokens`.
            alignment: "ahead" or "centred", see `token_windows`.
        """
        return token_windows(self.tokens(samples), frame_count(samples), alignment)

    def _heard(self, samples: Tensor, total: int) -> Iterator[Tensor]:
        """What the convolutions hear, [1, token, width]: each token from its own 400 samples."""
        parameter = next(self.model.parameters())
        mean, deviation = _mean_and_deviation(samples)
        for first in range(0, total, self.block):
            last = min(first + self.block, total) - 1
            piece = samples[first * HOP : last * HOP + KERNEL].double()
            piece = ((piece - mean) / deviation).to(parameter.dtype).to(parameter.device)
            features = self.model.feature_extractor(piece[None])
            yield self.model.feature_projection(features.transpose(1, 2))


def token_count(samples: Float[Tensor, " samples"]) -> int:
    """Tokens that lie whole in the sound.

    Raises:
        ValueError: The sound is shorter than one token.
    """
    if len(samples) < KERNEL:
        raise ValueError(f"{len(samples)} samples are less than one token ({KERNEL})")
    return (len(samples) - KERNEL) // HOP + 1


def _mean_and_deviation(samples: Tensor) -> tuple[float, float]:
    """Of the whole recording, in double precision; silence does not divide by zero (as the feature extractor)."""
    pieces = samples.split(_STATISTICS_CHUNK)
    mean = math.fsum(piece.double().sum().item() for piece in pieces) / len(samples)
    squares = math.fsum((piece.double() - mean).square().sum().item() for piece in pieces)
    return mean, math.sqrt(squares / len(samples) + 1e-7)
