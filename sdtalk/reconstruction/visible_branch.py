"""Visible branch: dual lifting of the photo's plane to a front and a back layer (paper section 3.1)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import (
    COLOUR_RAW,
    FREE_OFFSET,
    OFFSET_RANGE,
    first_columns,
    free_gaussians,
    free_offset,
    gaussians_from,
    learned_channels,
    lifted_offset,
    raw_channels,
)
from sdtalk.reconstruction.direction import DIRECTION_CODE_WIDTH, direction_code
from sdtalk.reconstruction.layer_prior import LayerPrior, LayerPriors

PHOTO_TRUST = 0.1
"""Share of the learned residual that may change what the photo shows: with all of it, training hides the photo's
detail behind smooth Gaussians (a better L1, a worse picture). What no prior takes from the photo is free."""


LEAST_THICKNESS = 0.05
"""So far the hidden layer stays behind the other, whatever was learned, head-space units: at ears and along the jaw it
came before it, and its guessed colours hid the photo's."""

SHEER_REACH = 3
"""It stays behind all that the other shows so many cells around: where a jaw ends over a neck, what lies behind the jaw
would come before the steep surface between them as the head turns."""

SHOWN = 0.25
"""Opacity of what the photo shows of a person."""


@dataclass(frozen=True)
class VisibleGaussians:
    """Both layers.

    Attributes:
        back: The hidden layer, away from the camera.
        front: The layer the photo shows.
    """

    back: Gaussians
    front: Gaussians


class LayerHead(nn.Module):
    """Local features -> raw channels of one layer: 3x3 convolutions, then a 1x1 one."""

    def __init__(
        self, inputs: int, width: int, depth: int, outputs: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.activation = activation
        self.hidden = nn.Conv2d(inputs, width, 3, padding=1)
        self.deeper = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth - 1))
        self.out = nn.Conv2d(width, outputs, 1)

    def forward(self, local: Float[Tensor, "batch local rows columns"]) -> Float[Tensor, "batch point raw"]:
        """Raw channels in row-major order of the plane."""
        x = self.activation(self.hidden(local))
        for conv in self.deeper:
            x = self.activation(conv(x))
        return self.out(x).flatten(2).transpose(1, 2)


class VisibleBranch(nn.Module):
    """Local features -> the visible Gaussians: residuals around priors (mini), or everything (the paper)."""

    trust: Float[Tensor, " raw"]

    def __init__(
        self,
        local_channels: int,
        feature_channels: int,
        width: int,
        depth: int = 1,
        priors: bool = True,
        sigmoid_on_columns: bool = False,
        prior_depth: bool = True,
        prior_colour: bool = True,
    ) -> None:
        super().__init__()
        self.offset_range = OFFSET_RANGE if prior_depth else FREE_OFFSET
        self.priors, self.sigmoid_on_columns = priors, sigmoid_on_columns
        self.feature_channels = feature_channels
        inputs = local_channels + (0 if priors else DIRECTION_CODE_WIDTH)
        outputs = 1 + raw_channels(feature_channels, priors)
        activation = F.silu if priors else F.relu
        self.front = LayerHead(inputs, width, depth, outputs, activation)
        self.back = LayerHead(inputs, width, depth, outputs, activation)
        if priors:  # start at the priors
            trust = torch.full((outputs,), PHOTO_TRUST)
            trust[-learned_channels(feature_channels) :] = 1.0
            if not prior_depth:
                trust[0] = 1.0
            if not prior_colour:
                trust[1:][COLOUR_RAW] = 1.0
            self.register_buffer("trust", trust, persistent=False)
            for parameter in (*self.front.out.parameters(), *self.back.out.parameters()):
                nn.init.zeros_(parameter)

    def forward(
        self,
        local: Float[Tensor, "batch local rows columns"],
        plane: Float[Tensor, "batch point 3"],
        camera: Camera,
        priors: LayerPriors | None = None,
    ) -> VisibleGaussians:
        """Lift the plane.

        Args:
            local: Features of the image encoder on the plane.
            plane: The lifting plane of each person, row-major.
            camera: The source camera of each person.
            priors: What the layers are before anything is learned; given exactly where the branch wants it.
        """
        assert (priors is not None) == self.priors
        if priors is not None:
            of_front, of_back = self.front(local) * self.trust, self.back(local)
            height = lifted_offset(of_front[..., 0], priors.front.offset, self.offset_range)
            behind = lifted_offset(of_back[..., 0], priors.back.offset, self.offset_range)
            behind = torch.minimum(behind, _lowest_around(height, priors.front) - LEAST_THICKNESS)
            return VisibleGaussians(
                back=self._around(behind, of_back, plane, priors.back),
                front=self._around(height, of_front, plane, priors.front),
            )
        towards = camera.plane_normal
        code = direction_code(-towards)[..., None, None].expand(-1, -1, *local.shape[2:])
        local = torch.cat([local, code], dim=1)
        squashed = None
        if self.sigmoid_on_columns:
            squashed = first_columns(local.shape[2], local.shape[3], self.feature_channels).to(local.device)
        return VisibleGaussians(
            back=self._lifted(self.back(local), plane, -towards, squashed),
            front=self._lifted(self.front(local), plane, towards, squashed),
        )

    @staticmethod
    def _around(
        height: Float[Tensor, "batch point"],
        raw: Float[Tensor, "batch point raw"],
        plane: Float[Tensor, "batch point 3"],
        prior: LayerPrior,
    ) -> Gaussians:
        around = prior.at(height, plane)
        return gaussians_from(plane + prior.rays * height[..., None], raw[..., 1:], around)

    @staticmethod
    def _lifted(
        raw: Float[Tensor, "batch point raw"],
        plane: Float[Tensor, "batch point 3"],
        direction: Float[Tensor, "batch 3"],
        squashed: Bool[Tensor, "point channel"] | None,
    ) -> Gaussians:
        means = plane + free_offset(raw[..., -1:]) * direction[:, None]
        return free_gaussians(means, raw[..., :-1], squashed)


def _lowest_around(height: Float[Tensor, "batch point"], front: LayerPrior) -> Float[Tensor, "batch point"]:
    """The lowest of the heights of the front layer around each cell, of those that show the person."""
    if not front.lying:
        return height
    size = math.isqrt(height.shape[1])
    shown = torch.where(front.gaussians.opacities > SHOWN, height, torch.inf)
    around = 2 * SHEER_REACH + 1
    lowest = -F.max_pool2d(-shown.reshape(-1, 1, size, size), around, stride=1, padding=SHEER_REACH)
    return torch.minimum(lowest.flatten(1), height)
