"""Clip track: one face through a video at the video's own frame rate, shot by shot, and an open mouth of each shot."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.errors import InputError
from sdtalk.image import Crop, crop_picture
from sdtalk.tracking.detector import overlaps
from sdtalk.tracking.face_model import LOWER_INNER_LIP, UPPER_INNER_LIP
from sdtalk.tracking.follow import follow_face
from sdtalk.tracking.found_faces import LARGEST, MOST_FACES
from sdtalk.tracking.framing import choose_crop
from sdtalk.tracking.head_track import MESH_POINTS
from sdtalk.tracking.networks import FaceLandmarks, FaceNetworks

THUMBNAIL_PX = 32
CUT = 0.1
"""Pictures that differ so much from one frame to the next, mean over a small grey one, may be a cut,"""
CUT_RATIO = 4.0
"""and are one where that is so many times the usual difference: a camera that pans is none."""

BATCH_BYTES = 64 * 2**20
"""Frames looked at at once; 8 to 32 of them."""

WIDE = 0.4
"""Height over width of an opening that shows both rows of teeth; wider shows nothing more."""


@dataclass
class Shot:
    """A stretch of a video without a cut.

    Attributes:
        first: Number of its first frame.
        landmarks: Of each frame, px of the frame as `FaceLandmarks` has them; NaN where there is no face.
        mouth: The frame that shows the mouth best open, cropped; None: no face was seen.
        mouth_landmarks: Of that frame.
        mouth_crop: Where in it the crop lies.
        score: How good that frame is.
    """

    first: int
    landmarks: list[Float[Tensor, "478 3"]] = field(default_factory=list)
    mouth: UInt8[np.ndarray, "size size 3"] | None = None
    mouth_landmarks: Float[Tensor, "1 478 3"] | None = None
    mouth_crop: Crop | None = None
    score: float = -1.0

    def look_at_mouth(self, frame: UInt8[np.ndarray, "height width 3"], face: FaceLandmarks) -> None:
        """Keep this frame's face where its mouth is the best so far."""
        points = face.points[None].cpu()
        score = mouth_score(points[0], frame)
        if score > self.score:
            crop = choose_crop(points, frame.shape[1], frame.shape[0])
            self.mouth, self.mouth_landmarks = crop_picture(frame, crop, FRAME_SIZE), points
            self.mouth_crop, self.score = crop, score


@dataclass(frozen=True)
class ClipTrack:
    """A face through a video.

    Attributes:
        shots: From the first frame to the last.
        size: Width and height of the frames, px.
    """

    shots: list[Shot]
    size: tuple[int, int]

    def __len__(self) -> int:
        """How many frames there are."""
        return sum(len(shot.landmarks) for shot in self.shots)

    @property
    def without_face(self) -> int:
        """In how many frames the face is not to be seen."""
        return sum(int(not torch.isfinite(points).all()) for shot in self.shots for points in shot.landmarks)


def track_clip(
    networks: FaceNetworks,
    frames: Iterator[UInt8[np.ndarray, "height width 3"]],
    name: str,
    face: int = LARGEST,
) -> ClipTrack:
    """Find one face in every frame; frames are read once and not kept.

    Args:
        networks: The tracker's.
        frames: RGB, all of one size.
        name: What to call the video in an error.
        face: In every shot the Nth face from the left, from 1; 0: the largest. A shot that shows fewer has none.

    Raises:
        InputError: The video is empty, has no face in any frame, or never so many.
    """
    shots: list[Shot] = []
    last: FaceLandmarks | None = None
    size = (0, 0)
    for batch in _by_shots(frames):
        if batch.new or not shots:
            shots.append(Shot(sum(len(shot.landmarks) for shot in shots)))
            last = None
        stacked = torch.from_numpy(np.stack(batch.pictures))
        size = stacked.shape[2], stacked.shape[1]
        found, last = _followed(networks, stacked, last, face)
        for picture, one in zip(batch.pictures, found, strict=True):
            nowhere = torch.full((MESH_POINTS, 3), torch.nan)
            shots[-1].landmarks.append(nowhere if one is None else one.points.cpu())
            if one is not None:
                shots[-1].look_at_mouth(picture, one)
    if not shots:
        raise InputError(name, "this video has no frames", "Use a video that plays.")
    if all(shot.mouth is None for shot in shots):
        if face != LARGEST:
            remedy = "Choose a smaller number, counted from left to right, or 0: the largest."
            raise InputError(f"face {face}", f"{name} never shows so many", remedy)
        remedy = "Use a video in which a face is large and seen from the front."
        raise InputError(name, "no face was found in this video", remedy)
    return ClipTrack(shots, size)


def _followed(
    networks: FaceNetworks,
    pictures: UInt8[Tensor, "frame height width 3"],
    last: FaceLandmarks | None,
    face: int,
) -> tuple[list[FaceLandmarks | None], FaceLandmarks | None]:
    """The face in frames of one shot, and the last that was seen of it."""
    found: list[FaceLandmarks | None] = []
    while last is None and len(found) < len(pictures):
        last = _begun(networks, pictures[len(found) : len(found) + 1], face)
        if last is None:
            found.append(None)
    if last is None:
        return found, None
    for one in follow_face(networks, pictures[len(found) :], last):
        # where the one is gone that was asked for, another face is not it
        if one is not None and face != LARGEST and not overlaps(last.box, one.box[None]).any():
            one = None
        last = one or last
        found.append(one)
    return found, last


def _begun(
    networks: FaceNetworks, picture: UInt8[Tensor, "1 height width 3"], face: int
) -> FaceLandmarks | None:
    """The face that is to be followed from a frame on."""
    faces = networks.find_faces(picture, MOST_FACES)[0]
    if face == LARGEST:
        return faces[0] if faces else None
    faces = sorted(faces, key=lambda one: float(one.box[0] + one.box[2]))
    return faces[face - 1] if face <= len(faces) else None


@dataclass(frozen=True)
class _Batch:
    """Frames of one shot.

    Attributes:
        pictures: Consecutive.
        new: Whether a shot begins with them.
    """

    pictures: list[UInt8[np.ndarray, "height width 3"]]
    new: bool = False


def _by_shots(frames: Iterator[UInt8[np.ndarray, "height width 3"]]) -> Iterator[_Batch]:
    """Some frames at a time, never across a cut."""
    batch, usual = _Batch([]), 0.0
    before: Tensor | None = None
    for picture in frames:
        small = thumbnail(picture)
        change = 0.0 if before is None else float((small - before).abs().mean())
        before = small
        cut = change > max(CUT, CUT_RATIO * usual)
        usual = change if usual == 0 else usual + 0.1 * (min(change, CUT) - usual)
        full = len(batch.pictures) >= min(max(BATCH_BYTES // picture.nbytes, 8), 32)
        if batch.pictures and (cut or full):
            yield batch
            batch = _Batch([])
        batch = replace(batch, new=batch.new or cut)
        batch.pictures.append(picture)
    if batch.pictures:
        yield batch


def thumbnail(picture: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "1 1 side side"]:
    """A small grey picture in [0, 1], of every few pixels: to tell cuts."""
    step = max(1, min(picture.shape[:2]) // 128)
    some = torch.from_numpy(picture[::step, ::step, 1].astype(np.float32) / 255)
    return F.adaptive_avg_pool2d(some[None, None], THUMBNAIL_PX)


def mouth_aspect(points: Float[Tensor, "478 3"]) -> float:
    """Mean height of the middle of a mouth's opening over its width."""
    upper, lower = points[UPPER_INNER_LIP], points[LOWER_INNER_LIP]
    width = float((upper[-1] - upper[0]).norm())
    return float((lower[3:8] - upper[3:8]).norm(dim=1).mean()) / max(width, 1.0)


def mouth_score(points: Float[Tensor, "478 3"], frame: UInt8[np.ndarray, "height width 3"]) -> float:
    """How much of the inside of a mouth a frame shows, and how well; 0 for one that is closed.

    Args:
        points: Landmarks, px of the frame.
        frame: RGB.
    """
    across = points[454] - points[234]  # with z: how far the face looks aside
    frontal = float(across[:2].norm() / across.norm().clamp_min(1.0))
    return min(mouth_aspect(points), WIDE) / WIDE * frontal * (0.5 + _brightness(points, frame))


def _brightness(points: Float[Tensor, "478 3"], frame: UInt8[np.ndarray, "height width 3"]) -> float:
    """Brightness of the upper half of the opening, where teeth are, over that of the cheeks; 0 to 1."""
    inner = points[UPPER_INNER_LIP[3:8]] * 0.75 + points[LOWER_INNER_LIP[3:8]] * 0.25
    height, width = frame.shape[:2]

    def seen(where: Tensor) -> float:
        columns = where[:, 0].round().long().clamp(0, width - 1).numpy()
        rows = where[:, 1].round().long().clamp(0, height - 1).numpy()
        return float(frame[rows, columns].mean())

    return min(seen(inner) / max(seen(points[[50, 205, 280, 425]]), 1.0), 1.0)
