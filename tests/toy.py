"""A whole model of toy size, made-up heads for it, and small files made of the example, for several test files."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdtalk.camera import FACING, Camera
from sdtalk.config import SDTalkConfig
from sdtalk.model import SDTalk
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.head_track import HeadTrack

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
SIZE = 64

TOY = SDTalkConfig(
    encoder_width=8, local_channels=8, global_width=8, plane_size=48, template_width=4, feature_channels=8,
    hash_levels=2, hash_base_resolution=4, hash_finest_resolution=8, hash_log2_table=8, motion_width=8,
    audio_width=8, renderer_width=4,
)  # fmt: skip


def toy_model(trained: bool = True, **sizes: int) -> SDTalk:
    """A network with random weights; where trained, layers that start at zero are random, too."""
    torch.manual_seed(0)
    model = SDTalk(replace(TOY, **sizes)).eval()
    if trained:
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.005)
    return model


def toy_track(count: int = 1, opening: float = 0.1) -> HeadTrack:
    """Average faces that look straight into a small camera."""
    face = FaceModel.bundled()
    change = opening - face.mouth_opening(face.mean_face[None])[0]
    mesh = (face.mean_face + change * face.opening_mode).repeat(count, 1, 1)
    camera = Camera.from_pose(FACING.repeat(count, 1, 1), torch.tensor([[0.0, 0.0, 9.5]] * count), SIZE)
    return HeadTrack(camera, mesh, CompletionTemplate.bundled().place(mesh), eye_state(mesh))


def toy_picture(seed: int = 0) -> Tensor:
    """A smooth picture, which a coarse plane can show."""
    torch.manual_seed(seed)
    return torch.nn.functional.interpolate(torch.rand(1, 3, 5, 5), (SIZE, SIZE), mode="bicubic").clamp(0, 1)


def save_portrait(path: Path, side: int = 256) -> Path:
    """The example portrait, smaller."""
    with Image.open(EXAMPLE) as image:
        image.convert("RGB").resize((side, side)).save(path)
    return path


def save_speech(path: Path, seconds: float = 0.2, rate: int = 16_000, channels: int = 1) -> Path:
    """A hum whose loudness changes four times a second."""
    times = np.arange(round(seconds * rate)) / rate
    hum = np.sin(2 * np.pi * 220 * times) * np.sin(2 * np.pi * 2 * times) * 8000
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", ""))
        file.writeframes(np.repeat(hum.astype("<i2"), channels).tobytes())
    return path
