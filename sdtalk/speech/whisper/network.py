"""Whisper's encoder: two convolutions and the first transformer layers, without its padding to 30 s.

Parameters bear the names of `transformers.WhisperEncoder`, which the tests compare it with.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from sdtalk.speech.audio import MEL_BINS

LAYERS, WIDTH, HEADS = 3, 512, 8
"""Layers that are kept of Whisper base's six, and its sizes."""


class SelfAttention(nn.Module):
    """Every feature attends to all of its chunk; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))
        self.k_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Mix features over time."""
        q, k, v = (
            projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projected in (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        )
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and a feed-forward network, each after a norm and around a skip."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """One layer further."""
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(gelu(self.fc1(self.final_layer_norm(x))))


class WhisperEncoder(nn.Module):
    """Spectrogram to features behind the last kept layer, 50 a second, without Whisper's final norm.

    Feature j is centred on sample 320 j of the chunk.
    """

    def __init__(self, width: int = WIDTH, heads: int = HEADS, layers: int = LAYERS) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MEL_BINS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))

    def forward(self, mels: Float[Tensor, "batch 80 step"]) -> Float[Tensor, "batch time width"]:
        """Encode chunks of equal length; positions count from their beginnings.

        Args:
            mels: From `whisper_log_mel`; an even number of steps.
        """
        x = gelu(self.conv2(gelu(self.conv1(mels)))).transpose(1, 2)
        x = x + sinusoids(x.shape[1], x.shape[2]).to(x)
        for layer in self.layers:
            x = layer(x)
        return x


def sinusoids(count: int, width: int) -> Float[Tensor, "{count} {width}"]:
    """Position codes: sines in the first half of the channels, cosines in the second, periods of 2 pi to 20,000 pi."""
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(count)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
