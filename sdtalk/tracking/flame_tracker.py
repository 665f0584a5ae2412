"""Tracking for the published weights: heads are FLAME's, fitted to the landmarks of the bundled networks."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.image import Crop
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel, eye_state
from sdtalk.tracking.flame import FlameModel, FlameParameters
from sdtalk.tracking.flame_file import load_flame
from sdtalk.tracking.flame_fit import FlameFit, fit_flame, fit_flame_video
from sdtalk.tracking.head_track import HeadTrack
from sdtalk.tracking.landmarks68 import eye_numbers_px, landmarks70
from sdtalk.tracking.networks import FaceNetworks
from sdtalk.tracking.smoothing import CRISP_SIGMA, smooth, smooth_track
from sdtalk.tracking.tracker import Tracker, VideoTrack

CHUNK = 64
"""Heads whose 5,023 vertices are held at once."""


class FlameTracker(Tracker):
    """Finds FLAME heads: the cameras, completion points and eye numbers that the published weights expect."""

    def __init__(
        self,
        networks: FaceNetworks,
        face: FaceModel,
        template: CompletionTemplate,
        flame: FlameModel,
        eyes_in_px: bool = True,
    ) -> None:
        """Put the tracker together.

        Args:
            networks: Find the landmarks.
            face: The average face, for the first estimate and the smoothing.
            template: Places completion points on the first estimate; FLAME's take their place.
            flame: On the CPU.
            eyes_in_px: Eye states are whole px of the crop in the published order (`landmarks68.eye_numbers_px`);
                else head-space units, in the order of `face_model.eye_state`.
        """
        super().__init__(networks, face, template)
        self.flame, self.eyes_in_px = flame, eyes_in_px

    @classmethod
    def from_installed(cls, device: torch.device | str = "cpu", eyes_in_px: bool = True) -> "FlameTracker":
        """Build the tracker from the files of the package and FLAME's, which the user has to install.

        Args:
            device: Of the networks; tracks are on the CPU.
            eyes_in_px: As for the constructor.

        Raises:
            InputError: FLAME is not installed, or a file is damaged.
        """
        flame = load_flame()  # first, for it is what may be missing
        networks, face = FaceNetworks.from_bundled(device), FaceModel.bundled()
        return cls(networks, face, CompletionTemplate.bundled(), flame, eyes_in_px)

    def video(self, frames: Iterator[UInt8[np.ndarray, "height width 3"]], name: str) -> VideoTrack:
        """Track the largest face of the first frame through a video; all frames get the same FLAME shape.

        Args:
            frames: RGB, all of one size, 25 a second.
            name: What to call the video in an error.

        Raises:
            InputError: The video is empty, or its face is out of sight for more than half a second.
        """
        video = super().video(frames, name)
        return VideoTrack(self._with_flame(video.track, fit_flame_video, smoothed=True), video.crop)

    def head_track(self, landmarks_px: Float[Tensor, "frame 478 3"], crop: Crop) -> HeadTrack:
        """Heads from landmarks of single pictures (px of the picture), without smoothing; each has its own shape."""
        return self._with_flame(super().head_track(landmarks_px, crop), fit_flame)

    def _with_flame(
        self, track: HeadTrack, fitted: Callable[[Tensor, FlameModel], FlameFit], smoothed: bool = False
    ) -> HeadTrack:
        """Fit FLAME to where the points of a mesh are seen, and move the mesh to the head space this gives."""
        landmarks_px = landmarks70(track.camera.project(track.mesh))
        fit = fitted(landmarks_px, self.flame)
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
        return HeadTrack(camera, mesh, self._vertices(parameters, rows), eyes, rows)

    def _moved_mesh(self, track: HeadTrack, fit: FlameFit) -> Float[Tensor, "frame 478 3"]:
        """The mesh in the head space of the fitted camera.

        In camera space it is known up to its size (`camera_fit.unproject_landmarks`): the size is chosen that brings
        its landmarks next to FLAME's, and every point stays on its viewing ray.
        """
        cloud = track.camera.to_camera_space(track.mesh)
        found = landmarks70(cloud)[:, self.flame.landmark_numbers]
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
