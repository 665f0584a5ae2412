"""Clip writer: frames, masks, tracks and sound of a clip into a folder, whole or not at all."""

import errno
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from PIL import Image
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.errors import InputError
from sdtalk.flame.tracker import FlameVideoTrack
from sdtalk.image import crop_picture
from sdtalk.speech.audio import SAMPLES_PER_FRAME, log_mel, padded_mels
from sdtalk.speech.hubert import HubertFeatures
from sdtalk.speech.hubert.windows import TOKENS_BEFORE, TOKENS_PER_FRAME, WINDOW
from sdtalk.tracking.tracker import Tracker, VideoTrack
from sdtalk.weights.folder import replaced_folder
from training.data.atomic import REMEDY
from training.data.entries import ClipMetadata

JPEG_QUALITY = 95
PNG_LEVEL = 4
BATCH = 16
"""Frames whose person masks are computed together."""

BLACK_BELOW = round(0.02 * 255)
"""Where the mask is at most this, of 255, the picture is black."""

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class ClipData:
    """What a clip is written from, but for its frames.

    Attributes:
        track: The head, and the square that is kept.
        metadata: What is known about it.
        audio: Its sound, aligned.
    """

    track: VideoTrack
    metadata: ClipMetadata
    audio: Int16[np.ndarray, " samples"]


AudioFeatures = Callable[[Tensor, int], np.ndarray]
"""From a clip's samples and its count of frames to what is kept under the name of the kind of sound."""


def mel_features(samples: Float[Tensor, " samples"], frames: int) -> Float[np.ndarray, "padded 80"]:
    """Log-mel features, padded so that frame t hears rows 4 t to 4 t + 36."""
    return padded_mels(log_mel(samples), frames).numpy().astype(np.float16)


def hubert_features(hubert: HubertFeatures, alignment: str) -> AudioFeatures:
    """HuBERT's tokens, padded so that frame t hears rows 2 t to 2 t + 15."""

    def features(samples: Tensor, frames: int) -> np.ndarray:
        tokens = torch.cat([block.cpu() for block in hubert.tokens(samples)]).numpy()
        total, before = TOKENS_PER_FRAME * (frames - 1) + WINDOW, TOKENS_BEFORE[alignment]
        padded = np.zeros((total, tokens.shape[1]), np.float16)
        kept = tokens[: total - before]
        padded[before : before + len(kept)] = kept
        return padded

    return features


def aligned_audio(samples: Float[Tensor, " samples"], start: int, frames: int, late_ms: float) -> np.ndarray:
    """A clip's part of a video's sound as 16-bit numbers, moved earlier by how late it is; zeros beyond the ends."""
    first = start * SAMPLES_PER_FRAME + round(late_ms * SAMPLES_PER_FRAME / 40)
    piece = samples[max(first, 0) : max(first + frames * SAMPLES_PER_FRAME, 0)].numpy()
    sound = np.zeros(frames * SAMPLES_PER_FRAME, np.int16)
    offset = max(-first, 0)
    sound[offset : offset + len(piece)] = np.clip(np.round(piece * 32767), -32768, 32767).astype(np.int16)
    return sound


class _Rejected(Exception):
    """A clip is not worth keeping; the text says why."""


class ClipWriter:
    """Writes the folders of clips.

    Args:
        tracker: Its networks find the person masks.
        sound: "mel" or "hubert".
        features: The features of that kind.
        person_on_face: Least mean of the person mask on the face.
    """

    def __init__(self, tracker: Tracker, sound: str, features: AudioFeatures, person_on_face: float) -> None:
        self.tracker, self.sound, self.features = tracker, sound, features
        self.person_on_face = person_on_face

    def write(self, clip: ClipData, frames: Iterator[np.ndarray], folder: Path) -> str:
        """Write a clip of the next frames of a video.

        Args:
            clip: What to write.
            frames: Its frames; exactly as many as it has are taken.
            folder: Where; it appears when it is complete.

        Returns:
            Why it is rejected all the same; "" when it was written.

        Raises:
            InputError: It cannot be written.
        """
        draft = folder.with_name(f"{folder.name}.partial")
        try:
            with replaced_folder(folder, REMEDY, draft):
                on_face = self._write_frames(clip, islice(frames, clip.metadata.frames), draft)
                if on_face < self.person_on_face:
                    wanted = f"at least {self.person_on_face:.0%} are wanted"
                    raise _Rejected(f"the mask covers {on_face:.0%} of the face, {wanted}")
                write_file(draft / "clip.npz", self._arrays(clip))
                write_file(draft / "clip.json", json.dumps(asdict(clip.metadata)).encode())
        except _Rejected as reason:
            return str(reason)
        return ""

    def _write_frames(self, clip: ClipData, frames: Iterator[np.ndarray], folder: Path) -> float:
        """Write pictures and masks; tells the mean of the mask on the face."""
        number, on_face = 0, 0.0
        points = clip.track.track.camera.project(clip.track.track.mesh).long()
        while batch := list(islice(frames, BATCH)):
            crops = np.stack([crop_picture(frame, clip.track.crop, FRAME_SIZE) for frame in batch])
            masks = (self.tracker.person_masks(crops)[:, 0] * 255).round().to(torch.uint8).numpy()
            for crop, mask in zip(crops, masks, strict=True):
                column, row = points[number].clamp(0, FRAME_SIZE - 1).unbind(1)
                on_face += float(mask[row, column].mean()) / 255
                crop[mask <= BLACK_BELOW] = 0
                write_file(folder / f"{number:06d}.jpg", encode_image(crop))
                write_file(folder / f"{number:06d}.png", encode_image(mask))
                number += 1
        if number < clip.metadata.frames:
            problem = f"its second reading gave {number} frames of a clip of {clip.metadata.frames}"
            raise InputError(clip.metadata.video, problem, "Was the file changed meanwhile? Run it again.")
        return on_face / number

    def _arrays(self, clip: ClipData) -> bytes:
        track = clip.track.track
        arrays = {
            "world_to_camera": track.camera.world_to_camera,
            "mesh": track.mesh,
            "eyes": track.eyes,
            "mouth": self.tracker.face.mouth_code(track.mesh),
        }
        if isinstance(clip.track, FlameVideoTrack):
            flame = clip.track.flame
            arrays |= {
                "flame_shape": flame.shape[0],
                "flame_expression": flame.expression,
                "flame_jaw": flame.jaw,
                "flame_eyes": flame.eyes,
            }
        samples = torch.from_numpy(clip.audio.astype(np.float32) / 32768)
        data = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
        data |= {"audio": clip.audio, self.sound: self.features(samples, clip.metadata.frames)}
        buffer = io.BytesIO()
        np.savez(buffer, **data)
        return buffer.getvalue()


def encode_image(picture: UInt8[np.ndarray, "height width *channels"]) -> bytes:
    """RGB as JPEG without subsampling of colours, a mask as PNG."""
    buffer = io.BytesIO()
    if picture.ndim == 3:
        Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        Image.fromarray(picture).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def write_file(path: Path, data: bytes) -> None:
    """Write a file of a folder that is not yet complete."""
    with path.open("wb") as file:
        file.write(data)
