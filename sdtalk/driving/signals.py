"""Driving signals: what moves a head in every frame."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.motion.small_motion import SmallMotion


@dataclass(frozen=True)
class DrivingSignals:
    """What drives a head, frame by frame.

    Attributes:
        audio_code: State of the mouth.
        eyes: State of the eyes.
        camera: Pose, one camera a frame.
        small_motion: Gaze, brows and breath; None: they stay as in the photo.
    """

    audio_code: Float[Tensor, "frame *field audio"]
    eyes: Float[Tensor, "frame 6"]
    camera: Camera
    small_motion: SmallMotion | None = None

    def __len__(self) -> int:
        return len(self.eyes)

    def __getitem__(self, index: slice) -> "DrivingSignals":
        small = None if self.small_motion is None else self.small_motion[index]
        return DrivingSignals(self.audio_code[index], self.eyes[index], self.camera[index], small)

    def to(self, device: torch.device | str) -> "DrivingSignals":
        """Move to a device."""
        small = None if self.small_motion is None else self.small_motion.to(device)
        return DrivingSignals(self.audio_code.to(device), self.eyes.to(device), self.camera.to(device), small)
