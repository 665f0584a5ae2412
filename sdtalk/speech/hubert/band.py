"""Banded transformer of HuBERT: layers as a chain of generators, block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Band:
    """Which tokens a token attends to: as many as `reach` around it, or at an end the first or last so many.

    Attributes:
        total: Tokens of the recording.
        reach: Tokens that a token attends to; all of them if the recording is shorter.
    """

    total: int
    reach: int

    def start(self, token: int) -> int:
        """The first token that a token attends to."""
        return max(0, min(token - self.reach // 2, self.total - self.reach))

    def end(self, token: int) -> int:
        """The token after the last one that a token attends to."""
        return min(self.start(token) + self.reach, self.total)

    def ready(self, there: int) -> int:
        """How many tokens attend only to the first `there`."""
        if there == self.total:
            return self.total
        return there - self.reach + self.reach // 2 + 1 if there >= self.reach else 0

    def mask(self, first: int, stop: int, device: torch.device) -> Bool[Tensor, "query key"] | None:
        """Who attends to whom, for queries first to stop - 1 and keys start(first) to end(stop - 1) - 1.

        None if everybody attends to all of them.
        """
        if self.start(first) == self.start(stop - 1):
            return None
        starts = torch.arange(first, stop, device=device)[:, None] - self.reach // 2
        starts = starts.clamp(0, self.total - self.reach)
        keys = torch.arange(self.start(first), self.end(stop - 1), device=device)
        return (keys >= starts) & (keys < starts + self.reach)


def with_positions(embedding: Any, blocks: Iterator[Tensor], total: int) -> Iterator[Tensor]:
    """Add the convolution over 128 neighbours that tells tokens where they are; zeros beyond the ends."""
    halo = embedding.conv.padding[0]
    held: Tensor | None = None
    first = done = 0  # the first token held, the first not yet passed on
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=1)
        there = first + held.shape[1]
        if (ready := total if there == total else there - halo) > done:
            yield (held + embedding(held))[:, done - first : ready - first]
            start = max(ready - halo, 0)
            held, first, done = held[:, start - first :], start, ready


def through_layer(layer: Any, blocks: Iterator[Tensor], band: Band, size: int) -> Iterator[Tensor]:
    """One transformer layer; holds tokens, keys and values from the first that a coming token attends to."""
    held: tuple[Tensor, ...] = ()
    first = done = 0  # the first token held, the first not yet passed on
    for block in blocks:
        normed = layer.layer_norm(block)
        fresh = (block, layer.attention.k_proj(normed), layer.attention.v_proj(normed))
        held = tuple(torch.cat(pair, dim=1) for pair in zip(held, fresh, strict=True)) if held else fresh
        ready = band.ready(first + held[0].shape[1])
        while done < ready:
            stop = min(done + size, ready)
            seen = slice(band.start(done) - first, band.end(stop - 1) - first)
            keys, values = held[1][:, seen], held[2][:, seen]
            mask = band.mask(done, stop, block.device)
            yield _layer_output(layer, held[0][:, done - first : stop - first], keys, values, mask)
            done = stop
        start = band.start(done)
        held, first = tuple(tensor[:, start - first :] for tensor in held), start


def _layer_output(layer: Any, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention and feed-forward network, each after a norm and around a skip; everything [1, token, width]."""

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, layer.attention.head_dim)).transpose(1, 2)

    queries = layer.attention.q_proj(layer.layer_norm(tokens))
    mixed = scaled_dot_product_attention(heads(queries), heads(keys), heads(values), attn_mask=mask)
    tokens = tokens + layer.attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return tokens + layer.feed_forward(layer.final_layer_norm(tokens))
