"""Chunks: which stretches of a recording are encoded together, and which of their features are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

FEATURE_RATE_HZ = 50


@dataclass(frozen=True)
class Chunks:
    """Every chunk is encoded as a sound of its own; features of its edges serve its middle and are thrown away.

    Attributes:
        past: Features before those that are kept.
        block: Features that are kept.
        ahead: Features after those that are kept: so much must be heard before the block can be.
    """

    past: int
    block: int
    ahead: int

    def of(self, features: int) -> Iterator[tuple[range, slice]]:
        """Which features of a recording each chunk covers, and which of the chunk's own are kept.

        Args:
            features: Of the recording.
        """
        for first in range(0, features, self.block):
            yield self.chunk(first, features)

    def chunk(self, first: int, features: int) -> tuple[range, slice]:
        """The chunk whose kept features begin with `first`."""
        start, stop = max(first - self.past, 0), min(first + self.block, features)
        return range(start, min(stop + self.ahead, features)), slice(first - start, stop - start)


WHOLE_FILE = Chunks(past=1 * FEATURE_RATE_HZ, block=10 * FEATURE_RATE_HZ, ahead=1 * FEATURE_RATE_HZ)
"""For recordings that are there as a whole: 10 s at a time and 1 s to either side."""

LIVE = Chunks(past=80, block=8, ahead=12)
"""For sound as it comes: blocks of 160 ms, with 1.6 s before and 240 ms after them."""
