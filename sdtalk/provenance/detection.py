"""Detection of the invisible mark in any video or picture, and how probable it is to find one where none is.

How much pixels differ from their surroundings, in units of what they usually do there, is added up over the frames,
since the mark is the same in all of them. The sum's Fourier coefficients at its frequencies then have its phases.

Those of an unmarked picture know nothing of our key: the differences from our phases are as good as N random angles,
and the sum S of their cosines passes t with a probability of at most exp(-t^2 / N) (Chernoff's bound, with
E exp(l cos) <= exp(l^2 / 4)). With z = S / sqrt(N / 2) that is exp(-z^2 / 2), times the number of places, scales and
numbers that are tried. On 10,000 frames without a mark, z was distributed as it should be.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float32, UInt8

from sdtalk.provenance.pattern import (
    BITS,
    HIGHEST,
    NUMBER_BITS,
    PILOT,
    TILE,
    UNIT,
    code_words,
    frequencies,
    pattern,
)

FALSE_ALARM = 1e-6
"""Largest probability that a video without a mark is said to have one; half for each of the two searches."""
LUMA = (0.299, 0.587, 0.114)
SURROUNDINGS_PX, LARGEST_DIFFERENCE = 9, 2.5
"""Differences are measured in means of so large a square, and cut off: one edge must not outvote a thousand pixels."""
QUIETEST = 0.02
"""Mean difference, in 8-bit steps over the frequency's factor, below which nothing but rounding is left."""

PLAIN_RATIOS = (1.0, 0.5, 2 / 3, 0.75)
PLAIN_TIMES = (1, 2, 3, 4)
"""Of the first search: videos as they were written, or made smaller."""
SMALLEST_SCALE, LARGEST_SCALE, SCALE_STEP = 0.4, 4.0, 0.005
"""Of the second search: px of what is looked at for one of the tile. At the edge of 512 px a step is 1.3 px."""
GRID = 128
"""Places of the second search, across and down a tile."""
CANDIDATES = 32
"""Of the second search's places, those where the number is read."""
NEARBY = np.linspace(-1.5, 1.5, 7)
"""Down and across of a place, in px of the tile: there it is looked for more exactly."""

Spectrum = Complex64[np.ndarray, "row column"]


@dataclass(frozen=True)
class FoundMark:
    """A mark that was found.

    Attributes:
        number: What it says, see `mark.version_of`.
        false_alarm: Probability, at most, to find one so clear in what has none.
        scale: How large it is, where 1 is a frame of 512 px as it was written.
        mirrored: Whether left and right are exchanged.
    """

    number: int
    false_alarm: float
    scale: float
    mirrored: bool = False


class MarkSearch:
    """Adds up frames, and looks for the mark in the sum. Memory does not depend on their number."""

    def __init__(self) -> None:
        """Begin with no frames."""
        self._total: Float32[np.ndarray, "height width"] | None = None
        self._reduced = 1

    def add(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        """Add a frame; of another size than those before, it is left out."""
        reduced = max(1, min(frame.shape[:2]) // UNIT)
        differences = _differences(_luma(frame, reduced))
        if self._total is None:
            self._total, self._reduced = differences, reduced
        elif self._total.shape == differences.shape:
            self._total += differences

    def found(self, everywhere: bool = True) -> FoundMark | None:
        """Look for the mark in what was added.

        Args:
            everywhere: Also in parts cut out of frames, mirrored, and at any scale; takes seconds.

        Returns:
            The mark; None: there is none, or too little of it is left.
        """
        if self._total is None:
            return None
        best = self._plain()
        return self._anywhere() if best is None and everywhere else best

    def _plain(self) -> FoundMark | None:
        scales = {times * ratio / self._reduced for times, ratio in product(PLAIN_TIMES, PLAIN_RATIOS)}
        tried = [
            _read(phases, *_nearby(phases, 0.0, 0.0)[1:], scale, False)
            for scale in scales
            if SMALLEST_SCALE <= scale <= LARGEST_SCALE
            for phases in [_phases(_spectrum(self._sum, scale))]
        ]
        return self._clear(max(tried, default=_NOTHING), max(1, len(tried)) * len(NEARBY) ** 2)

    def _anywhere(self) -> FoundMark | None:
        steps = math.ceil(math.log(LARGEST_SCALE / SMALLEST_SCALE) / SCALE_STEP)
        scales = [SMALLEST_SCALE * math.exp(SCALE_STEP * step) for step in range(steps + 1)]
        candidates = sorted(self._places(scales), reverse=True)[:CANDIDATES]
        tried = [_read(*self._refined(*place[1:])) for place in candidates]
        return self._clear(max(tried), 2 * len(scales) * GRID**2 + CANDIDATES * 3 * len(NEARBY) ** 2)

    def _places(self, scales: list[float]) -> Iterator[tuple[float, float, bool, float, float]]:
        """Best places of every scale: how well the pilot fits, scale, whether mirrored, down and across."""
        for scale in scales:
            spectrum = _spectrum(self._sum, scale)
            for mirrored in (False, True):
                fit = _pilot_fit(_phases(_mirrored(spectrum) if mirrored else spectrum))
                for index in np.argpartition(fit.ravel(), -3)[-3:]:
                    row, column = divmod(int(index), GRID)
                    step = TILE / GRID
                    yield float(fit[row, column]), scale, mirrored, row * step, column * step

    def _refined(
        self, scale: float, mirrored: bool, down: float, across: float
    ) -> tuple[Spectrum, float, float, float, bool]:
        """The same place as exactly as the pilot tells it, as `_read` takes it."""
        best: tuple[float, tuple[Spectrum, float, float, float, bool]] | None = None
        for factor in (1 - SCALE_STEP / 2, 1, 1 + SCALE_STEP / 2):
            spectrum = _spectrum(self._sum, scale * factor)
            phases = _phases(_mirrored(spectrum) if mirrored else spectrum)
            fit, *place = _nearby(phases, down, across)
            if best is None or fit > best[0]:
                best = fit, (phases, place[0], place[1], scale * factor, mirrored)
        assert best is not None
        return best[1]

    @property
    def _sum(self) -> Float32[np.ndarray, "height width"]:
        assert self._total is not None
        return self._total

    def _clear(self, best: tuple[float, int, float, bool], places: int) -> FoundMark | None:
        z, number, scale, mirrored = best
        bound = math.log(places) + NUMBER_BITS * math.log(2) - z * z / 2
        if bound > math.log(FALSE_ALARM / 2):
            return None
        return FoundMark(number, 2 * math.exp(bound), scale * self._reduced, mirrored)


_NOTHING = (0.0, 0, 1.0, False)
"""Where no scale of the first search is among those to be tried."""


def find_mark(
    frames: Iterable[UInt8[np.ndarray, "height width channel"]], everywhere: bool = True
) -> FoundMark | None:
    """Look for the mark in frames of a video, of which a few a second are enough; see `MarkSearch.found`."""
    search = MarkSearch()
    for frame in frames:
        search.add(frame)
    return search.found(everywhere)


def _luma(
    frame: UInt8[np.ndarray, "height width channel"], reduced: int
) -> Float32[np.ndarray, "row column"]:
    """Luma, each value the mean of `reduced` x `reduced` pixels."""
    luma = torch.from_numpy(frame[..., :3] @ np.array(LUMA, np.float32))
    return F.avg_pool2d(luma[None, None], reduced)[0, 0].numpy()


def _differences(luma: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """What a picture has beyond the usual contrast of pictures, which falls with frequency, everywhere alike."""
    height, width = luma.shape
    spectrum = torch.fft.rfft2(torch.from_numpy(luma))
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    flat = torch.fft.irfft2(spectrum * frequency, s=(height, width))[None, None]
    half = min(SURROUNDINGS_PX, height, width) // 2
    around = F.pad(flat.abs(), (half,) * 4, mode="replicate")
    usual = F.avg_pool2d(around, 2 * half + 1, 1) + QUIETEST
    return (flat / usual).clamp(-LARGEST_DIFFERENCE, LARGEST_DIFFERENCE)[0, 0].numpy()


def _spectrum(total: Float32[np.ndarray, "height width"], scale: float) -> Spectrum:
    """Fourier coefficients at the pattern's frequencies, where `scale` px are one of the tile."""
    height, width = total.shape
    down = np.arange(-HIGHEST, HIGHEST + 1) / (TILE * scale)
    across = np.arange(HIGHEST + 1) / (TILE * scale)
    rows = np.exp(-2j * np.pi * np.outer(down, np.arange(height) + 0.5)).astype(np.complex64)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width) + 0.5, across)).astype(np.complex64)
    # two real products take half of the time of one with complex numbers
    half = total @ columns.real + 1j * (total @ columns.imag)
    return rows @ half.astype(np.complex64)


def _mirrored(spectrum: Spectrum) -> Spectrum:
    """The coefficients of a picture whose left is its right; where it lies is for the search to find."""
    return np.conj(spectrum[::-1])


def _phases(spectrum: Spectrum) -> Spectrum:
    """How coefficients are turned against the pattern's: numbers of length 1, or 0 where nothing is."""
    length = np.abs(spectrum)
    return spectrum / np.where(length > 0, length, 1) * np.conj(pattern().phase)


def _moved(phases: Spectrum, down: float, across: float) -> Float32[np.ndarray, "row column"]:
    """Cosines of the angles, if the tile begins so many of its px further down and across."""
    rows, columns = frequencies()
    turn = np.exp(2j * np.pi / TILE * (rows[:, :1] * down)) * np.exp(
        2j * np.pi / TILE * (columns[:1] * across)
    )
    return (phases * turn).real.astype(np.float32)


def _nearby(phases: Spectrum, down: float, across: float) -> tuple[float, float, float]:
    """How well the pilot fits where it does so best near a place, and where that is: down and across."""
    rows, columns = frequencies()
    downs, acrosses = down + NEARBY, across + NEARBY
    turn_rows = np.exp(2j * np.pi / TILE * np.outer(downs, rows[:, 0]))
    turn_columns = np.exp(2j * np.pi / TILE * np.outer(columns[0], acrosses))
    fit = (turn_rows @ np.where(pattern().owner == PILOT, phases, 0) @ turn_columns).real
    row, column = divmod(int(fit.argmax()), len(NEARBY))
    return float(fit[row, column]), float(downs[row]), float(acrosses[column])


def _pilot_fit(phases: Spectrum) -> Float32[np.ndarray, "down across"]:
    """Sum of the pilot's cosines for all places of a grid at once."""
    rows, columns = frequencies()
    grid = np.zeros((GRID, GRID), np.complex64)
    grid[rows, columns] = np.where(pattern().owner == PILOT, phases, 0)
    return np.fft.ifft2(grid).real.astype(np.float32) * GRID**2


def _read(
    phases: Spectrum, down: float, across: float, scale: float, mirrored: bool
) -> tuple[float, int, float, bool]:
    """The most probable number at a place, and how clear it is: z as above, number, scale, whether mirrored."""
    p = pattern()
    cosines = _moved(phases, down, across)
    bits = np.bincount(p.owner[p.owner >= 0], cosines[p.owner >= 0], BITS).astype(np.float32)
    fits = code_words() @ bits
    number = int(fits.argmax())
    total = float(fits[number] + cosines[p.owner == PILOT].sum())
    return total / math.sqrt(p.used.sum() / 2), number, scale, mirrored
