"""SyncNet metrics: Sync-C and Sync-D of lips and sound (Chung and Zisserman, "Out of time", 2016).

The network is that of the published weights `syncnet_v2.model` (optional asset "syncnet"), and the figures are those
of its authors' procedure: every window of 5 video frames (0.2 s) is compared with the sound at shifts of up to 15
frames; Sync-D is the least mean distance of all shifts (lower is better), Sync-C the median of the shifts' mean
distances minus the least (higher is better).

What differs from the authors' procedure: the box of our landmarks takes the place of the one that S3FD finds, which is
about as large; it is smoothed to the ends of the clip without zeros beyond them; faces are resampled with antialiasing,
and straight from the pictures, without videos compressed in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import median_filter
from torch import Tensor, nn

from training.evaluation.mfcc import FULL_SCALE, mfcc
from training.optional_networks import load_optional_network

ASSET = "syncnet"
FACE_PX = 224
FRAMES, WINDOWS_PER_FRAME = 5, 4
SHIFTS = 15
PADDING = 0.40
"""The crop is so much of the face's half side larger, to the left, right and, twice, below; nothing above."""

SMOOTHED_FRAMES = 13
BORDER = 110
"""What stands beyond the border of the picture."""

BATCH = 20
SHORTEST_FRAMES = FRAMES + 1


class LipSyncNetwork(Protocol):
    """Brings lips and sound into one space."""

    def lips(self, frames: Float[Tensor, "batch 3 5 224 224"]) -> Float[Tensor, "batch width"]:
        """Of five frames, BGR in 0..255."""

    def sound(self, coefficients: Float[Tensor, "batch 1 13 20"]) -> Float[Tensor, "batch width"]:
        """Of 0.2 s of sound."""


class SyncNet(nn.Module):
    """The published network; its parts are called as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_convolution(nn.Conv2d(1, 64, 3, padding=1)), nn.MaxPool2d(1),
            *_convolution(nn.Conv2d(64, 192, 3, padding=1)), nn.MaxPool2d(3, stride=(1, 2)),
            *_convolution(nn.Conv2d(192, 384, 3, padding=1)),
            *_convolution(nn.Conv2d(384, 256, 3, padding=1)),
            *_convolution(nn.Conv2d(256, 256, 3, padding=1)), nn.MaxPool2d(3, stride=2),
            *_convolution(nn.Conv2d(256, 512, (5, 4))),
        )  # fmt: skip
        half, beside = (1, 2, 2), (0, 1, 1)
        self.netcnnlip = nn.Sequential(
            *_convolution(nn.Conv3d(3, 96, (5, 7, 7), half)), nn.MaxPool3d((1, 3, 3), half),
            *_convolution(nn.Conv3d(96, 256, (1, 5, 5), half, beside)), nn.MaxPool3d((1, 3, 3), half, beside),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=beside)),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=beside)),
            *_convolution(nn.Conv3d(256, 256, (1, 3, 3), padding=beside)), nn.MaxPool3d((1, 3, 3), half),
            *_convolution(nn.Conv3d(256, 512, (1, 6, 6))),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(), _head()

    @classmethod
    def installed(cls, device: torch.device | str = "cpu") -> "SyncNet | None":
        """With the published weights; None where they are not on this machine.

        Raises:
            InputError: The weights are damaged.
        """
        return load_optional_network(cls, ASSET, device)

    def lips(self, frames: Float[Tensor, "batch 3 5 224 224"]) -> Float[Tensor, "batch 1024"]:
        """Of five frames, BGR in 0..255."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def sound(self, coefficients: Float[Tensor, "batch 1 13 20"]) -> Float[Tensor, "batch 1024"]:
        """Of 0.2 s of sound."""
        return self.netfcaud(self.netcnnaud(coefficients).flatten(1))


def _convolution(layer: nn.Conv2d | nn.Conv3d) -> list[nn.Module]:
    norm = nn.BatchNorm3d if isinstance(layer, nn.Conv3d) else nn.BatchNorm2d
    return [layer, norm(layer.out_channels), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


@dataclass(frozen=True)
class SyncScores:
    """How well lips and sound go together.

    Attributes:
        confidence: Sync-C.
        distance: Sync-D.
        late_frames: By how many frames the sound comes too late; negative: too early.
    """

    confidence: float
    distance: float
    late_frames: int


def sync_scores(
    network: LipSyncNetwork,
    faces: Iterator[UInt8[np.ndarray, "224 224 3"]],
    samples: Float[np.ndarray, " samples"],
    device: torch.device | str = "cpu",
) -> SyncScores:
    """Compare a video's lips with its sound; memory holds a few frames only.

    Args:
        network: SyncNet, or what stands in for it.
        faces: RGB, see `face_crops`; 25 a second.
        samples: At 16 kHz, full scale = 1.
        device: Where the network is.

    Raises:
        ValueError: The video or the sound is shorter than six frames.
    """
    integers = np.clip(np.round(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    coefficients = torch.from_numpy(mfcc(integers).T).float()
    lips = _lip_embeddings(network, faces, device)
    # as the authors count: the last window of the shorter of picture and sound stays out
    count = min(len(lips) + FRAMES - 1, len(samples) // 640) - FRAMES
    if count < 1:
        raise ValueError(f"picture or sound is shorter than {SHORTEST_FRAMES} frames")
    width = FRAMES * WINDOWS_PER_FRAME
    windows = coefficients.unfold(1, width, WINDOWS_PER_FRAME)[:, :count].transpose(0, 1)[:, None]
    with torch.inference_mode():
        sound = torch.cat([network.sound(part.to(device)).cpu() for part in windows.split(BATCH)])
    return scores_from_distances(distances(lips[: len(sound)], sound))


def _lip_embeddings(
    network: LipSyncNetwork, faces: Iterator[np.ndarray], device: torch.device | str
) -> Float[Tensor, "window width"]:
    found, kept = [], []
    for face in faces:
        kept.append(torch.from_numpy(np.ascontiguousarray(face[..., ::-1])).permute(2, 0, 1))
        if len(kept) == BATCH + FRAMES - 1:
            found.append(_embedded(network, kept, device))
            kept = kept[-(FRAMES - 1) :]
    if len(kept) >= FRAMES:
        found.append(_embedded(network, kept, device))
    return torch.cat(found) if found else torch.zeros(0, 1)


@torch.inference_mode()
def _embedded(network: LipSyncNetwork, frames: list[Tensor], device: torch.device | str) -> Tensor:
    windows = torch.stack(frames, dim=1).to(device).float().unfold(1, FRAMES, 1)
    return network.lips(windows.permute(1, 0, 4, 2, 3)).cpu()


def distances(
    lips: Float[Tensor, "window width"], sound: Float[Tensor, "window width"], shifts: int = SHIFTS
) -> Float[Tensor, "window shift"]:
    """Of each video window from the sound `-shifts` to `shifts` windows after it; beyond the ends the sound is zero."""
    shifted = F.pad(sound, (0, 0, shifts, shifts)).unfold(0, 2 * shifts + 1, 1)  # window width shift
    return F.pairwise_distance(lips[:, None], shifted.transpose(1, 2))


def scores_from_distances(found: Float[Tensor, "window shift"]) -> SyncScores:
    """Sync-C, Sync-D and the shift at which lips and sound go together best."""
    mean = found.mean(0)
    least, at = mean.min(0)
    # sound that comes late goes together with lips at a later window than its own
    late = int(at) - len(mean) // 2
    return SyncScores(float(mean.median() - least), float(least), late)


def face_crops(
    frames: Iterator[UInt8[np.ndarray, "height width 3"]], boxes_px: Float[np.ndarray, "frame 4"]
) -> Iterator[UInt8[np.ndarray, "224 224 3"]]:
    """Faces as the authors' preprocessing cuts them out.

    Args:
        frames: RGB.
        boxes_px: x_min, y_min, x_max, y_max of the face in each frame.
    """
    width, height = boxes_px[:, 2] - boxes_px[:, 0], boxes_px[:, 3] - boxes_px[:, 1]
    track = np.stack(
        [np.maximum(width, height) / 2, boxes_px[:, ::2].mean(1), boxes_px[:, 1::2].mean(1)], axis=1
    )
    steady = median_filter(track, size=(SMOOTHED_FRAMES, 1), mode="nearest")
    for frame, (half, x, y) in zip(frames, steady, strict=False):
        margin = int(half * (1 + 2 * PADDING))
        padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)), constant_values=BORDER)
        x, y = x + margin, y + margin
        rows = slice(int(y - half), int(y + half * (1 + 2 * PADDING)))
        columns = slice(int(x - half * (1 + PADDING)), int(x + half * (1 + PADDING)))
        face = Image.fromarray(padded[rows, columns])
        yield np.asarray(face.resize((FACE_PX, FACE_PX), Image.Resampling.BILINEAR))
