"""Tracker: pictures and videos to tracked heads."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.errors import InputError
from sdtalk.image import Crop, crop_picture, to_tensor
from sdtalk.tracking.camera_fit import fit_camera, landmarks_in_crop
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.follow import follow_face
from sdtalk.tracking.found_faces import LARGEST, FoundFace, chosen_face, found_faces, largest_face
from sdtalk.tracking.framing import choose_crop
from sdtalk.tracking.head_track import MESH_POINTS, HeadTrack, Portrait
from sdtalk.tracking.matting import doubt, refined_masks
from sdtalk.tracking.networks import FaceLandmarks, FaceNetworks
from sdtalk.tracking.portrait_notes import share_outside
from sdtalk.tracking.smoothing import fill_gaps, smooth_track

LOST_FACE = 0.25
"""Share of the mesh outside of the picture from which there is no head to make: the mouth's corner or the chin is
missing, too."""

LEAST_MASKED = 0.5
"""Where less of the face is in the person's mask (drawings, statues), the mask is of no use."""

MOST_DOUBT = 0.5
"""The same where more of the mask is doubtful (see `matting.doubt`): people have .02 to .25, dogs .9 and more."""

BATCH_BYTES = 64 * 2**20
"""Video frames held at once; within 8 to 32 frames."""


@dataclass(frozen=True)
class VideoTrack:
    """A head through a whole video.

    Attributes:
        track: One entry a frame, smoothed.
        crop: The square the track refers to, the same for all frames.
    """

    track: HeadTrack
    crop: Crop


class Tracker:
    """Finds the head in pictures and videos: networks for the landmarks, geometry for the rest."""

    def __init__(self, networks: FaceNetworks, face: FaceModel, template: CompletionTemplate) -> None:
        self.networks, self.face, self.template = networks, face, template

    @classmethod
    def from_bundled(cls, device: torch.device | str = "cpu") -> "Tracker":
        """Build the tracker from the files of the package; tracks are on the CPU, whatever the device.

        Raises:
            InputError: A file of the package is missing or damaged.
        """
        return cls(FaceNetworks.from_bundled(device), FaceModel.bundled(), CompletionTemplate.bundled())

    def to(self, device: torch.device | str) -> "Tracker":
        """Move the networks; tracks stay on the CPU."""
        self.networks.to(device)
        return self

    def portrait(
        self, picture: UInt8[np.ndarray, "height width 3"], name: str, face: int = LARGEST
    ) -> Portrait:
        """Prepare a picture of a person: crop, mask, head.

        Args:
            picture: RGB.
            name: What to call the picture in an error.
            face: Which of its faces, counted from left to right from 1; 0: the largest.

        Raises:
            InputError: There is no face in the picture, or too little of it, or no face with this number, or it stands
                upside down.
        """
        faces = found_faces(picture, self.networks)
        if not faces:
            remedy = "Use a photo in which one face is large, upright and seen from the front."
            raise InputError(name, "no face was found in this picture", remedy)
        chosen = chosen_face(faces, face, name)
        assert chosen.landmarks is not None
        landmarks = chosen.landmarks.points[None].cpu()
        if share_outside(landmarks, picture.shape[1], picture.shape[0]) > LOST_FACE:
            remedy = "Use a photo that shows the whole face."
            raise InputError(name, "too much of the face lies beyond the border of the picture", remedy)
        crop = choose_crop(landmarks, picture.shape[1], picture.shape[0])
        pixels = crop_picture(picture, crop, FRAME_SIZE)
        skin = _face_pixels(landmarks_in_crop(landmarks, crop), FRAME_SIZE)
        rough, track = self._rough_masks(pixels[None]), self.head_track(landmarks, crop)
        note = _note(faces, chosen, face)
        mask = refined_masks(to_tensor(pixels), rough, skin)
        if float(mask[skin].mean()) < LEAST_MASKED or float(doubt(rough)) > MOST_DOUBT:
            mask, note = torch.ones_like(mask), f"{note} The background could not be separated.".strip()
        return Portrait(to_tensor(pixels), mask, track, crop, note, picture)

    def video(self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], name: str) -> VideoTrack:
        """Track the largest face of the first frame through a video; frames are read once and not kept.

        Args:
            frames: RGB, all of one size, 25 a second.
            name: What to call the video in an error.

        Raises:
            InputError: The video is empty, or its face is out of sight for more than half a second.
        """
        first = next(frames, None)
        if first is None:
            raise InputError(name, "this video has no frames", "Use a video that plays.")
        height, width = first.shape[:2]
        landmarks = fill_gaps(self._follow(chain([first], frames), first.nbytes), name)
        return self.video_track(landmarks, width, height)

    def video_track(self, landmarks_px: Float[Tensor, "frame 478 3"], width: int, height: int) -> VideoTrack:
        """Track a head whose landmarks are known in consecutive frames.

        Args:
            landmarks_px: Finite, px of the frame as `FaceLandmarks` has them.
            width: Width of the frames in px.
            height: Height of the frames in px.
        """
        crop = choose_crop(landmarks_px, width, height)
        camera, mesh = fit_camera(
            landmarks_in_crop(landmarks_px, crop), self.face.mean_face, self.face.pose_weights
        )
        camera, mesh = smooth_track(camera, mesh, self.face)
        return VideoTrack(HeadTrack(camera, mesh, self.template.place(mesh), eye_state(mesh)), crop)

    def head_track(self, landmarks_px: Float[Tensor, "frame 478 3"], crop: Crop) -> HeadTrack:
        """Heads from landmarks of single pictures (px of the picture), without smoothing."""
        in_crop = landmarks_in_crop(landmarks_px, crop)
        camera, mesh = fit_camera(in_crop, self.face.mean_face, self.face.pose_weights)
        return HeadTrack(camera, mesh, self.template.place(mesh), eye_state(mesh))

    def with_margin(
        self, portrait: Portrait, margin_px: int
    ) -> tuple[Float[Tensor, "1 3 side side"], Float[Tensor, "1 1 side side"]]:
        """A portrait's crop and mask with what the photo shows around them.

        Args:
            portrait: One that keeps its photo.
            margin_px: How much on each side, px of the crop; beyond the photo's border it is mirrored.
        """
        assert portrait.picture is not None
        size, crop = portrait.image.shape[-1], portrait.crop
        more, side = margin_px * crop.side / size, size + 2 * margin_px
        wide = Crop(crop.left - more, crop.top - more, crop.side + 2 * more)
        pixels = crop_picture(portrait.picture, wide, side)
        image, mask = to_tensor(pixels), self._rough_masks(pixels[None])
        if bool((portrait.mask == 1).all()):  # it could not be separated
            mask = torch.ones_like(mask)
        inside = slice(margin_px, margin_px + size)
        image[..., inside, inside], mask[..., inside, inside] = portrait.image, portrait.mask
        return image, mask

    def person_masks(
        self, crops: UInt8[np.ndarray, "frame height width 3"]
    ) -> Float[Tensor, "frame 1 height width"]:
        """How far a pixel shows the person, for pictures cropped around a head; exact up to strands of hair.

        The person is who is in the middle of the crop; others behind are background.
        """
        masks = self._rough_masks(crops)
        height, width = masks.shape[-2:]
        middle = torch.zeros_like(masks[:1], dtype=torch.bool)
        middle[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
        # one at a time: what is worked on then stays in the processor's cache
        refined = [refined_masks(to_tensor(c), m[None], middle) for c, m in zip(crops, masks, strict=True)]
        return torch.cat(refined)

    def _rough_masks(
        self, crops: UInt8[np.ndarray, "frame height width 3"]
    ) -> Float[Tensor, "frame 1 height width"]:
        return self.networks.person_mask(torch.from_numpy(np.ascontiguousarray(crops))).cpu()

    def _follow(
        self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], frame_bytes: int
    ) -> Float[Tensor, "frame 478 3"]:
        """Landmarks of one face in every frame, px of the frame; NaN where it is not to be seen."""
        nowhere = torch.full((MESH_POINTS, 3), torch.nan)
        batches = self._followed(frames, frame_bytes)
        return torch.stack([nowhere if f is None else f.points.cpu() for _, faces in batches for f in faces])

    def _followed(
        self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], frame_bytes: int
    ) -> Iterator[tuple[UInt8[Tensor, "frame height width 3"], list[FaceLandmarks | None]]]:
        """Some frames at a time, with the face in each of them."""
        batch = min(max(BATCH_BYTES // frame_bytes, 8), 32)
        last: FaceLandmarks | None = None
        while pictures := list(islice(frames, batch)):
            stacked = torch.from_numpy(np.stack(pictures))
            faces = follow_face(self.networks, stacked, last)
            last = next((face for face in reversed(faces) if face is not None), last)
            yield stacked, faces


def _face_pixels(landmarks_px: Float[Tensor, "1 478 3"], size: int) -> Bool[Tensor, "1 1 {size} {size}"]:
    """The pixels at the landmarks that lie in a crop."""
    column, row = landmarks_px[0, :, :2].long().unbind(1)
    inside = (column >= 0) & (row >= 0) & (column < size) & (row < size)
    face = torch.zeros(1, 1, size, size, dtype=torch.bool)
    face[0, 0, row[inside], column[inside]] = True
    return face


def _note(faces: list[FoundFace], chosen: FoundFace, number: int) -> str:
    """What the user should know of a photo."""
    notes = list(chosen.notes)
    if len(faces) > 1 and number == LARGEST:
        which = f"number {largest_face(faces)} from the left"
        notes.insert(0, f"{len(faces)} faces were found; the largest is used ({which}).")
    return " ".join(notes)
