"""Live renderer: pictures of mini on a CPU, of the Gaussians that show, by kernels that finish a frame in one pass.

It differs from `SDTalk.render` by a tenth of one 8-bit step on average: Gaussians that hardly show are left
out, pixels they would have closed are made opaque, and the painters compute in bfloat16 where the processor has it.
"""

import threading
from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.devices import knows_bfloat16
from sdtalk.driving import DrivingSignals
from sdtalk.head import Frame, HeadGaussians, moved_mesh, rest_in_head
from sdtalk.live.head import LiveHead
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.reconstruction.activations import SOURCE
from sdtalk.rendering.cpu import finishing
from sdtalk.rendering.cpu.backend import blended, prepared
from sdtalk.rendering.photo_texture import PhotoPlaces, from_shifts
from sdtalk.rendering.rules import HALF_RATE_RULES, OUR_RULES
from sdtalk.rendering.window_renderer import WindowRenderer
from sdtalk.stopwatch import Stopwatch

THIN = 0.1
"""Transmittance below which a pixel is nearly closed by what shows, and is closed by so much more."""


class LiveRenderer:
    """Renders one head; made anew for every recording, since what shows depends on what happens."""

    def __init__(
        self, model: SDTalk, head: HeadGaussians, signals: DrivingSignals, size: int = FRAME_SIZE
    ) -> None:
        """Prepare a head.

        Args:
            model: The model that made the head; one that `frame_maker.has_live_renderer`.
            head: One person.
            signals: All frames that will be rendered.
            size: Side of the finished frames; small ones are rasterised at half the size.
        """
        self.zoom = 2 if size <= FRAME_SIZE // 2 else 1
        assert isinstance(model.neural_renderer, WindowRenderer)
        self.model, self.head = model, LiveHead.of(model, head, signals, self.zoom)
        self.windows = deepcopy(model.neural_renderer)
        if knows_bfloat16():
            self.windows.to(torch.bfloat16)
        self._own = threading.local()

    @torch.inference_mode()
    def pictures(self, part: DrivingSignals, watch: Stopwatch) -> Float[Tensor, "frame 4 height width"]:
        """Render some frames.

        Args:
            part: What happens in them.
            watch: Measures "motion", "rasterising" and "neural rendering".

        Returns:
            Colours, premultiplied by alpha, and alpha, `zoom` times smaller than the camera's. They stay until the same
            thread renders again.
        """
        pictures, mesh = self._unpainted(part, watch)
        self._paint(pictures, mesh, part, watch)
        return pictures

    @torch.inference_mode()
    def moved(self, part: DrivingSignals, watch: Stopwatch) -> Frame:
        """Render some frames, and say where in the photo they come from; arguments as of `pictures`."""
        sources = torch.empty(len(part), 3, part.camera.height, part.camera.width)
        pictures, mesh = self._unpainted(part, watch, sources)
        unpainted = pictures[:, :3].clone()
        self._paint(pictures, mesh, part, watch)
        return Frame(pictures[:, :3], pictures[:, 3:], unpainted, sources, unpainted)

    def _paint(self, pictures: Tensor, mesh: Tensor, part: DrivingSignals, watch: Stopwatch) -> None:
        with watch("neural rendering"):
            assert self.head.person.photo is not None
            self.windows.paint(self.head.person.photo, mesh, part.camera, pictures, zoom=self.zoom)

    def _unpainted(
        self, part: DrivingSignals, watch: Stopwatch, sources: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Pictures before windows are painted, and the moved face meshes; sources are written where they are wanted."""
        person = self.head.person
        small = part.small_motion or SmallMotion.none(len(part))
        cameras = part.camera.resized(part.camera.width // self.zoom)
        rules = OUR_RULES if self.zoom == 1 else HALF_RATE_RULES
        with watch("motion"):
            offsets = self.head.offsets(self.model, part)
            mesh = moved_mesh(person, part.audio_code, part.eyes, part.small_motion)
            rested = rest_in_head(person, part.camera)
        pictures, rasterised, shifted = self._buffers(len(part), cameras.width)
        places = PhotoPlaces.nowhere(len(part))
        if person.texture is not None:
            places = PhotoPlaces.of(cameras, person.photo_camera)
        in_texture = places.moved(-self.head.texture_beside)
        for index, picture in enumerate(pictures):
            with watch("motion"):
                geometry = self.head.placed(offsets[index], small[index : index + 1], rested[index])
            with watch("rasterising"):
                view = prepared(geometry, cameras[index : index + 1], rules)
                place, own = places.of_whole_pixels(index), self.head.features.numpy()
                finishing.shift_sources(0, len(own), own, view.splats, place, shifted.numpy())
                features, alpha = (x.numpy() for x in blended(view, shifted, rasterised))
                texture, thin, rows = self.head.texture.numpy(), np.float32(THIN), len(alpha[0])
                place = in_texture.of_whole_pixels(index)
                finishing.add_texture(0, rows, features, alpha[0], texture, place, thin, picture.numpy())
                if sources is not None:
                    sources[index] = from_shifts(rasterised[0][None, SOURCE], places[index : index + 1])[0]
        return pictures, mesh

    def _buffers(self, frames: int, size: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """What this thread writes to, since fresh memory has to be cleared first.

        Returns:
            Pictures; features and alpha of pixels; features of Gaussians, of which frames change the source.
        """
        buffers = getattr(self._own, "buffers", None)
        if buffers is None or len(buffers[0]) < frames or buffers[0].shape[-1] != size:
            channels = self.head.person.gaussians.features.shape[-1]
            rasterised = torch.empty(channels, size, size), torch.empty(1, size, size)
            pictures = torch.empty(frames, 4, size, size)
            buffers = self._own.buffers = pictures, rasterised, self.head.features.clone()
        return buffers[0][:frames], *buffers[1:]


def composed(
    pictures: Float[Tensor, "frame 4 height width"],
    background: Float[Tensor, "1 3 height width"],
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Pictures over a background, as 8-bit frames."""
    count, _, height, width = pictures.shape
    frames = np.empty((count, height, width, 3), np.uint8)
    for picture, frame in zip(pictures.numpy(), frames, strict=True):
        finishing.compose(0, height, picture, background[0].numpy(), frame)
    return frames
