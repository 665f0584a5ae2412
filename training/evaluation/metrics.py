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
        topic: The table it stands in.
        weight: Name of the metric that says how much a clip counts in the mean; "": all count the same.
    """

    title: str
    digits: int
    meaning: str
    higher: bool | None
    topic: str = "pictures"
    weight: str = ""


_BOX = "mouth and eyes"
_LIPS = "movement of the mouth"
_REST = "landmarks, sound, identity"

METRICS = {
    "psnr": Metric("PSNR", 2, "peak signal-to-noise ratio in dB, all frames but the source", True),
    "psnr_frozen": Metric("PSNR (frozen)", 2, "PSNR of the first frame, shown throughout", None),
    "ssim": Metric("SSIM", 3, "structural similarity, 7 px windows", True),
    "ssim_frozen": Metric("SSIM (frozen)", 3, "SSIM of the first frame, shown throughout", None),
    "lpips": Metric("LPIPS", 3, "perceptual distance, version 0.1 with AlexNet", False),
    "mouth_psnr": Metric("mouth PSNR", 2, "PSNR of the box around the real lips + 12 % of their width", True, _BOX),
    "mouth_psnr_frozen": Metric("mouth PSNR (frozen)", 2, "the same of the first frame, shown throughout", None, _BOX),
    "mouth_psnr_gain": Metric("mouth PSNR over frozen", 2, "the difference of the two in dB", True, _BOX),
    "mouth_psnr_shifted": Metric(
        "mouth PSNR (shifted)", 2, "the same of the first frame, moved to where the real mouth is", None, _BOX
    ),
    "mouth_psnr_gain_shifted": Metric("mouth PSNR over shifted", 2, "what the prediction has more", True, _BOX),
    "mouth_ssim": Metric("mouth SSIM", 3, "SSIM of that box", True, _BOX),
    "mouth_ssim_frozen": Metric("mouth SSIM (frozen)", 3, "the same of the first frame", None, _BOX),
    "mouth_sharpness": Metric(
        "mouth sharpness", 2, "gradient energy of that box over the real one's, median; 1 is best", None, _BOX
    ),
    "mouth_sharpness_opening": Metric(
        "opened", 2, "the same where the real mouth is by .25 of opening farther open than in the source", None, _BOX
    ),
    "mouth_sharpness_closing": Metric("closed", 2, "the same where it is by .25 less open", None, _BOX),
    "inner_lips_l1": Metric(
        "inside L1", 1, "mean error, of 255, between the real inner lips where these are open (over .3)", False, _BOX
    ),
    "inner_lips_l1_shifted": Metric("inside L1 (shifted)", 1, "the same of the first frame, moved there", None, _BOX),
    "eyes_psnr": Metric("eyes PSNR", 2, "PSNR of boxes around lids, creases + 12 %, mean of both eyes", True, _BOX),
    "eyes_psnr_frozen": Metric("eyes PSNR (frozen)", 2, "the same of the first frame", None, _BOX),
    "eyes_ssim": Metric("eyes SSIM", 3, "SSIM of these boxes", True, _BOX),
    "eyes_ssim_frozen": Metric("eyes SSIM (frozen)", 3, "the same of the first frame", None, _BOX),
    "eyes_sharpness": Metric(
        "eyes sharpness", 2, "gradient energy of these boxes over the real ones', median; 1 is best", None, _BOX
    ),
    "mouth_correlation": Metric(
        "mouth r", 2, "correlation of the mouth's opening with the real one, best lag", True, _LIPS
    ),
    "mouth_lag_frames": Metric("lag", 1, "that lag in frames; positive: the prediction is late", None, _LIPS),
    "mouth_spread": Metric("spread", 2, "spread of the opening over that of the real one; 1 is best", None, _LIPS),
    "mouth_width_correlation": Metric("width r", 2, "correlation of the mouth's width at that lag", True, _LIPS),
    "closures_hit": Metric(
        "closures hit", 2,
        "share of the real mouth's closures in speech at which the rendered one, brought to the real mean and spread, "
        "comes below 30 % of the speaker's range; in means every closure counts the same",
        True, _LIPS, "closures",
    ),
    "closure_opening": Metric(
        "opening there", 2, "its opening at them, in parts of the speaker's range", False, _LIPS, "closures"
    ),
    "closure_own_opening": Metric(
        "own opening there", 2, "the same as it is, in parts of its own range: how far its lips stay apart", False,
        _LIPS, "closures",
    ),
    "closures": Metric("closures", 1, "how many there are", None, _LIPS),
    "silence_motion": Metric(
        "motion in silence", 3, "standard deviation of the opening where nobody speaks", False, _LIPS
    ),
    "silence_motion_real": Metric("motion in silence (real)", 3, "the same of the real mouth", None, _LIPS),
    "silent_lips": Metric(
        "silent lips (THEval)", 4, "median deviation of the opening in silences of .3 s and more, in eye distances",
        None, _LIPS,
    ),
    "silent_lips_real": Metric("silent lips (real)", 4, "the same of the real mouth", None, _LIPS),
    "lip_dynamics": Metric(
        "lip dynamics (THEval)", 5,
        "variance over time of the distances of 40 lip points, mean over pairs; nearer to the real one's is better",
        None, _LIPS,
    ),
    "lip_dynamics_real": Metric("lip dynamics (real)", 5, "the same of the real lips", None, _LIPS),
    "lmd_fan": Metric("LMD (face-alignment)", 2, "distance of 68 landmarks in px of 512", False, _REST),
    "lips_lmd_fan": Metric(
        "Lips LMD (face-alignment)", 2, "the 20 of the lips (48:68), relative to their mean: the likely published LMD",
        False, _REST,
    ),
    "lmd_mesh": Metric("LMD (mesh)", 2, "the same of our face mesh's 68", False, _REST),
    "lips_lmd_mesh": Metric("Lips LMD (mesh)", 2, "the 20 of the lips, relative to their mean", False, _REST),
    "sync_c": Metric("Sync-C", 2, "SyncNet's confidence", True, _REST),
    "sync_d": Metric("Sync-D", 2, "SyncNet's least mean distance", False, _REST),
    "sync_c_real": Metric("Sync-C (real)", 2, "SyncNet's confidence for the real frames", None, _REST),
    "sync_d_real": Metric("Sync-D (real)", 2, "SyncNet's least mean distance for the real frames", None, _REST),
    "identity": Metric("identity", 3, "cosine of ArcFace embeddings", True, _REST),
    "fps": Metric("FPS", 1, "frames rendered a second, without tracking and reading", True, _REST),
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
        measured_codes: Whether the speaker's measured mouth moves the prediction's; then mouths can be compared
            whoever speaks.
        known: Left, top, right, bottom of what the real frames show, px; beyond it the video's border was continued,
            which whole pictures are not compared by. None: all of it.
    """

    name: str
    predicted: UInt8[np.ndarray, "frame height width 3"]
    real: UInt8[np.ndarray, "frame height width 3"]
    samples: Float[np.ndarray, " samples"] | None
    own_speech: bool
    source: UInt8[np.ndarray, "side side 3"] | None = None
    fps: float | None = None
    measured_codes: bool = False
    known: tuple[int, int, int, int] | None = None

    def seen(self, frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "rows columns 3"]:
        """The part of a frame that the video has."""
        left, top, right, bottom = self.known or (0, 0, frame.shape[1], frame.shape[0])
        return frame[top:bottom, left:right]


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
