"""Preparation settings: the dataclasses behind `training/configs/prepare.yaml`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Limits:
    """What a frame or a clip has to keep to; the rest of a video is rejected, with these numbers in the report.

    Attributes:
        face_px: Least longer side of the face, in px of the video.
        yaw_deg: How far a head may turn to either side.
        pitch_deg: How far it may nod up or down, from the average face's rest.
        roll_deg: How far it may lean.
        face_outside: Largest share of the face's landmarks beyond the border of the picture.
        crop_outside: Largest share of the clip's square beyond the border of the picture.
        face_in_crop: Least longer side of the face in its square, as a share of the square's; less where it roams.
        other_face: A second face counts from this share of the first one's size on.
        person_on_face: Least mean of the person mask on the face; drawings and statues have less.
        gap_frames: So many frames in a row without a face are bridged, not cut.
    """

    face_px: float
    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    face_outside: float
    crop_outside: float
    face_in_crop: float
    other_face: float
    person_on_face: float
    gap_frames: int


@dataclass(frozen=True)
class SyncSettings:
    """How late the sound is, estimated by listening for the mouth's opening.

    Attributes:
        reach_frames: Largest offset looked for, to either side, in frames of 40 ms.
        gain: An offset is corrected if the correlation grows by so much.
        least_r: And reaches this.
        own_speech_r: Where nobody says whose voice it is, it is the speaker's from this correlation on.
    """

    reach_frames: int
    gain: float
    least_r: float
    own_speech_r: float


@dataclass(frozen=True)
class SplitShares:
    """SplitShares of the people for measuring; all others are for training.

    Attributes:
        dev: For choosing.
        test: For reporting.
    """

    dev: float
    test: float

    def __post_init__(self) -> None:
        if self.dev < 0 or self.test < 0 or self.dev + self.test > 1:
            raise ValueError(f"dev ({self.dev}) and test ({self.test}) are no shares of 1")


@dataclass(frozen=True)
class PrepareSettings:
    """All of it.

    Attributes:
        tracker: What heads are: our face mesh (mini), or FLAME fitted to it (base).
        sound: Which features are kept beside the sound: log-mel (mini) or HuBERT's tokens (base).
        token_alignment: Which tokens a frame hears, see `sdtalk.speech.hubert.windows`.
        shortest_seconds: Shorter pieces between cuts are rejected.
        longest_seconds: Longer ones are split evenly.
        limits: Which frames are of use.
        sync: How the sound is aligned.
        splits: Which people are for what.
        shard_mb: A shard is closed at about so many megabytes.
        piece_frames: Up to so many frames are read at once in training.
    """

    tracker: Literal["face_mesh", "flame"]
    sound: Literal["mel", "hubert"]
    token_alignment: Literal["ahead", "centred"]
    shortest_seconds: float
    longest_seconds: float
    limits: Limits
    sync: SyncSettings
    splits: SplitShares
    shard_mb: float
    piece_frames: int

    def __post_init__(self) -> None:
        if not 0.2 <= self.shortest_seconds <= self.longest_seconds / 2:
            problem = "has to be at least 0.2 s and at most half of longest_seconds"
            raise ValueError(f"shortest_seconds ({self.shortest_seconds}) {problem}")
