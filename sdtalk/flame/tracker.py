"""FLAME tracker: tracks heads as the published weights expect them, fitted to landmarks.

The 68 landmarks of the fit come from the bundled networks' mesh, or from face-alignment where it is installed; pupils,
mesh landmarks, crop, eye numbers and the head's mesh always come from the bundled networks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.flame import fan
from sdtalk.flame.fan import FanLandmarks
from sdtalk.flame.file import load_flame
from sdtalk.flame.fit import FlameFit, fit_flame, fit_flame_video
from sdtalk.flame.layer import FlameModel, FlameParameters
from sdtalk.image import Crop
from sdtalk.tracking.camera_fit import landmarks_in_crop
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.found_faces import LARGEST
from sdtalk.tracking.head_track import MESH_POINTS, HeadTrack, Portrait
from sdtalk.tracking.landmarks68 import EYES, LANDMARKS, all_landmarks, eye_numbers_px
from sdtalk.tracking.networks import FaceNetworks
from sdtalk.tracking.smoothing import CRISP_SIGMA, POSITION_SIGMA, fill_gaps, smooth, smooth_track
from sdtalk.tracking.tracker import Tracker, VideoTrack

Landmarks = Literal["auto", "mesh", "face-alignment"]
CHUNK = 64
"""Heads whose 5,023 vertices are held at once."""


@dataclass(frozen=True)
class FlameVideoTrack(VideoTrack):
    """A head through a whole video, as FLAME.

    Attributes:
        flame: FLAME's parameters, one set a frame, all of the same shape.
    """

    flame: FlameParameters


class FlameTracker(Tracker):
    """Finds FLAME heads: the cameras, completion points and eye numbers that the published weights expect."""

    def __init__(
        self,
        networks: FaceNetworks,
        face: FaceModel,
        template: CompletionTemplate,
        flame: FlameModel,
        eyes_in_px: bool = True,
        landmarks: FanLandmarks | None = None,
    ) -> None:
        """Put the tracker together.

        Args:
            networks: Find the landmarks.
            face: The average face, for the first estimate and the smoothing.
            template: Places completion points on the first estimate; FLAME's take their place.
            flame: On the CPU.
            eyes_in_px: Eye states are whole px of the crop in the published order (`landmarks68.eye_numbers_px`);
                else head-space units, in the order of `face_model.eye_state`.
            landmarks: Finds the 68 landmarks that FLAME is fitted to; None: they are taken from the mesh.
        """
        super().__init__(networks, face, template)
        self.flame, self.eyes_in_px, self.landmarks = flame, eyes_in_px, landmarks

    @classmethod
    def from_installed(
        cls,
        device: torch.device | str = "cpu",
        eyes_in_px: bool = True,
        landmarks: Landmarks = "auto",
    ) -> "FlameTracker":
        """Build the tracker from the files of the package and FLAME's, which the user has to install.

        Args:
            device: Of the networks; tracks are on the CPU.
            eyes_in_px: As for the constructor.
            landmarks: Where the 68 of the fit come from; "auto": from face-alignment where both the package and its
                weights are on this machine and FLAME has such landmarks, else from the mesh.

        Raises:
            InputError: FLAME, or face-alignment where it was asked for, is not installed or cannot be used, or a file
                is damaged.
        """
        flame = load_flame()  # first, for it is what may be missing
        of_use = bool((flame.landmark_numbers < LANDMARKS).any())
        if landmarks == "face-alignment" and not of_use:
            problem = "the FLAME on this machine marks none of its 68 landmarks"
            raise InputError(
                landmarks, problem, "Add FLAME again, with the embedding landmark_embedding.npy, too."
            )
        wanted = landmarks == "face-alignment" or (landmarks == "auto" and of_use and fan.installed())
        finder = FanLandmarks.from_installed(device) if wanted else None
        networks, face = FaceNetworks.from_bundled(device), FaceModel.bundled()
        return cls(networks, face, CompletionTemplate.bundled(), flame, eyes_in_px, finder)

    def to(self, device: torch.device | str) -> "FlameTracker":
        """Move the networks; FLAME and tracks stay on the CPU."""
        super().to(device)
        if self.landmarks is not None:
            self.landmarks.to(device)
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
        if self.landmarks is None:
            return super().portrait(picture, name, face)
        portrait = Tracker(self.networks, self.face, self.template).portrait(picture, name, face)
        pictures = torch.from_numpy(np.ascontiguousarray(picture))[None]
        found = self.landmarks.find(pictures, _face_box(portrait))
        track, _ = self._with_flame(portrait.track, fit_flame, _in_crop(found, portrait.crop))
        return replace(portrait, track=track)

    def video(self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], name: str) -> VideoTrack:
        """Track the largest face of the first frame through a video; all frames get the same FLAME shape.

        Args:
            frames: RGB, all of one size, 25 a second.
            name: What to call the video in an error.

        Raises:
            InputError: The video is empty, or its face is out of sight for more than half a second.
        """
        if self.landmarks is None:
            return super().video(frames, name)
        follower = _Follower(self, self.landmarks)
        video = follower.video(frames, name)
        found = fill_gaps(F.pad(torch.cat(follower.found), (0, 1)), name)[..., :2]
        found = _in_crop(found, video.crop)
        steady, crisp = found[:, : EYES.start], found[:, EYES.start :]
        found = torch.cat([smooth(steady, POSITION_SIGMA), smooth(crisp, CRISP_SIGMA)], dim=1)
        track, flame = self._with_flame(video.track, fit_flame_video, found, smoothed=True)
        return FlameVideoTrack(track, video.crop, flame)

    def video_track(self, landmarks_px: Float[Tensor, "frame 478 3"], width: int, height: int) -> VideoTrack:
        """Track a head whose mesh is known in consecutive frames; FLAME is fitted to the mesh.

        Args:
            landmarks_px: Finite, px of the frame as `FaceLandmarks` has them.
            width: Width of the frames in px.
            height: Height of the frames in px.
        """
        video = super().video_track(landmarks_px, width, height)
        track, flame = self._with_flame(video.track, fit_flame_video, smoothed=True)
        return FlameVideoTrack(track, video.crop, flame)

    def head_track(self, landmarks_px: Float[Tensor, "frame 478 3"], crop: Crop) -> HeadTrack:
        """Heads from meshes of single pictures (px of the picture), without smoothing; each has its own shape.

        FLAME is fitted to the mesh, whatever the tracker's landmarks, for which the pictures would be needed.
        """
        return self._with_flame(super().head_track(landmarks_px, crop), fit_flame)[0]

    def _with_flame(
        self,
        track: HeadTrack,
        fitted: Callable[..., FlameFit],
        found: Float[Tensor, "frame 68 2"] | None = None,
        smoothed: bool = False,
    ) -> tuple[HeadTrack, FlameParameters]:
        """Fit FLAME to where landmarks are seen, and move the mesh to the head space this gives.

        Args:
            track: With the mesh.
            fitted: Fits to landmarks.
            found: Landmarks in px of the crop; None: where those of the mesh are seen.
            smoothed: Whether to smooth what the fit gives.
        """
        landmarks_px = all_landmarks(track.camera.project(track.mesh))
        if found is None:
            fit = fitted(landmarks_px, self.flame)
        else:
            targets = torch.cat([found, landmarks_px[:, LANDMARKS:]], dim=1)
            fit = fitted(targets, self.flame, noise_px=fan.NOISE_PX)
        mesh = self._moved_mesh(track, fit)
        camera, parameters = fit.camera, fit.parameters
        if smoothed:  # the landmarks are already, but for what the fit adds
            camera, mesh = smooth_track(camera, mesh, self.face)
            parameters = replace(
                parameters,
                expression=smooth(parameters.expression, CRISP_SIGMA),
                jaw=smooth(parameters.jaw, CRISP_SIGMA),
                eyes=smooth(parameters.eyes, CRISP_SIGMA),
            )
        eyes = eye_numbers_px(landmarks_px, truncated=True) if self.eyes_in_px else eye_state(mesh)
        rows = self.flame.completion_rows
        return HeadTrack(camera, mesh, self._vertices(parameters, rows), eyes, rows), parameters

    def _moved_mesh(self, track: HeadTrack, fit: FlameFit) -> Float[Tensor, "frame 478 3"]:
        """The mesh in the head space of the fitted camera.

        In camera space it is known up to its size (`camera_fit.unproject_landmarks`): the size is chosen that brings
        its landmarks next to FLAME's, and every point stays on its viewing ray.
        """
        cloud = track.camera.to_camera_space(track.mesh)
        found = all_landmarks(cloud)[:, self.flame.landmark_numbers]
        wanted = fit.camera.to_camera_space(fit.landmarks)
        larger = (found * wanted).sum((1, 2)) / found.square().sum((1, 2))
        return fit.camera.to_head_space(cloud * larger[:, None, None])

    def _vertices(
        self, parameters: FlameParameters, rows: Int[Tensor, " row"]
    ) -> Float[Tensor, "frame row 3"]:
        """Some of FLAME's vertices, without ever holding all vertices of a whole video."""
        parts = [
            self.flame.vertices(parameters[first : first + CHUNK])[:, rows]
            for first in range(0, len(parameters), CHUNK)
        ]
        return torch.cat(parts)


class _Follower(Tracker):
    """Tracks one video as `Tracker` does, and finds the 68 landmarks of every frame while it is there."""

    def __init__(self, tracker: Tracker, landmarks: FanLandmarks) -> None:
        super().__init__(tracker.networks, tracker.face, tracker.template)
        self.landmarks = landmarks
        self.found: list[Float[Tensor, "frame 68 2"]] = []

    def _follow(
        self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], frame_bytes: int
    ) -> Float[Tensor, "frame 478 3"]:
        meshes: list[Tensor] = []
        for pictures, faces in self._followed(frames, frame_bytes):
            mesh = torch.full((len(faces), MESH_POINTS, 3), torch.nan)
            found = torch.full((len(faces), LANDMARKS, 2), torch.nan)
            seen = {i: face for i, face in enumerate(faces) if face is not None}
            if seen:
                at = list(seen)
                mesh[at] = torch.stack([face.points for face in seen.values()]).cpu()
                boxes = torch.stack([face.box for face in seen.values()])
                found[at] = self.landmarks.find(pictures[at], boxes)
            meshes.append(mesh)
            self.found.append(found)
        return torch.cat(meshes)


def _face_box(portrait: Portrait) -> Float[Tensor, "1 4"]:
    """The box of the mesh in px of the picture, 0 = centre of the first pixel."""
    crop, track = portrait.crop, portrait.track
    seen = track.camera.project(track.mesh) * (crop.side / track.camera.width)
    seen = seen + seen.new_tensor([crop.left - 0.5, crop.top - 0.5])
    return torch.cat([seen.amin(dim=1), seen.amax(dim=1)], dim=1)


def _in_crop(landmarks_px: Float[Tensor, "frame 68 2"], crop: Crop) -> Float[Tensor, "frame 68 2"]:
    """From px of the picture to px of the 512 px crop."""
    return landmarks_in_crop(F.pad(landmarks_px, (0, 1)), crop)[..., :2]


def tracker_for(config: SDTalkConfig, device: torch.device | str) -> Tracker:
    """The tracker that gives what a model was trained on.

    Raises:
        InputError: It fits FLAME, which is not on this machine.
    """
    if config.template == "flame":
        return FlameTracker.from_installed(device, eyes_in_px=config.eyes_in_px)
    return Tracker.from_bundled(device)
