"""Loss terms: the weighted losses of a rendered batch, a short method for each name in `LOSS_TERMS` of the settings."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.head import Frame
from sdtalk.published.checkpoint import read_published
from sdtalk.tracking.landmarks68 import landmarks68, lip_box_px
from training.losses import (
    FaceNetworkLoss,
    gradient_loss,
    image_loss,
    lifting_loss,
    lip_points,
    lip_weight,
)
from training.lpips import Lpips
from training.published_losses import Comparison, head_box_px
from training.published_perceptual import FacePerceptualLoss
from training.train_settings import TrainSettings

IMAGE_TERMS = {"image", "rasterised", "box", "lip", "edges", "alpha", "perceptual", "landmarks", "lifting"}
"""Terms that compare pictures, which are computed here; the others need none, see `training.stages`."""


@dataclass(frozen=True)
class RenderedBatch:
    """A rendered batch beside what it should be.

    Attributes:
        frame: What the model made.
        wanted: The real pictures before black.
        mask: The person in them.
        face_px: The tracked mesh in them, px.
        vertices: Tracked vertices that Gaussians should lie on, head space.
        lifted: Centres of Gaussians, head space; the mean over these groups counts.
    """

    frame: Frame
    wanted: Float[Tensor, "batch 3 height width"]
    mask: Float[Tensor, "batch 1 height width"]
    face_px: Float[Tensor, "batch point 2"]
    vertices: Float[Tensor, "batch vertex 3"]
    lifted: list[Tensor]


class LossTerms(nn.Module):
    """Computes the losses that have a weight, and loads no network that none of them needs."""

    def __init__(self, settings: TrainSettings) -> None:
        """Load what is needed.

        Raises:
            InputError: A network that was asked for by name is not on this machine.
        """
        super().__init__()
        self.weights = {name: weight for name, weight in settings.losses.items() if weight > 0}
        self.lip_weight = settings.lip_weight
        self.kind, self.features = _features(settings) if "perceptual" in self.weights else ("none", None)
        uses_face_network = self.kind == "face_mesh" or "landmarks" in self.weights
        self.face_network = FaceNetworkLoss() if uses_face_network else None
        self.requires_grad_(False)

    def forward(self, rendered: RenderedBatch) -> dict[str, Tensor]:
        """Weighted losses by name."""
        size = rendered.wanted.shape[-1]
        weight = lip_weight(lip_points(rendered.face_px), size, self.lip_weight)
        by_face_network = self._face_network_losses(rendered)
        values = {}
        for name in self.weights:
            if name in by_face_network:
                values[name] = by_face_network[name]
            elif name in IMAGE_TERMS:
                values[name] = getattr(self, f"_{name}")(rendered, weight)
        return {name: self.weights[name] * value for name, value in values.items()}

    def _face_network_losses(self, r: RenderedBatch) -> dict[str, Tensor]:
        if self.face_network is None:
            return {}
        perceptual, landmarks = self.face_network(r.frame.colours, r.wanted, r.face_px)
        found = {"landmarks": landmarks}
        return found | {"perceptual": perceptual} if self.kind == "face_mesh" else found

    def _image(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return image_loss(r.frame.colours, r.wanted, weight)

    def _rasterised(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return image_loss(r.frame.rasterised, r.wanted, weight)

    def _edges(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return gradient_loss(r.frame.colours, r.wanted, weight)

    def _alpha(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return (r.frame.alpha - r.mask).abs().mean()

    def _box(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return self._heads(r).mean_of(F.l1_loss)

    def _lip(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return _pictures(r).cropped(lip_box_px(landmarks68(r.face_px))).mean_of(F.l1_loss)

    def _perceptual(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        assert self.features is not None
        features = self.features
        return self._heads(r).mean_of(lambda prediction, target: features(prediction, target).mean())

    def _lifting(self, r: RenderedBatch, weight: Tensor) -> Tensor:
        return torch.stack([lifting_loss(r.vertices, group) for group in r.lifted]).mean()

    @staticmethod
    def _heads(r: RenderedBatch) -> Comparison:
        size = r.wanted.shape[-1]
        low, high = r.face_px.amin(1) / size, r.face_px.amax(1) / size
        boxes = torch.cat([low, high], dim=1).clamp(0, 1)
        return _pictures(r).cropped(head_box_px(boxes, size))


def _features(settings: TrainSettings) -> tuple[str, nn.Module | None]:
    """Which network the perceptual loss looks through, and the network; "auto" takes LPIPS where it is installed.

    Raises:
        InputError: What was asked for by name is not on this machine.
    """
    kind = settings.perceptual
    if kind in ("auto", "lpips") and (lpips := Lpips.installed()) is not None:
        return "lpips", lpips
    if kind == "lpips":
        remedy = "Add them with `sdtalk assets add lpips FILES`, or set perceptual: face_mesh."
        raise InputError("perceptual: lpips", "its weights are not on this machine", remedy)
    if kind == "published":
        network = FacePerceptualLoss()
        network.load_published(read_published(Path(str(settings.perceptual_file))))
        return kind, network
    return "face_mesh", None


def _pictures(r: RenderedBatch) -> Comparison:
    return Comparison(r.frame.rasterised, r.frame.colours, r.wanted)
