"""Photo detail: what rasterised Gaussians miss of the photo, and how it is carried into later frames."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import LEARNED, RGB, SOURCE
from sdtalk.rendering.rasteriser import OnCuda, rasterise
from sdtalk.rendering.rules import OUR_RULES, RasterRules

MIN_SOURCE_WEIGHT = 0.2
"""Where less of a pixel comes from the photo, the photo's fine detail is not trusted."""

DETAIL_RANGE = 0.5
"""Limit on the fine detail carried from the photo."""


@torch.no_grad()
def photo_detail(
    image: Float[Tensor, "batch 3 height width"],
    gaussians: Gaussians,
    camera: Camera,
    rules: RasterRules = OUR_RULES,
    on_cuda: OnCuda = "triton",
) -> Float[Tensor, "batch 3 height width"]:
    """What the Gaussians miss of the photo from its own camera; carried along by every later frame."""
    # the learned channels are not looked at, and would be most of the work
    coloured = replace(gaussians, features=gaussians.features[..., : LEARNED.start])
    picture = rasterise(coloured, camera, rules, on_cuda)
    weight = picture.features[:, SOURCE][:, 2:]
    missing = image * picture.alpha - picture.features[:, RGB]
    trusted = weight > MIN_SOURCE_WEIGHT
    return (missing / weight.clamp_min(MIN_SOURCE_WEIGHT)).clamp(-DETAIL_RANGE, DETAIL_RANGE) * trusted


def carried_detail(
    source: Float[Tensor, "frame 3 height width"], detail: Float[Tensor, "batch 3 padded padded"]
) -> Float[Tensor, "frame 3 height width"]:
    """The photo's fine detail at the positions the rasterised Gaussians come from."""
    weight = source[:, 2:]
    grid = (source[:, :2] / weight.clamp_min(1e-4)).permute(0, 2, 3, 1)
    carried = F.grid_sample(detail.expand(grid.shape[0], -1, -1, -1), grid, align_corners=False)
    return carried * weight
