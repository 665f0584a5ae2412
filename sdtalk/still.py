"""Stills: one frame of a head in the photo's own state, turned as the options say; for previews of a pose."""

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from sdtalk.background import parse_background
from sdtalk.driving import DrivingSignals, camera_path, small_motion, turned_cameras
from sdtalk.framing import Framing
from sdtalk.full_frame import FullFrame
from sdtalk.head import Head
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.stream import render_frames

NEAR = 1.3
"""What is seen around a head of a whole photo, over the side of the crop that the head was made of."""


class StillMaker:
    """Draws one person again and again; what does not depend on the pose is done once."""

    def __init__(self, pipeline: SDTalkPipeline, head: Head) -> None:
        self.pipeline, self.head = pipeline, head
        self._places: dict[str, FullFrame] = {}
        self._scenes: dict[str, Tensor | None] = {}

    def frame(self, options: TalkOptions) -> UInt8[np.ndarray, "height width channel"]:
        """The first frame of a video of a still head, before it speaks.

        Args:
            options: Pose, frame, background, label and mark are followed here.

        Returns:
            RGB, or RGBA with straight alpha where the background is transparent.
        """
        pipeline, person = self.pipeline, self.head.portrait
        camera = camera_path("still", person.track.camera, torch.zeros(1), 0)
        camera = turned_cameras(camera, options.yaw, options.pitch, options.roll)
        small = None
        if pipeline.model.config.priors:
            small = small_motion("still", person.track.camera, camera, torch.zeros(1), 0)
        code = self.head.gaussians.audio_code
        code = pipeline.speech_encoder.silence() if code is None else code.cpu()
        signals = DrivingSignals(code, pipeline.eyes_for_model(person.track.eyes), camera, small)
        (frames,) = render_frames(
            pipeline.model,
            self.head.gaussians,
            signals,
            self._scene(options),
            options.size,
            seed=options.seed,
            exact=True,  # the faster way prepares itself first, which pays for more frames only
            label=options.label,
            place=self._place(options),
            mark=options.mark,
        )
        return frames[0]

    def near_head(self, options: TalkOptions) -> UInt8[np.ndarray, "height width channel"]:
        """As `frame`; of a full frame the part around the head, so that the head is seen in a small picture."""
        frame, place = self.frame(options), self._place(options)
        if place is None:
            return frame
        crop = place.crop
        side = NEAR * crop.side
        left, top = crop.left + (crop.side - side) / 2, crop.top + (crop.side - side) / 2
        height, width = frame.shape[:2]
        columns = slice(max(0, round(left)), min(width, round(left + side)))
        rows = slice(max(0, round(top)), min(height, round(top + side)))
        return np.ascontiguousarray(frame[rows, columns])

    def _scene(self, options: TalkOptions) -> Tensor | None:
        """What stands behind the head alone; the last one is kept."""
        if options.frame == "full":
            return None
        if options.background not in self._scenes:
            background = parse_background(options.background)
            self._scenes = {options.background: self.pipeline.scene(background, self.head.portrait)}
        return self._scenes[options.background]

    def _place(self, options: TalkOptions) -> FullFrame | None:
        if options.frame == "head":
            return None
        if options.shape not in self._places:
            model, head = self.pipeline.model, self.head
            self._places[options.shape] = FullFrame.of(
                model, head.gaussians, head.portrait, Framing.whole(head.portrait, options.shape)
            )
        return self._places[options.shape]
