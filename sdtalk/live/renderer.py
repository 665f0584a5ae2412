"""Live renderer: pictures of mini on a CPU, of the Gaussians that show, by kernels that finish a frame in one pass.

It differs from `SDTalk.render` by about a quarter of one 8-bit step on average: Gaussians that hardly show are left
out, pixels they would have closed are made opaque, and the painters compute in bfloat16 where the processor has it.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians, posed
from sdtalk.live.shown import shown_gaussians
from sdtalk.model import SDTalk
from sdtalk.options import knows_bfloat16
from sdtalk.rendering.cpu import finishing
from sdtalk.rendering.photo_detail import photo_detail
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.window_renderer import WindowRenderer
from sdtalk.stopwatch import Stopwatch

THIN = 0.1
"""Transmittance below which a pixel is nearly closed by what shows, and is closed by so much more."""


@dataclass(frozen=True)
class LiveHead:
    """A head prepared for many frames.

    Attributes:
        shown: Its Gaussians that show.
        detail: What the photo shows beyond these, see `HeadGaussians.detail`; a fourth channel is unused.
    """

    shown: HeadGaussians
    detail: Float[Tensor, "padded padded 4"]


class LiveRenderer:
    """Renders one head; made anew for every recording, since what shows depends on what happens."""

    def __init__(self, model: SDTalk, head: HeadGaussians, signals: DrivingSignals) -> None:
        """Prepare a head.

        Args:
            model: The model that made the head; one that `suits`.
            head: One person.
            signals: All frames that will be rendered.
        """
        assert isinstance(model.neural_renderer, WindowRenderer)
        self.model, self.head = model, _prepared(model, head, signals)
        self.windows = deepcopy(model.neural_renderer)
        if knows_bfloat16():
            self.windows.to(torch.bfloat16)

    @staticmethod
    def suits(model: SDTalk, device: torch.device) -> bool:
        """Whether a model can be rendered so: with windows, and colours of the photo, on a CPU."""
        config = model.config
        return config.neural_renderer == "windows" and config.prior_colour and device.type == "cpu"

    @torch.inference_mode()
    def pictures(self, part: DrivingSignals, watch: Stopwatch) -> Float[Tensor, "frame 4 height width"]:
        """Render some frames.

        Args:
            part: What happens in them.
            watch: Measures "motion", "rasterising" and "painting".

        Returns:
            Colours, premultiplied by alpha, and alpha.
        """
        head = self.head.shown
        with watch("motion"):
            animated = self.model.animate(head, part.audio_code, part.eyes, part.small_motion)
        size = part.camera.width
        pictures = torch.empty(len(part), 4, size, size)
        with watch("rasterising"):
            for index in range(len(part)):
                camera = part.camera[index : index + 1]
                gaussians = posed(animated.gaussians[index : index + 1], head, camera)
                rasterised = rasterise(gaussians, camera)
                planes = rasterised.features[0].numpy(), rasterised.alpha[0, 0].numpy()
                detail, thin = self.head.detail.numpy(), np.float32(THIN)
                finishing.carry_detail(0, size, *planes, detail, thin, pictures[index].numpy())
        with watch("painting"):
            assert head.photo is not None and animated.mesh is not None
            self.windows.paint(head.photo, animated.mesh, part.camera, pictures)
        return pictures


@torch.inference_mode()
def _prepared(model: SDTalk, head: HeadGaussians, signals: DrivingSignals) -> LiveHead:
    """Leave out what does not show, and see what the photo has beyond the rest."""
    shown = head.only(shown_gaussians(model, head, signals))
    assert shown.photo is not None
    image = shown.photo.image
    margin = (image.shape[-1] - shown.rest.width) // 2
    detail = photo_detail(image, shown.gaussians, shown.rest.window(-margin, -margin, image.shape[-1]))
    rows = torch.cat([detail, torch.zeros_like(detail[:, :1])], dim=1)[0].permute(1, 2, 0).contiguous()
    return LiveHead(shown, rows)


def composed(
    pictures: Float[Tensor, "frame 4 height width"], background: Float[Tensor, "1 3 height width"]
) -> UInt8[np.ndarray, "frame height width 3"]:
    """Pictures over a background, as 8-bit frames."""
    count, _, height, width = pictures.shape
    frames = np.empty((count, height, width, 3), np.uint8)
    for picture, frame in zip(pictures.numpy(), frames, strict=True):
        finishing.compose(0, height, picture, background[0].numpy(), frame)
    return frames
