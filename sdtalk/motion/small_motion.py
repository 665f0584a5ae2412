"""Small motion: what lives in a face besides mouth, lids and pose; gaze, brows and breath of every frame."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SmallMotion:
    """Changes since the photo, head-space units (0.2 m); all of it zero leaves the photo as it is.

    Attributes:
        gaze: Shift of both irises, within the eyes; x to the subject's left, y up.
        brows: Rise of the brows.
        breath: Rise of the shoulders.
    """

    gaze: Float[Tensor, "frame 3"]
    brows: Float[Tensor, " frame"]
    breath: Float[Tensor, " frame"]

    @classmethod
    def none(cls, frames: int) -> "SmallMotion":
        """Frames in which nothing moves."""
        return cls(torch.zeros(frames, 3), torch.zeros(frames), torch.zeros(frames))

    @property
    def both_eyes(self) -> Float[Tensor, "frame 2 3"]:
        """Shift of the right and the left iris."""
        return self.gaze[:, None].expand(-1, 2, -1)

    def __len__(self) -> int:
        return len(self.gaze)

    def __getitem__(self, index: slice) -> "SmallMotion":
        return SmallMotion(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> "SmallMotion":
        """Move to a device."""
        return SmallMotion(*(getattr(self, f.name).to(device) for f in fields(self)))
