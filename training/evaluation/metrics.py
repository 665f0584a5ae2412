"""Metric definitions: every metric by name, the clip it is computed from, and the scores of a clip."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Metric:
    """What a number of an evaluation means.

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


METRICS = {
    "psnr": Metric("PSNR", 2, "peak signal-to-noise ratio in dB, all frames but the source", True),
    "psnr_frozen": Metric("PSNR (frozen)", 2, "PSNR of the first frame, shown throughout", None),
    "ssim": Metric("SSIM", 3, "structural similarity, 7 px windows", True),
    "ssim_frozen": Metric("SSIM (frozen)", 3, "SSIM of the first frame, shown throughout", None),
    "lpips": Metric("LPIPS", 3, "perceptual distance, version 0.1 with AlexNet", False),
    "lmd_fan": Metric("LMD (face-alignment)", 2, "distance of 68 landmarks in px of 512", False),
    "lmd_mesh": Metric("LMD (mesh)", 2, "the same of our face mesh's 68", False),
    "lips_lmd_mesh": Metric("Lips LMD (mesh)", 2, "the 20 of the lips, relative to their mean", False),
    "sync_c": Metric("Sync-C", 2, "SyncNet's confidence", True),
    "sync_d": Metric("Sync-D", 2, "SyncNet's least mean distance", False),
    "sync_c_real": Metric("Sync-C (real)", 2, "SyncNet's confidence for the real frames", None),
    "sync_d_real": Metric("Sync-D (real)", 2, "SyncNet's least mean distance for the real frames", None),
    "mouth_correlation": Metric("mouth r", 2, "correlation of the mouth's opening with the real one, best lag", True),
    "mouth_lag_frames": Metric("lag", 1, "that lag in frames; positive: the prediction is late", None),
    "mouth_spread": Metric("spread", 2, "spread of the opening over that of the real one; 1 is best", None),
    "identity": Metric("identity", 3, "cosine of ArcFace embeddings", True),
    "fps": Metric("FPS", 1, "frames rendered a second, without tracking and reading", True),
}  # fmt: skip


@dataclass(frozen=True)
class RenderedClip:
    """Frames of a model, or of another method, beside the real ones, and what belongs to them: what is measured.

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
        metrics: Numbers by names of `METRICS`.
        missing: For every other name the reason.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, *names: str) -> None:
        """Say why metrics are missing."""
        self.missing.update(dict.fromkeys(names, reason))
