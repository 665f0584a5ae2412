"""Whisper features: sound to features to the window of features that each video frame hears."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import groupby, islice

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from sdtalk.speech.audio import frame_count, level_gain
from sdtalk.speech.sliding import ROWS_PER_FRAME, sliding_windows
from sdtalk.speech.whisper.chunks import WHOLE_FILE, Chunks
from sdtalk.speech.whisper.log_mel import whisper_log_mel
from sdtalk.speech.whisper.network import WhisperEncoder
from sdtalk.speech.whisper.weights import read_whisper

HOP = 320  # samples from one feature to the next
WINDOW = 17  # features that a video frame hears: 160 ms to either side of its middle
BEFORE = WINDOW // 2 - 1
"""Features before the sound that the first frame hears: frame t, whose middle is (t + 0.5) / 25 s, lies on 2 t + 1."""

ROWS_AT_ONCE = 1600
"""So many features are computed at a time, where chunks are shorter."""


class WhisperFeatures:
    """Features of recordings of any length, in memory that does not grow with it.

    Args:
        network: The frozen encoder.
        chunks: What is encoded together: `WHOLE_FILE`, or `LIVE`, as a stream would have it.
    """

    def __init__(self, network: WhisperEncoder, chunks: Chunks = WHOLE_FILE) -> None:
        self.network, self.chunks = network, chunks

    @classmethod
    def bundled(cls, device: torch.device | str = "cpu", chunks: Chunks = WHOLE_FILE) -> "WhisperFeatures":
        """The network of the package, read once a device."""
        return cls(_bundled_network(str(device)), chunks)

    def to(self, device: torch.device | str) -> "WhisperFeatures":
        """The same on another device; the network of the package is shared, and stays where it is."""
        return WhisperFeatures(deepcopy(self.network).to(device), self.chunks)

    def features(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "row width"]]:
        """Features, 50 a second, some at a time; on the network's device.

        Feature j is centred on sample 320 j; the last one may hear silence beyond the sound. The sound is levelled as a
        whole, for live chunks, too: a stream would take the level of what it has heard.

        Args:
            samples: Mono, 16 kHz.
        """
        return self._rows(samples, 0, -(-len(samples) // HOP))

    def windows(self, samples: Float[Tensor, " samples"]) -> Iterator[Float[Tensor, "frame 17 width"]]:
        """What each of the `frame_count(samples)` video frames hears, some at a time; silence beyond the ends."""
        frames = frame_count(samples)
        return sliding_windows(self._heard_by(samples, frames), frames, 0, WINDOW)

    def padded(self, samples: Float[Tensor, " samples"], frames: int) -> Float[Tensor, "row width"]:
        """What `frames` video frames hear, 2 frames + 15 rows: frame t hears rows 2 t to 2 t + 16."""
        return torch.cat(list(self._heard_by(samples, frames)))

    def _heard_by(self, samples: Tensor, frames: int) -> Iterator[Tensor]:
        stop = ROWS_PER_FRAME * (frames - 1) + WINDOW - BEFORE
        return self._rows(samples, -BEFORE, stop)

    @torch.no_grad()
    def _rows(self, samples: Tensor, first: int, stop: int) -> Iterator[Tensor]:
        """Features first to stop - 1; beyond its ends the sound is silent."""
        gain, device = level_gain(samples), next(self.network.parameters()).device
        for some in _of_equal_length(self.chunks.of(stop - first)):
            pieces = [
                _piece(samples, (first + span.start) * HOP, (first + span.stop) * HOP) for span, _ in some
            ]
            found = self.network(whisper_log_mel(gain * torch.stack(pieces).to(device)))
            yield torch.cat([rows[kept] for rows, (_, kept) in zip(found, some, strict=True)])


def _of_equal_length(chunks: Iterator[tuple[range, slice]]) -> Iterator[list[tuple[range, slice]]]:
    """Neighbours that can be encoded in one batch."""
    for length, group in groupby(chunks, key=lambda chunk: len(chunk[0])):
        while some := list(islice(group, max(1, ROWS_AT_ONCE // length))):
            yield some


def _piece(samples: Tensor, start: int, stop: int) -> Tensor:
    """Samples start to stop - 1, zeros where there are none."""
    piece = samples[max(start, 0) : max(stop, 0)]
    before = min(max(-start, 0), stop - start)
    return pad(piece, (before, stop - start - before - len(piece)))


@cache
def _bundled_network(device: str) -> WhisperEncoder:
    return read_whisper().to(device)
