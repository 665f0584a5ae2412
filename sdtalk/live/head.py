"""Live head: a head prepared for many frames on a CPU, as arrays of the Gaussians that show."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.gaussians import MIN_SCALE
from sdtalk.head import HeadGaussians
from sdtalk.live.asked import asked_gaussians
from sdtalk.live.shown import LEAST_SHOWN, shown_gaussians
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.rendering.cpu import placement
from sdtalk.rendering.cpu.backend import padded_few
from sdtalk.rendering.photo_texture import photo_detail

Geometry = tuple[np.ndarray, ...]
"""Means [N, 3], quats [N, 4], scales [N, 3] and opacities [N] of Gaussians."""


@dataclass(frozen=True)
class LiveHead:
    """A head prepared for many frames. The Gaussians that fields move come first.

    Attributes:
        person: The same with tensors, in its own order.
        asked: Those of them that fields are asked about.
        answers: For each Gaussian that moves, whose answer is its own; None: all are asked.
        geometry: The Gaussians in the photo's state.
        features: Their features, padded for the kernel.
        weights: How far they follow the head's pose [N], their displacement per rise of the brows [N, 3], and how far
            the first take part in facial motion [M].
        rest_offsets: What the fields say of the photo's state, see `GaussianDelta.packed`.
        texture: See `HeadGaussians.texture`, or what these Gaussians' colours miss of it; a fourth channel is unused.
        texture_beside: How far its pixels lie to the lower right of the photo's, whose width is 2.
    """

    person: HeadGaussians
    asked: HeadGaussians
    answers: Int[Tensor, " moved"] | None
    geometry: Geometry
    features: Float[Tensor, "gaussian channel"]
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    rest_offsets: Float[Tensor, "moved 11"]
    texture: Float[Tensor, "padded padded 4"]
    texture_beside: float

    @classmethod
    @torch.inference_mode()
    def of(cls, model: SDTalk, head: HeadGaussians, signals: DrivingSignals, zoom: int = 1) -> "LiveHead":
        """Leave out what does not show in a recording.

        Args:
            model: The model that made the head.
            head: One person, with the photo.
            signals: All frames that will be rendered.
            zoom: 2 for pictures that are rasterised at half the size.
        """
        shown = shown_gaussians(model, head, signals, zoom * LEAST_SHOWN)
        person = head.only(shown)
        assert person.photo is not None and person.brows is not None and person.audio_code is not None
        image, first = person.photo.image, person.completion_canonical.shape[1]
        if person.texture is not None:
            texture, beside = (image, 0.0) if zoom == 1 else _means_of_four(image)
        else:
            seen = image if zoom == 1 else _softened(image)
            texture, beside = photo_detail(seen, person.gaussians, person.photo_camera), 0.0
        moved = person.moved_by_fields
        still = torch.ones(person.head_weight.shape[1], dtype=torch.bool).index_fill(0, moved, False)
        order = torch.cat([moved, still.nonzero()[:, 0]])
        g = person.gaussians.only(order)
        everywhere = torch.ones(first)
        asked, answers = person, None
        if zoom > 1:
            completion = head.completion_canonical.shape[1]
            chosen, answers = asked_gaussians(shown[moved], completion, model.config.plane_size)
            asked = person.only(moved[chosen])
        rest_offsets = model.offsets(asked, person.audio_code, person.eyes).packed[0]
        return cls(
            person=person,
            asked=asked,
            answers=answers,
            geometry=tuple(x[0].contiguous().numpy() for x in (g.means, g.quats, g.scales, g.opacities)),
            features=torch.from_numpy(padded_few(g.features[0])),
            weights=(
                person.head_weight[0, order].numpy(),
                person.brows[0, order].numpy(),
                torch.cat([everywhere, person.support[0]]).numpy(),
            ),
            rest_offsets=rest_offsets if answers is None else rest_offsets[answers],
            texture=torch.cat([texture, torch.zeros_like(texture[:, :1])], 1)[0]
            .permute(1, 2, 0)
            .contiguous(),
            texture_beside=beside,
        )

    def offsets(self, model: SDTalk, part: DrivingSignals) -> Float[Tensor, "frame moved 11"]:
        """What the fields say of some frames."""
        said = model.offsets(self.asked, part.audio_code, part.eyes).packed
        return said if self.answers is None else said[:, self.answers]

    def placed(
        self,
        offsets: Float[Tensor, "moved 11"],
        small: SmallMotion,
        rest_in_head: Float[Tensor, "4 4"],
    ) -> Geometry:
        """The Gaussians in the state and pose of one frame.

        Args:
            offsets: What the fields say of its state.
            small: Brows and breath of this frame.
            rest_in_head: From where the photo has things to the frame's head space, see `head.posed`.
        """
        up = -self.person.rest.rotation[0, 1]
        means, *rest = self.geometry
        placed = np.empty_like(means), *(array.copy() for array in rest)
        placement.place(
            0,
            len(placed[0]),
            (*self.geometry, *self.weights),
            offsets.numpy(),
            self.rest_offsets.numpy(),
            (np.float32(small.brows[0]), (small.breath[0] * up).numpy()),
            rest_in_head.contiguous().numpy(),
            np.float32(MIN_SCALE),
            placed,
        )
        return placed


def _means_of_four(
    image: Float[Tensor, "1 3 height width"],
) -> tuple[Float[Tensor, "1 3 height width"], float]:
    """What pixels of pictures of half the size show, in full, since they look between its pixels; and where it lies."""
    return F.avg_pool2d(F.pad(image, (0, 1, 0, 1), mode="replicate"), 2, 1), 1 / image.shape[-1]


def _softened(image: Float[Tensor, "1 3 height width"]) -> Float[Tensor, "1 3 height width"]:
    """The photo without what pictures of half the size cannot show, where it lies: for models of 0.1."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(padded, 2, 1), 2, 1)
