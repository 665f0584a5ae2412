"""The completion branch: Gaussians for what one photo cannot show (paper section 3.1): eyes, lids, lips, mouth."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import GaussianPrior, gaussians_from, raw_channels
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


class CompletionBranch(nn.Module):
    """A learned vector per template point with the global feature -> everything but the position."""

    scales: Float[Tensor, " point"]
    insets: Float[Tensor, " point"]
    tint: Float[Tensor, "point 3"]
    from_photo: Bool[Tensor, " point"]

    def __init__(self, points: int, template_width: int, global_width: int, feature_channels: int) -> None:
        super().__init__()
        self.template = nn.Parameter(torch.randn(points, template_width))
        self.hidden = nn.Linear(template_width + global_width, 2 * template_width)
        self.out = nn.Linear(2 * template_width, raw_channels(feature_channels))
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)
        scales, insets, tint, from_photo = part_priors(points)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("insets", insets, persistent=False)
        self.register_buffer("tint", tint, persistent=False)
        self.register_buffer("from_photo", from_photo, persistent=False)

    def forward(
        self,
        code: Float[Tensor, "batch global"],
        points: Float[Tensor, "batch point 3"],
        normal: Float[Tensor, "batch 3"],
        photo_colours: Float[Tensor, "batch point 3"],
        skin: Float[Tensor, "batch 3"],
    ) -> Gaussians:
        """Gaussians at the template points.

        Args:
            code: Global feature of the image encoder.
            points: Template points on the tracked face, head space.
            normal: Direction towards the camera, head space.
            photo_colours: The photo's colour where each point lies.
            skin: Mean colour of the face.
        """
        batch = points.shape[0]
        template = self.template.expand(batch, -1, -1)
        inputs = torch.cat([template, code[:, None].expand(-1, template.shape[1], -1)], dim=-1)
        raw = self.out(F.silu(self.hidden(inputs)))
        light = skin.clamp_max(BRIGHTEST_SKIN)[:, None]
        prior = GaussianPrior(
            means=points - self.insets[:, None] * normal[:, None],
            scales=self.scales[None, :, None].expand(batch, -1, 3),
            opacities=torch.full_like(points[..., 0], PART_OPACITY),
            colours=torch.where(self.from_photo[:, None], photo_colours, (self.tint * light).clamp_max(1.0)),
            source=torch.zeros_like(points),
        )
        return gaussians_from(raw, prior)


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
