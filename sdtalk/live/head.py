"""Live head: a head prepared for many frames on a CPU, as arrays of the Gaussians that show."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.driving import DrivingSignals
from sdtalk.gaussians import MIN_SCALE
from sdtalk.head import HeadGaussians
from sdtalk.live.shown import shown_gaussians
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.rendering.cpu import placement
from sdtalk.rendering.cpu.backend import padded_few
from sdtalk.rendering.photo_detail import photo_detail
from sdtalk.rendering.rules import HALF_RATE_RULES, OUR_RULES

Geometry = tuple[np.ndarray, ...]
"""Means [N, 3], quats [N, 4], scales [N, 3] and opacities [N] of Gaussians."""


@dataclass(frozen=True)
class LiveHead:
    """A head prepared for many frames. The Gaussians that fields move come first.

    Attributes:
        person: The same with tensors, in its own order.
        geometry: The Gaussians in the photo's state.
        features: Their features, padded for the kernel.
        weights: How far they follow the head's pose [N], their displacement per rise of the brows [N, 3], and how far
            the first take part in facial motion [M].
        rest_offsets: What the fields say of the photo's state, see `GaussianDelta.packed`.
        detail: What the photo shows beyond these Gaussians, see `HeadGaussians.detail`; a fourth channel is unused.
    """

    person: HeadGaussians
    geometry: Geometry
    features: Float[Tensor, "gaussian channel"]
    weights: tuple[np.ndarray, np.ndarray, np.ndarray]
    rest_offsets: Float[Tensor, "moved 11"]
    detail: Float[Tensor, "padded padded 4"]

    @classmethod
    @torch.inference_mode()
    def of(cls, model: SDTalk, head: HeadGaussians, signals: DrivingSignals, zoom: int = 1) -> "LiveHead":
        """Leave out what does not show in a recording, and see what the photo has beyond the rest.

        Args:
            model: The model that made the head.
            head: One person, with the photo and its detail.
            signals: All frames that will be rendered.
            zoom: 2 for pictures that are rasterised at half the size.
        """
        person = head.only(shown_gaussians(model, head, signals))
        assert person.photo is not None and person.brows is not None and person.audio_code is not None
        image, first = person.photo.image, person.completion_canonical.shape[1]
        margin = (image.shape[-1] - person.rest.width) // 2
        camera = person.rest.window(-margin, -margin, image.shape[-1]).resized(image.shape[-1] // zoom)
        rules = OUR_RULES if zoom == 1 else HALF_RATE_RULES
        detail = photo_detail(F.avg_pool2d(image, zoom), person.gaussians, camera, rules)
        moved = person.moved_by_fields
        still = torch.ones(person.head_weight.shape[1], dtype=torch.bool).index_fill(0, moved, False)
        order = torch.cat([moved, still.nonzero()[:, 0]])
        g = person.gaussians.only(order)
        everywhere = torch.ones(first)
        return cls(
            person=person,
            geometry=tuple(x[0].contiguous().numpy() for x in (g.means, g.quats, g.scales, g.opacities)),
            features=torch.from_numpy(padded_few(g.features[0])),
            weights=(
                person.head_weight[0, order].numpy(),
                person.brows[0, order].numpy(),
                torch.cat([everywhere, person.support[0]]).numpy(),
            ),
            rest_offsets=model.offsets(person, person.audio_code, person.eyes).packed[0],
            detail=torch.cat([detail, torch.zeros_like(detail[:, :1])], 1)[0].permute(1, 2, 0).contiguous(),
        )

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
