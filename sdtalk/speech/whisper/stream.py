"""Whisper stream: features of sound that is still coming, in the blocks of `LIVE`."""

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.speech.audio import frame_count
from sdtalk.speech.running_level import RunningLevel
from sdtalk.speech.sliding import ROWS_PER_FRAME
from sdtalk.speech.whisper.chunks import LIVE, Chunks
from sdtalk.speech.whisper.features import BEFORE, HOP, WINDOW
from sdtalk.speech.whisper.log_mel import whisper_log_mel
from sdtalk.speech.whisper.network import WhisperEncoder


class WhisperStream:
    """Takes sound in pieces of any length, and gives the rows that `WhisperFeatures.padded` has.

    A block comes out as soon as what it looks ahead to was heard: 400 ms after its first sound with `LIVE`. Memory does
    not grow. Each block is levelled by what was heard before it, see `RunningLevel`; with the recording's own gain the
    rows equal those of `WhisperFeatures` with the same chunks.

    Args:
        network: The frozen encoder.
        gain: Of the whole recording, where it is known; None: a running estimate.
        chunks: What is encoded together.
    """

    def __init__(self, network: WhisperEncoder, gain: float | None = None, chunks: Chunks = LIVE) -> None:
        self.network, self.chunks, self._gain = network, chunks, gain
        self._level = RunningLevel()
        self._held = torch.zeros(BEFORE * HOP)  # silence before the sound, which the first frame hears
        self._start, self._done = 0, 0  # in rows: where the held sound begins, what came out

    def hear(self, samples: Float[Tensor, " samples"]) -> Float[Tensor, "row 512"]:
        """Take the next samples (mono, 16 kHz) and give the rows that are ready; often none."""
        self._level.hear(samples)
        self._held = torch.cat([self._held, samples])
        return self._ready(self._start + len(self._held) // HOP, False)

    def finish(self) -> Float[Tensor, "row 512"]:
        """The sound is over: the rows that are left, up to what the last video frame hears; silence follows."""
        heard = (self._start - BEFORE) * HOP + len(self._held)
        rows = ROWS_PER_FRAME * (frame_count(torch.empty(heard)) - 1) + WINDOW
        self._held = torch.cat([self._held, torch.zeros((rows - self._start) * HOP - len(self._held))])
        return self._ready(rows, True)

    @torch.no_grad()
    def _ready(self, heard: int, over: bool) -> Tensor:
        """Rows of the blocks that are complete; of all of them when the sound is over."""
        c, found = self.chunks, [torch.zeros(0, self.network.conv1.out_channels)]
        while self._done < heard and (over or self._done + c.block + c.ahead <= heard):
            span, kept = c.chunk(self._done, heard)
            piece = self._held[(span.start - self._start) * HOP : (span.stop - self._start) * HOP]
            gain = self._level.gain if self._gain is None else self._gain
            device = next(self.network.parameters()).device
            rows = self.network(whisper_log_mel(gain * piece[None].to(device)))[0].cpu()
            found.append(rows[kept])
            self._done = span.start + kept.stop
            forgotten = max(self._done - c.past, 0)
            self._held = self._held[(forgotten - self._start) * HOP :]
            self._start = forgotten
        return torch.cat(found)
