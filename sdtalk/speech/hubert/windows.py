"""Token windows: which HuBERT tokens a video frame hears."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from sdtalk.speech.sliding import ROWS_PER_FRAME, sliding_windows

TOKENS_PER_FRAME = ROWS_PER_FRAME  # 50 a second for 25 frames
WINDOW = 16  # tokens that a frame hears
TOKENS_BEFORE = {"centred": 8, "ahead": 0}
"""How many of a frame's tokens lie before its first one."""


def token_windows(
    blocks: Iterator[Float[Tensor, "token width"]], frames: int, alignment: str = "ahead"
) -> Iterator[Float[Tensor, "frame 16 width"]]:
    """What each video frame hears of the tokens: 16 of them, 320 ms; zeros beyond the ends. Views, not copies.

    The published code does not say which 16, and two readings are possible:

    - "centred": frame i hears tokens 2 i - 8 to 2 i + 7, four frames to either side; the lineage's own convention.
    - "ahead": frame i hears tokens 2 i to 2 i + 15, what is about to be said. N frames of sound make 2 N - 1 tokens
      (2 N - 2 in the lineage, which drops an odd one), in which exactly N - 8 such windows lie whole, and the published
      inference drops exactly the last eight frames, where "centred" would cost it one at most. Hence the default
      for the published weights, until someone compares with the features of the published demo. We keep the last
      eight frames, with zeros for the tokens that are missing.

    Args:
        blocks: The tokens of the recording, 50 a second, in pieces of any size.
        frames: Video frames of the recording, 25 a second.
        alignment: "ahead" or "centred".
    """
    return sliding_windows(blocks, frames, TOKENS_BEFORE[alignment], WINDOW)
