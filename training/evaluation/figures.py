"""Every figure by name, and what they are taken of; what cannot be measured has a reason instead of a number."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Figure:
    """What a number means.

    Attributes:
        title: Heading of its column.
        digits: Decimals shown.
        meaning: In a sentence.
        higher: Whether a higher one is better; None: neither.
    """

    title: str
    digits: int
    meaning: str
    higher: bool | None


FIGURES = {
    "psnr": Figure("PSNR", 2, "peak signal-to-noise ratio in dB, all frames but the source", True),
    "psnr_frozen": Figure("PSNR (frozen)", 2, "PSNR of the first frame, shown throughout", None),
    "ssim": Figure("SSIM", 3, "structural similarity, 7 px windows", True),
    "ssim_frozen": Figure("SSIM (frozen)", 3, "SSIM of the first frame, shown throughout", None),
    "lpips": Figure("LPIPS", 3, "perceptual distance, version 0.1 with AlexNet", False),
    "lmd_fan": Figure("LMD (face-alignment)", 2, "distance of 68 landmarks in px of 512", False),
    "lmd_mesh": Figure("LMD (mesh)", 2, "the same of our face mesh's 68", False),
    "lips_lmd_mesh": Figure("Lips LMD (mesh)", 2, "the 20 of the lips, relative to their mean", False),
    "sync_c": Figure("Sync-C", 2, "SyncNet's confidence", True),
    "sync_d": Figure("Sync-D", 2, "SyncNet's least mean distance", False),
    "sync_c_real": Figure("Sync-C (real)", 2, "SyncNet's confidence for the real frames", None),
    "sync_d_real": Figure("Sync-D (real)", 2, "SyncNet's least mean distance for the real frames", None),
    "mouth_correlation": Figure("mouth r", 2, "correlation of the mouth's opening with the real one, best lag", True),
    "mouth_lag_frames": Figure("lag", 1, "that lag in frames; positive: the prediction is late", None),
    "mouth_spread": Figure("spread", 2, "spread of the opening over that of the real one; 1 is best", None),
    "identity": Figure("identity", 3, "cosine of ArcFace embeddings", True),
    "fps": Figure("FPS", 1, "frames rendered a second, without tracking and reading", True),
}  # fmt: skip


@dataclass(frozen=True)
class Take:
    """What is measured.

    Attributes:
        name: The clip's.
        predicted: Frames of the prediction.
        real: The clip's own frames, as many; of somebody else where `source` is not None.
        samples: Its sound at 16 kHz; None where there is none.
        own_speech: Whether the sound is the speaker's own.
        source: Picture of another person, who is to be seen in the prediction; None: the person of the clip.
        fps: Frames rendered a second, if known.
    """

    name: str
    predicted: UInt8[np.ndarray, "frame height width 3"]
    real: UInt8[np.ndarray, "frame height width 3"]
    samples: Float[np.ndarray, " samples"] | None
    own_speech: bool
    source: UInt8[np.ndarray, "side side 3"] | None = None
    fps: float | None = None


@dataclass
class Scores:
    """What was measured.

    Attributes:
        figures: Numbers by names of `FIGURES`.
        missing: For every other name the reason.
    """

    figures: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, *names: str) -> None:
        """Say why figures are missing."""
        self.missing.update(dict.fromkeys(names, reason))
