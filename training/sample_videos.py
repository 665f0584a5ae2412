"""Sample videos: a clip the run does not train on, real frames beside predicted ones, with sound."""

from pathlib import Path

import numpy as np
import torch

from sdtalk.camera import FRAME_SIZE
from sdtalk.image import to_frames
from sdtalk.model import SDTalk
from sdtalk.speech.audio import SAMPLE_RATE_HZ
from sdtalk.speech.waveform import Waveform
from sdtalk.video import open_writer
from training.data.dataset import PreparedClip, PreparedDataset, clip_frames
from training.evaluation.reenactment import predicted_frames


def choose_sample_clip(prepared: PreparedDataset, split: str, fallback: str) -> PreparedClip | None:
    """The first clip with the speaker's own sound of a split, or of another one where it is empty."""
    clips = prepared.index.of(split) or prepared.index.of(fallback)
    spoken = [clip for clip in clips if clip.own_speech] or clips
    return prepared.clip(spoken[0]) if spoken else None


def write_sample_video(
    path: Path,
    model: SDTalk,
    prepared: PreparedDataset,
    clip: PreparedClip,
    frames: int,
    device: torch.device | str,
) -> None:
    """Write the video.

    Args:
        path: The .mp4.
        model: In evaluation mode, on the device.
        prepared: Where the clip's pictures are.
        clip: Who.
        frames: How many.
        device: Where the model is.

    Raises:
        InputError: It cannot be written.
    """
    count = min(frames, clip.entry.frames)
    pictures = clip_frames(prepared, clip.entry)
    _, image, mask = next(pictures)
    source = (image[None], mask[None], clip.track[0:1])
    predicted = predicted_frames(model, clip, source, range(count), None, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = Waveform(clip.audio.numpy(), SAMPLE_RATE_HZ) if len(clip.audio) else None
    with open_writer(path, (2 * FRAME_SIZE, FRAME_SIZE), sound=sound, frames=count) as writer:
        real = to_frames((image * mask)[None])[0]
        for prediction in predicted:
            writer.write(np.concatenate([real, prediction], axis=1))
            if (following := next(pictures, None)) is not None:
                real = to_frames((following[1] * following[2])[None])[0]
    pictures.close()  # type: ignore[attr-defined]
