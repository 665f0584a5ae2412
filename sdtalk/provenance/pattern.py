"""Pattern of the invisible mark: a square tile of band-limited noise, whose phases carry a pilot and 32 bits."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Int

TILE = 256
"""Side of the tile in px, in frames of about 512 px; it repeats: any part of a frame as large holds the mark."""
UNIT = 512
"""Frames whose shorter side is so many times as long have a tile so many times as large, and it survives scaling."""
LOWEST, HIGHEST = 14, 40
"""Frequencies in use, in periods a tile: 18 to 6 px long. Pictures have more contrast of their own in lower ones, and
encoders drop higher ones first (measured from 9 to 48)."""
PILOT_SHARE = 0.3
"""Share of the frequencies that say only where the mark lies; the rest is shared out to the bits."""
KEY = 0x5D7A1C
"""Seed of places and phases. It is public: who wants to remove the mark can, see docs/responsible-use.md."""
PILOT, UNUSED = -1, -2
BITS, NUMBER_BITS = 32, 16


@dataclass(frozen=True)
class Pattern:
    """What is at each frequency of half the plane; the other half of a real picture is its mirror image.

    Rows are frequencies from -HIGHEST to HIGHEST, columns from 0 to HIGHEST, both in periods a tile.

    Attributes:
        phase: Of length 1, 0 where nothing is.
        owner: The bit whose sign the phase takes, `PILOT`, or `UNUSED`.
    """

    phase: Complex64[np.ndarray, "row column"]
    owner: Int[np.ndarray, "row column"]

    @property
    def used(self) -> Bool[np.ndarray, "row column"]:
        """Where something is."""
        return self.owner != UNUSED

    def spectrum(self, signs: Float32[np.ndarray, " bit"]) -> Complex64[np.ndarray, "row column"]:
        """Phases of the mark with 32 signs, 1 or -1."""
        return self.phase * np.append(signs, [np.float32(0), np.float32(1)])[self.owner]  # UNUSED, PILOT


@lru_cache(1)
def pattern() -> Pattern:
    """The one pattern there is."""
    rows, columns = frequencies()
    length = np.hypot(rows, columns)
    used = (length >= LOWEST) & (length <= HIGHEST) & ((columns > 0) | (rows > 0))  # one of each pair
    random = np.random.default_rng(KEY)
    count = int(used.sum())
    pilots = round(count * PILOT_SHARE)
    owner = np.full(used.shape, UNUSED)
    owner[used] = random.permutation(np.append(np.full(pilots, PILOT), np.arange(count - pilots) % BITS))
    phase = np.zeros(used.shape, np.complex64)
    phase[used] = np.exp(2j * np.pi * random.random(count))
    return Pattern(phase, owner)


def frequencies() -> tuple[Int[np.ndarray, "row column"], Int[np.ndarray, "row column"]]:
    """Down and across, in periods a tile, of the entries of a `Pattern`."""
    rows, columns = np.mgrid[-HIGHEST : HIGHEST + 1, 0 : HIGHEST + 1]
    return rows, columns


@lru_cache(1)
def code_words() -> Float32[np.ndarray, "number bit"]:
    """Signs of all numbers of 16 bits: the Reed-Muller code of second order, any two of which differ in 8 of 32 bits.

    Muller, Application of Boolean algebra to switching circuit design, 1954; Reed, 1954.
    """
    variables = np.arange(BITS)[None] >> np.arange(5)[:, None] & 1
    products = [variables[i] * variables[j] for i, j in combinations(range(5), 2)]
    generators = np.stack([np.ones(BITS, int), *variables, *products])
    numbers = np.arange(2**NUMBER_BITS)[:, None] >> np.arange(NUMBER_BITS) & 1
    return (1 - 2 * (numbers @ generators % 2)).astype(np.float32)


def tile_times(short_side: int) -> int:
    """How many times as large as `TILE` the tile is in frames with a shorter side of so many px."""
    return max(1, round(short_side / UNIT))


def tile(number: int, times: int) -> Float32[np.ndarray, "side side"]:
    """A tile of the mark; mean 0, standard deviation 1.

    Args:
        number: What it says, 0 to 65,535.
        times: How many times as large as `TILE`.
    """
    side = TILE * times
    spectrum = np.zeros((side, side // 2 + 1), np.complex64)
    signs = code_words()[number]
    spectrum[np.arange(-HIGHEST, HIGHEST + 1), : HIGHEST + 1] = pattern().spectrum(signs)
    noise = np.fft.irfft2(spectrum, (side, side))
    return (noise / noise.std()).astype(np.float32)
