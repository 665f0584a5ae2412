"""Window painter data: crops of mouths and eyes from a prepared set, one file a clip, and pairs drawn from them."""

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdtalk.camera import FRAME_SIZE, Camera
from sdtalk.motion.face_motion import moved_face
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_renderer import EYE_CUT, MOUTH_CUT
from sdtalk.tracking.face_model import FaceModel, eye_state, iris_places
from training.data.dataset import PreparedClip, PreparedDataset, clip_frames
from training.data.entries import ClipEntry

FRAMES_PER_CLIP = 72
SHIFT_PX = 10
"""Windows are shifted by up to so many px."""

SHARP_SIDE_PX = 450
"""Clips whose crops were enlarged from fewer px are drawn less often: they teach blur."""

OWN_MESH = 0.35
"""Share of pairs drawn on the target's tracked mesh; the others on what a video is made from, see `moved_mesh`."""


@dataclass(frozen=True)
class FaceCrops:
    """Some frames of a clip, cut around mouth and eyes.

    Attributes:
        mouth: RGB around the lips.
        mouth_corner: Left and top of these crops in the frame, px.
        eyes: RGB around the subject's right and left eye.
        eyes_corner: Left and top of these.
        mesh: The face mesh.
        pose: world_to_camera.
        side: Px of the video that the crop's 512 px come from.
    """

    mouth: UInt8[Tensor, "frame 192 192 3"]
    mouth_corner: Float[Tensor, "frame 2"]
    eyes: UInt8[Tensor, "frame 2 128 128 3"]
    eyes_corner: Float[Tensor, "frame 2 2"]
    mesh: Float[Tensor, "frame 478 3"]
    pose: Float[Tensor, "frame 4 4"]
    side: Float[Tensor, ""]

    def __len__(self) -> int:
        return len(self.mesh)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        save_file({f.name: getattr(self, f.name).contiguous() for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path) -> "FaceCrops":
        """Read what `save` wrote."""
        return cls(**load_file(path))


def chosen_frames(clip: PreparedClip, count: int = FRAMES_PER_CLIP) -> list[int]:
    """Frames to keep: a third evenly in time, a third spread over the opening, a third over the lid gaps."""
    frames, third = clip.entry.frames, count // 3
    gaps = clip.eyes[:, [0, 1, 3, 4]].mean(1)
    orders = torch.arange(frames), clip.mouth[:, 0].argsort(), gaps.argsort()
    chosen: set[int] = set()
    # blinks are rare: denser where eyes are shut
    for order, power in zip(orders, (1.0, 1.0, 2.5), strict=True):
        at = torch.linspace(0, 1, min(third, frames)) ** power * (frames - 1)
        chosen.update(order[at.round().long()].tolist())
    return sorted(chosen)


def cut_clip(prepared: PreparedDataset, entry: ClipEntry) -> FaceCrops:
    """Read a clip's chosen frames and cut them."""
    clip = prepared.clip(entry)
    chosen = chosen_frames(clip)
    wanted, mesh, pose = set(chosen), clip.mesh[chosen], clip.poses[chosen]
    xy = Camera.from_pose(pose[:, :3, :3], pose[:, :3, 3]).project(mesh)
    mirror = FaceModel.bundled().mirror
    outlines = [(list(MOUTH.outline), MOUTH_CUT), (list(RIGHT_EYE.outline), EYE_CUT)]
    outlines.append((mirror[list(RIGHT_EYE.outline)].tolist(), EYE_CUT))
    corners = [
        (xy[:, points].mean(1) - side / 2).round().clamp(0, FRAME_SIZE - side) for points, side in outlines
    ]
    cuts: list[list[Tensor]] = [[], [], []]
    for number, picture, _ in clip_frames(prepared, entry):
        if number in wanted:
            row = chosen.index(number)
            pixels = (picture * 255).round().byte().permute(1, 2, 0)
            for cut, corner, (_, side) in zip(cuts, corners, outlines, strict=True):
                x, y = corner[row].int().tolist()
                cut.append(pixels[y : y + side, x : x + side])
    mouth, right, left = (torch.stack(cut) for cut in cuts)
    side = torch.tensor(float(clip.metadata.crop.get("side", FRAME_SIZE)))
    eyes, eyes_corner = torch.stack([right, left], 1), torch.stack(corners[1:], 1)
    return FaceCrops(mouth, corners[0], eyes, eyes_corner, mesh, pose, side)


def load_crops(
    prepared: PreparedDataset, split: str, folder: Path, withheld: Collection[str] = ()
) -> list[FaceCrops]:
    """The crops of a split's clips; those not yet in `folder` are cut and kept there.

    Args:
        prepared: The data set.
        split: Which people.
        folder: Where crops are kept, one file a clip.
        withheld: File names of videos that must not be learned from.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def kept(entry: ClipEntry) -> FaceCrops:
        path = folder / f"{entry.key}.safetensors"
        if not path.exists():
            partial = path.with_suffix(".partial")
            cut_clip(prepared, entry).save(partial)
            partial.rename(path)
        return FaceCrops.load(path)

    wanted = [e for e in prepared.index.of(split) if prepared.clip(e).metadata.video not in withheld]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for its own decoder
        return list(pool.map(kept, wanted))


@dataclass(frozen=True)
class Pairs:
    """Photos and frames of the same people.

    Attributes:
        geometry: What a window is drawn from; the photo is a crop.
        target: The frame's window, real.
        states: How far mouth or eyes are open in the photo, and in the frame, about 0 to 1.
    """

    geometry: WindowGeometry
    target: Float[Tensor, "pair 3 size size"]
    states: Float[Tensor, "pair 2"]


class PairSampler:
    """Draws pairs of frames of a clip: sources of all states, targets that differ from them more often.

    The same seed gives the same pairs.
    """

    def __init__(
        self, clips: Sequence[FaceCrops], window: FaceWindow, seed: int, augment: bool = True
    ) -> None:
        """Weigh the clips: by their sharpness, and by how much mouth or eyes move in them."""
        self.clips, self.window, self.augment = clips, window, augment
        self._random, self._face = np.random.default_rng(seed), FaceModel.bundled()
        self.states = [self._state(clip) for clip in clips]
        sharp = np.array([min(1.0, float(clip.side) / SHARP_SIDE_PX) for clip in clips])
        moving = np.array([0.3 + min(1.0, float(np.ptp(s))) for s in self.states])
        weight = sharp**1.5 * moving * np.sqrt([len(clip) for clip in clips])
        self._share = weight / weight.sum()

    def _state(self, clip: FaceCrops) -> np.ndarray:
        """How far a mouth, or eyes, are open in each frame, about 0 to 1."""
        if self.window is MOUTH:
            return self._face.mouth_opening(clip.mesh).numpy()
        gaps = eye_state(clip.mesh)[:, [0, 1, 3, 4]].mean(1)
        return (gaps / gaps.quantile(0.9).clamp_min(1e-4)).clamp(max=1.5).numpy()

    def draw(self, count: int) -> Pairs:
        """So many pairs, each of another clip or another moment."""
        return self.pairs([self._choose() for _ in range(count)])

    def _choose(self) -> tuple[int, int, int]:
        random = self._random
        c = int(random.choice(len(self.clips), p=self._share))
        state = self.states[c]
        source = int(random.integers(len(state)))
        far = 0.08 + np.abs(state - state[source])
        far[source] = 0
        return c, source, int(random.choice(len(state), p=far / far.sum()))

    def pairs(self, chosen: Sequence[tuple[int, int, int]]) -> Pairs:
        """Pairs by their numbers: clip, source frame, target frame."""
        rows = [self._pair(*one) for one in chosen]
        parts = [torch.stack(part) for part in zip(*rows, strict=True)]
        return Pairs(WindowGeometry(*parts[:5]), *parts[5:])

    def _pair(self, c: int, source: int, target: int) -> tuple[Tensor, ...]:
        clip, size, random = self.clips[c], self.window.size, self._random
        side = int(random.integers(2)) if self.augment else 0
        crop, corner = (clip.mouth, clip.mouth_corner)
        if self.window is not MOUTH:
            crop, corner = clip.eyes[:, side], clip.eyes_corner[:, side]
        photo, frame = crop[source], crop[target]
        poses = clip.pose[[source, target]]
        cameras = Camera.from_pose(poses[:, :3, :3], poses[:, :3, 3])
        own = bool(self.augment and random.random() < OWN_MESH)
        moved = clip.mesh[target] if own else moved_mesh(self._face, clip.mesh[source], clip.mesh[target])
        photo_xy = cameras[:1].project(clip.mesh[source][None])[0] - corner[source]
        now = cameras[torch.tensor([1, 1])]
        rest_xy, moved_xy = now.project(torch.stack([clip.mesh[source], moved])) - corner[target]
        heights = -cameras[1:].to_camera_space(moved[None])[0, :, 2]
        whole = photo.permute(2, 0, 1)[None] / 255
        geometry = WindowGeometry(whole, photo_xy[None], rest_xy[None], moved_xy[None], heights[None])
        if side:  # a left eye becomes a right one
            frame, geometry = frame.flip(1), geometry.mirrored(crop.shape[2])
        shift = random.integers(-SHIFT_PX, SHIFT_PX + 1, 2) if self.augment else np.zeros(2)
        centre = geometry.moved_xy[0, list(self.window.outline)].mean(0) + torch.from_numpy(shift)
        x, y = (centre - size / 2).round().clamp(0, crop.shape[1] - size).int().tolist()
        geometry = geometry.within(torch.tensor([[x, y]], dtype=torch.float32))
        frame = frame[y : y + size, x : x + size].permute(2, 0, 1) / 255
        photo = geometry.photo[0]
        if self.augment:
            photo, frame = self._relit(photo, frame)
        states = torch.tensor(self.states[c][[source, target]], dtype=torch.float32)
        places = [x[0] for x in (geometry.photo_xy, geometry.rest_xy, geometry.moved_xy, geometry.heights)]
        return photo, *places, frame, states

    def _relit(self, *pictures: Tensor) -> list[Tensor]:
        """One gain, gain a channel, and gamma for all: skins and lights that few people show."""
        random = self._random
        gain = random.uniform(0.75, 1.15) * random.uniform(0.93, 1.07, 3)
        gamma, factor = random.uniform(0.8, 1.25), torch.tensor(gain, dtype=torch.float32)[:, None, None]
        return [(p**gamma * factor).clamp(0, 1) for p in pictures]


def moved_mesh(
    face: FaceModel, photo: Float[Tensor, "478 3"], frame: Float[Tensor, "478 3"]
) -> Float[Tensor, "478 3"]:
    """The photo's mesh in the state of a frame, as far as mouth code and eye state describe it: as a product has it."""
    both = torch.stack([photo, frame])
    code, eyes = face.mouth_code(both), eye_state(both)
    gaze = iris_places(both).diff(dim=0)
    return moved_face(both[:1], code[1:] - code[:1], eyes[1:] - eyes[:1], gaze)[0]
