"""Completion branch: Gaussians for eyes, lids, lips and mouth, which one photo cannot show (paper section 3.1)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import GaussianPrior, free_gaussians, gaussians_from, raw_channels
from sdtalk.reconstruction.direction import DIRECTION_CODE_WIDTH, direction_code
from sdtalk.reconstruction.surface import identity_quats
from sdtalk.tracking.completion import COMPLETION_PARTS

SIGMA = {"eyeball": 0.01, "lids": 0.008, "lips": 0.008, "teeth": 0.008, "oral_cavity": 0.02}
"""Standard deviations the points start with, head-space units: about the spacing of the points of each part."""

INSET = {"eyeball": 0.03, "lids": 0.03, "lips": 0.02, "teeth": 0.02, "oral_cavity": 0.02}
"""How far the points start behind their place, head-space units: where the photo shows a part, the photo wins."""

PART_OPACITY = 0.9

PART_COLOUR = {
    "upper_teeth": (0.95, 1.0, 1.05),
    "lower_teeth": (0.5, 0.48, 0.5),  # mostly in the shade of the lip
    "oral_cavity": (0.22, 0.12, 0.13),
}
"""Colours relative to the skin's, so in the light of the photo; other parts take the photo's colour where they lie."""

BRIGHTEST_SKIN = 0.8
"""Upper limit of the skin's channels, so that teeth in a bright photo do not glow."""


TRUNK_DEPTH = 4
"""Linear layers before the heads, without priors."""


class CompletionBranch(nn.Module):
    """A learned vector per template point with the global feature -> everything but the position.

    With priors (mini), one head learns residuals around them; without (the paper), a deeper trunk, which also sees
    the direction the picture was taken from, feeds one head an attribute.
    """

    def __init__(
        self,
        points: int,
        template_width: int,
        global_width: int,
        feature_channels: int,
        head_width: int = 0,
        priors: bool = True,
        quats_over_points: bool = False,
    ) -> None:
        super().__init__()
        self.template = nn.Parameter(torch.randn(points, template_width))
        self.priors, self.quats_over_points = priors, quats_over_points
        inputs = template_width + global_width
        if priors:
            self.hidden = nn.Linear(inputs, 2 * template_width)
            self.out = nn.Linear(2 * template_width, raw_channels(feature_channels))
            for parameter in self.out.parameters():
                nn.init.zeros_(parameter)
            self.part_priors = PartPriors(points)
            return
        widths = [inputs, *[template_width] * TRUNK_DEPTH]
        self.trunk = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        attributes = {"features": feature_channels, "opacities": 1, "scales": 3, "quats": 4}
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(template_width + DIRECTION_CODE_WIDTH, head_width),
                    nn.ReLU(),
                    nn.Linear(head_width, channels),
                )
                for name, channels in attributes.items()
            }
        )

    def around_priors(
        self,
        code: Float[Tensor, "batch global"],
        points: Float[Tensor, "batch point 3"],
        normal: Float[Tensor, "batch 3"],
        photo_colours: Float[Tensor, "batch point 3"],
        skin: Float[Tensor, "batch 3"],
        coloured: bool = True,
    ) -> Gaussians:
        """Gaussians at the template points, residuals around priors.

        Args:
            code: Global feature of the image encoder.
            points: Template points on the tracked face, head space.
            normal: Direction towards the camera, head space.
            photo_colours: The photo's colour where each point lies.
            skin: Mean colour of the face.
            coloured: False leaves these colours out of the priors.
        """
        raw = self.out(F.silu(self.hidden(self._inputs(code))))
        prior, means = self.part_priors(points, normal, photo_colours, skin)
        return gaussians_from(means, raw, prior if coloured else prior.without_colour())

    def forward(
        self,
        code: Float[Tensor, "batch global"],
        points: Float[Tensor, "batch point 3"],
        direction: Float[Tensor, "batch 3"],
        rows: Int[Tensor, " point"] | None = None,
    ) -> Gaussians:
        """Gaussians at template points, without priors (paper section 3.1).

        Args:
            code: Global feature of the image encoder.
            points: Template points on the tracked head, head space.
            direction: Where the camera looks, head space.
            rows: Which learned vectors the points belong to; None: all, in order.
        """
        x = self._inputs(code)
        for layer in self.trunk[:-1]:
            x = F.relu(layer(x))
        x = self.trunk[-1](x)
        seen_from = direction_code(direction)[:, None].expand(-1, x.shape[1], -1)
        x = torch.cat([x, seen_from], dim=-1)
        raw = torch.cat([head(x) for head in self.heads.values()], dim=-1)
        # over all learned vectors first: the published way of normalising quaternions depends on them all
        everywhere = free_gaussians(
            raw.new_zeros(*raw.shape[:2], 3), raw, quats_over_points=self.quats_over_points
        )
        chosen = torch.arange(raw.shape[1], device=raw.device) if rows is None else rows
        parts = {
            name: getattr(everywhere, name)[:, chosen]
            for name in ("quats", "scales", "opacities", "features")
        }
        return Gaussians(means=points, **parts)

    def _inputs(self, code: Float[Tensor, "batch global"]) -> Float[Tensor, "batch template inputs"]:
        template = self.template.expand(code.shape[0], -1, -1)
        return torch.cat([template, code[:, None].expand(-1, template.shape[1], -1)], dim=-1)


class PartPriors(nn.Module):
    """What the points of each part of the built-in template are before anything is learned."""

    scales: Float[Tensor, " point"]
    insets: Float[Tensor, " point"]
    tint: Float[Tensor, "point 3"]
    from_photo: Bool[Tensor, " point"]

    def __init__(self, points: int) -> None:
        super().__init__()
        names = ("scales", "insets", "tint", "from_photo")
        for name, values in zip(names, part_priors(points), strict=True):
            self.register_buffer(name, values, persistent=False)

    def forward(
        self,
        points: Float[Tensor, "batch point 3"],
        normal: Float[Tensor, "batch 3"],
        photo_colours: Float[Tensor, "batch point 3"],
        skin: Float[Tensor, "batch 3"],
    ) -> tuple[GaussianPrior, Float[Tensor, "batch point 3"]]:
        """The priors, and the centres; arguments as in `CompletionBranch.around_priors`."""
        batch = points.shape[0]
        light = skin.clamp_max(BRIGHTEST_SKIN)[:, None]
        prior = GaussianPrior(
            quats=identity_quats(points),
            scales=self.scales[None, :, None].expand(batch, -1, 3),
            opacities=torch.full_like(points[..., 0], PART_OPACITY),
            colours=torch.where(self.from_photo[:, None], photo_colours, (self.tint * light).clamp_max(1.0)),
            source=torch.zeros_like(points),
        )
        return prior, points - self.insets[:, None] * normal[:, None]


def part_priors(points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Starting scale, inset, tint relative to the skin, and whether the photo gives the colour, for each point."""
    scales, insets, tint = torch.zeros(points), torch.zeros(points), torch.zeros(points, 3)
    from_photo = torch.ones(points, dtype=torch.bool)
    for part, where in COMPLETION_PARTS.items():
        kind = next(k for k in SIGMA if k in part)
        scales[where], insets[where] = SIGMA[kind], INSET[kind]
        if part in PART_COLOUR:
            tint[where] = torch.tensor(PART_COLOUR[part])
            from_photo[where] = False
    return scales, insets, tint, from_photo
