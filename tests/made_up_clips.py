"""Test data: prepared clips of a real face, the example portrait seen by a moving camera; mirrored, a second person."""

import io
from pathlib import Path

import numpy as np
import torch
from made_up_data import write_work
from PIL import Image
from toy import EXAMPLE

from sdtalk.image import Crop, crop_picture, read_picture
from sdtalk.speech.audio import log_mel, padded_mels
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.tracker import Tracker
from training.data.dataset import PreparedDataset
from training.data.shards import finish_dataset, plan_shards, write_shards

VIEW_PX = 400


def wandering(frames: int, mirrored: bool = False) -> list[np.ndarray]:
    """Square views of the portrait, a little further each."""
    with Image.open(EXAMPLE) as image:
        width = image.width
    picture = read_picture(EXAMPLE).pixels
    picture = np.ascontiguousarray(picture[:, ::-1] if mirrored else picture)
    side = 0.9 * width
    return [
        crop_picture(picture, Crop(0.05 * width + 2.0 * i, 1.5 * i, side - 1.5 * i), VIEW_PX)
        for i in range(frames)
    ]


def write_face_clip(
    folder: Path, tracker: Tracker, frames: int, mirrored: bool, seed: int, split: str
) -> Path:
    """A finished clip, tracked as training/prepare.py tracks; its sound is made up."""
    write_work(folder, split, frames, seed=seed)
    views = wandering(frames, mirrored)
    video = tracker.video(iter(views), folder.name)
    crops = np.stack([crop_picture(view, video.crop, 512) for view in views])
    masks = (tracker.person_masks(crops)[:, 0].numpy() * 255).round().astype(np.uint8)
    crops[masks < 6] = 0
    audio = np.random.default_rng(seed).normal(0, 0.1, frames * 640).clip(-1, 1)
    np.savez(
        folder / "clip.npz",
        world_to_camera=video.track.camera.world_to_camera.numpy(),
        mesh=video.track.mesh.numpy(),
        eyes=video.track.eyes.numpy(),
        mouth=FaceModel.bundled().mouth_code(video.track.mesh).numpy(),
        audio=(audio * 32767).astype(np.int16),
        mel=padded_mels(log_mel(torch.from_numpy(audio).float()), frames).half().numpy(),
    )
    for number, (crop, mask) in enumerate(zip(crops, masks, strict=True)):
        for name, array, options in (("jpg", crop, {"quality": 95, "subsampling": 0}), ("png", mask, {})):
            data = io.BytesIO()
            Image.fromarray(array).save(data, {"jpg": "jpeg"}.get(name, name), **options)
            (folder / f"{number:06d}.{name}").write_bytes(data.getvalue())
    return folder


def make_faces(folder: Path, frames: int = 8) -> PreparedDataset:
    """A data set of two clips of two persons, split dev."""
    tracker, work = Tracker.from_bundled(), folder.with_name("work")
    clips = [write_face_clip(work / f"face-{i}", tracker, frames, bool(i), i, "dev") for i in range(2)]
    for _ in write_shards(plan_shards(clips, folder), clips, folder, 4):
        pass
    finish_dataset(folder, "face_mesh", "mel", 80)
    return PreparedDataset.open(folder)
