"""Test models and files: a whole model of toy size, made-up heads for it, and small files made of the example."""

import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from face_like_flame import face_like_flame
from PIL import Image
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from sdtalk.camera import FACING, Camera
from sdtalk.config import SDTalkConfig
from sdtalk.model import SDTalk
from sdtalk.published.convert import published_config
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.head_track import HeadTrack

EXAMPLE = Path(__file__).parent.parent / "examples" / "eileen_collins.png"
SIZE = 64

TOY = SDTalkConfig(
    encoder_width=8, local_channels=8, global_width=8, plane_size=48, template_width=4, feature_channels=8,
    hash_levels=2, hash_base_resolution=4, hash_finest_resolution=8, hash_log2_table=8, motion_width=8,
    audio_encoder="mel", audio_width=8, neural_renderer="residual", renderer_width=4,
)  # fmt: skip

TOY_BASE = replace(
    published_config(), name="toy base", backbone_width=32, backbone_depth=4, backbone_heads=2, backbone_picture_px=56,
    local_channels=8, global_width=32, plane_size=32, head_width=8, template_width=8, hash_levels=4,
    hash_base_resolution=4, hash_finest_resolution=16, hash_log2_table=8, motion_width=8, audio_width=32,
    audio_code_width=8, renderer_width=1, style_width=8,
)  # fmt: skip
"""The paper's model with everything that the published code does, made small; hears through `store_toy_assets`."""


def toy_base(seed: int = 0, **changes: object) -> SDTalk:
    """A toy of the paper's model with random weights, none of them zero: sound and noise can be seen."""
    torch.manual_seed(seed)
    model = SDTalk(replace(TOY_BASE, **changes)).eval().requires_grad_(False)
    _fill_zeros(model, 0.1)
    return model


@torch.no_grad()
def _fill_zeros(network: nn.Module, std: float) -> None:
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(std=std)


def store_toy_assets(home: Path) -> None:
    """Put a made-up FLAME and a narrow HuBERT where those that users add are kept."""
    flame = face_like_flame()
    triangles = flame.triangles.repeat(12, 1)[:9976]  # as many as FLAME has
    (home / "flame").mkdir(parents=True)
    replace(flame, triangles=triangles).save(home / "flame" / "flame.safetensors", {})
    torch.manual_seed(0)
    hubert = HubertModel(toy_hubert_config())
    _fill_zeros(hubert, 0.1)  # with biases silence is something to hear
    hubert.save_pretrained(home / "hubert")


def toy_hubert_config(**changes: object) -> HubertConfig:
    """HuBERT-large, made narrow."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    kind = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
    conv = {"conv_dim": [32] * 7, "num_conv_pos_embedding_groups": 4}
    return HubertConfig(**(sizes | kind | conv | changes))


def toy_model(trained: bool = True, **sizes: int) -> SDTalk:
    """A network with random weights; where trained, layers that start at zero are random, too."""
    torch.manual_seed(0)
    model = SDTalk(replace(TOY, **sizes)).eval()
    if trained:
        _fill_zeros(model, 0.005)
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
