"""Test data: small prepared data sets of made-up talkers, written as training/prepare.py writes them."""

import dataclasses
import functools
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from face_like_flame import random_heads
from made_up_heads import with_opening
from PIL import Image

from sdtalk.camera import FACING
from sdtalk.speech.audio import SAMPLES_PER_FRAME, log_mel, padded_mels
from sdtalk.tracking.face_model import FaceModel, eye_state
from training.data.dataset import PreparedDataset
from training.data.entries import ClipMetadata
from training.data.shards import finish_dataset, plan_shards, write_shards

HUBERT_WIDTH = 32
PERSON = np.s_[100:, 130:380]
"""Rows and columns of a picture that show the made-up talker."""


def opening_curve(frames: int, random: np.random.Generator) -> np.ndarray:
    """How far a made-up talker's mouth is open: smooth, between closed and wide."""
    slow = np.convolve(random.normal(size=frames + 8), np.hanning(9) / 2, "valid")
    return np.clip(0.5 + 0.5 * slow, 0, None).astype(np.float32)


def write_work(
    folder: Path,
    split: str = "train",
    frames: int = 8,
    sound: str = "mel",
    tracker: str = "face_mesh",
    seed: int = 0,
    own_speech: bool = True,
) -> Path:
    """One finished clip: a head that says "ah" as loud as its mouth is open, before coloured noise."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    opening = opening_curve(frames, random)
    fine = np.interp(
        np.arange(frames * SAMPLES_PER_FRAME) / SAMPLES_PER_FRAME - 0.5, np.arange(frames), opening
    )
    audio = 0.2 * random.normal(size=len(fine)) * (0.05 + fine) ** 2
    arrays = _tracks(opening, random) | {"audio": (audio.clip(-1, 1) * 32767).round().astype(np.int16)}
    if sound == "mel":
        heard = torch.from_numpy(arrays["audio"]).float() / 32768
        arrays["mel"] = padded_mels(log_mel(heard), frames).half().numpy()
    else:
        arrays["hubert"] = random.normal(size=(2 * frames + 14, HUBERT_WIDTH)).astype(np.float16)
    if tracker == "flame":
        heads = random_heads(frames, seed, people=1)
        arrays["flame_shape"] = heads.shape[0].numpy()
        arrays |= {f"flame_{name}": getattr(heads, name).numpy() for name in ("expression", "jaw", "eyes")}
    np.savez(folder / "clip.npz", **arrays)
    for frame in range(frames):
        for name, data in _picture(arrays["world_to_camera"][frame], random).items():
            (folder / f"{frame:06d}.{name}").write_bytes(data)
    metadata = ClipMetadata(
        key=folder.name, person=f"person-{seed}", dataset="made up", split=split, frames=frames,
        own_speech=own_speech, video="made_up.mp4", start_s=1.5, crop={"left": 3.0, "top": 4.0, "side": 600.0},
        source_fps=30.0, source_size=[1280, 720], quality={"face_px": 200.0, "yaw_deg": [-5.0, 0.0, 5.0]},
    )  # fmt: skip
    (folder / "clip.json").write_text(json.dumps(dataclasses.asdict(metadata)))
    return folder


def _tracks(opening: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    shape = torch.from_numpy(random.normal(size=(len(opening), 5)).astype(np.float32))
    shape[:, 0] = 0
    mesh = torch.cat([with_opening(float(o)) for o in opening])
    mesh = mesh + FaceModel.bundled().mouth_displacement(shape)
    pose = torch.eye(4).repeat(len(opening), 1, 1)
    pose[:, :3, :3], pose[:, 2, 3] = FACING, 9.5
    pose[:, :2, 3] = torch.from_numpy(random.normal(0, 0.03, (len(opening), 2)))
    mouth = FaceModel.bundled().mouth_code(mesh)
    tensors = {"world_to_camera": pose, "mesh": mesh, "eyes": eye_state(mesh), "mouth": mouth}
    return {name: value.numpy() for name, value in tensors.items()}


def _picture(pose: np.ndarray, random: np.random.Generator) -> dict[str, bytes]:
    pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[PERSON] = np.asarray(Image.fromarray(pixels).resize((512, 512)))[PERSON]
    jpg = io.BytesIO()
    Image.fromarray(picture).save(jpg, "jpeg", quality=95, subsampling=0)
    return {"jpg": jpg.getvalue(), "png": _mask()}


@functools.cache
def _mask() -> bytes:
    mask = np.zeros((512, 512), np.uint8)
    mask[PERSON] = 255
    png = io.BytesIO()
    Image.fromarray(mask).save(png, "png")
    return png.getvalue()


def make_prepared(
    folder: Path,
    clips: int = 2,
    frames: int = 8,
    sound: str = "mel",
    tracker: str = "face_mesh",
    splits: Sequence[str] = ("train",),
    seed: int = 0,
    shard_mb: float = 256,
    piece_frames: int = 4,
) -> PreparedDataset:
    """A data set with so many clips in each split, each of another person; what it is made of lies in FOLDER-work."""
    work = []
    for split in splits:
        for number in range(clips):
            at = seed * 1000 + len(work)
            path = folder.with_name(f"{folder.name}-work") / f"{split}-{number:02d}"
            work.append(write_work(path, split, frames, sound, tracker, at))
    return packed(folder, work, sound, tracker, shard_mb, piece_frames)


def packed(
    folder: Path,
    work: Sequence[Path],
    sound: str = "mel",
    tracker: str = "face_mesh",
    shard_mb: float = 256,
    piece_frames: int = 4,
) -> PreparedDataset:
    """A data set of finished clips."""
    for _ in write_shards(plan_shards(work, folder, shard_mb), work, folder, piece_frames):
        pass
    hubert = sound == "hubert"
    finish_dataset(folder, tracker, sound, HUBERT_WIDTH if hubert else 80, "ahead" if hubert else None)
    return PreparedDataset.open(folder)
