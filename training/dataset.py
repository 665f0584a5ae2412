"""Prepared clips (see `prepare.py`) as training samples."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from sdtalk.camera import Camera
from sdtalk.image import to_tensor
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.head_track import HeadTrack


@dataclass(frozen=True)
class Clip:
    """One prepared clip.

    Attributes:
        folder: Where its pictures are.
        track: Head of every frame.
        mouth: Mouth codes; the shape coefficients are relative to the clip's mean, the opening is absolute.
        audio: Sound at 16 kHz aligned with the frames; empty where there is none.
        pictures: Numbers of the frames that are stored as pictures.
        own_speech: Whether the sound is the voice of the person shown.
        identity: Who is shown.
    """

    folder: Path
    track: HeadTrack
    mouth: Float[Tensor, "frame 5"]
    audio: np.ndarray
    pictures: list[int]
    own_speech: bool
    identity: str

    def picture(self, number: int) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "1 height width"]]:
        """Frame in [0, 1] and person mask."""
        with Image.open(self.folder / f"{number:05d}.jpg") as image:
            frame = to_tensor(np.asarray(image)[None])[0]
        with Image.open(self.folder / f"{number:05d}.png") as image:
            mask = torch.from_numpy(np.array(image)).float()[None] / 255
        return frame, mask


def load_clip(folder: Path) -> Clip:
    """Read a clip's tracks; pictures stay on disk."""
    data = np.load(folder / "clip.npz")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    mesh = torch.from_numpy(data["mesh"])
    poses = torch.from_numpy(data["world_to_camera"])
    mouth = FaceModel.bundled().mouth_code(mesh)
    mouth[:, 1:] -= mouth[:, 1:].mean(0)
    return Clip(
        folder=folder,
        track=HeadTrack(
            Camera.from_pose(poses[:, :3, :3], poses[:, :3, 3]),
            mesh,
            CompletionTemplate.bundled().place(mesh),
            torch.from_numpy(data["eyes"]),
        ),
        mouth=mouth,
        audio=data["audio"],
        pictures=sorted(int(p.stem) for p in folder.glob("*.jpg")),
        own_speech=facts["own_speech_audio"] is True,
        identity=facts["identity"],
    )


def load_clips(folder: Path) -> list[Clip]:
    """Every prepared clip below a folder, by name.

    Raises:
        SystemExit: If there is none.
    """
    folders = sorted(p.parent for p in folder.glob("*/facts.json"))
    if not folders:
        raise SystemExit(f"{folder}: no prepared clips. Run training/prepare.py first.")
    return [load_clip(f) for f in folders]


class FramePairs(Dataset):
    """Source and target frame of the same clip; clips count by the square root of their length, speech double."""

    def __init__(self, clips: list[Clip], length: int, seed: int) -> None:
        self.clips = clips
        weights = np.array([len(c.pictures) ** 0.5 * (1 + c.own_speech) for c in clips])
        self.shares = weights / weights.sum()
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Everything a step needs; the same index always gives the same pair, so a resumed run sees the same data."""
        random = np.random.default_rng((self.seed, index))
        clip = self.clips[random.choice(len(self.clips), p=self.shares)]
        source, target = random.choice(clip.pictures, 2)
        sample = {
            "window": torch.from_numpy(random.random(2)).float()
        }  # where in its free play, see train.py
        for name, number in (("source", int(source)), ("target", int(target))):
            image, mask = clip.picture(number)
            track = clip.track[number : number + 1]
            sample |= {
                f"{name}_image": image,
                f"{name}_mask": mask,
                f"{name}_pose": track.camera.world_to_camera[0],
                f"{name}_mesh": track.mesh[0],
                f"{name}_points": track.completion_points[0],
                f"{name}_eyes": track.eyes[0],
                f"{name}_mouth": clip.mouth[number],
            }
        return sample


def track_of(batch: dict[str, Tensor], name: str) -> HeadTrack:
    """The heads of a batch's source or target frames."""
    pose = batch[f"{name}_pose"]
    return HeadTrack(
        Camera.from_pose(pose[:, :3, :3], pose[:, :3, 3]),
        batch[f"{name}_mesh"],
        batch[f"{name}_points"],
        batch[f"{name}_eyes"],
    )
