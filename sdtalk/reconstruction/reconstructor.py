"""Reconstructor: image encoder, visible and completion branch together (paper section 3.1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sdtalk.config import SDTalkConfig
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.completion_branch import CompletionBranch
from sdtalk.reconstruction.image_encoder import ImageEncoder
from sdtalk.reconstruction.layer_prior import LayerPriors, layer_priors
from sdtalk.reconstruction.mesh_raster import fill_outwards
from sdtalk.reconstruction.prior import PlanePrior, plane_prior
from sdtalk.reconstruction.visible_branch import VisibleBranch
from sdtalk.tracking.completion import CompletionTemplate
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.head_track import HeadTrack

PICTURE_CHANNELS = 12 + 1 + 1  # photo folded 2x2, mask, support
MESH_CHANNELS = 1 + 3  # what the mesh's depth adds: offset, canonical position

SURE = 0.95
"""Where the mask is below this, a pixel's colour is mixed with the background's and is not the person's."""


@dataclass(frozen=True)
class StaticHead:
    """A reconstructed person before any motion; Gaussians in the order completion, back layer, front layer.

    Attributes:
        completion: The completion Gaussians; none without a completion branch.
        visible: The two layers of the visible branch.
        completion_canonical: Positions of the completion Gaussians on the canonical face.
        visible_canonical: The same for the visible ones.
        support: How far each visible Gaussian takes part in facial motion, 0 to 1.
        head_weight: How far each Gaussian (completion, then visible) moves with the head, 0 to 1.
        brows: Displacement of each per unit of the brows' rise; None without priors.
    """

    completion: Gaussians
    visible: Gaussians
    completion_canonical: Float[Tensor, "batch completion 3"]
    visible_canonical: Float[Tensor, "batch visible 3"]
    support: Float[Tensor, "batch visible"]
    head_weight: Float[Tensor, "batch gaussian"]
    brows: Float[Tensor, "batch gaussian 3"] | None = None


class Reconstructor(nn.Module):
    """Everything that depends on the portrait alone."""

    def __init__(self, config: SDTalkConfig) -> None:
        super().__init__()
        self.config = c = config
        self.plane_size, self.plane_to_border = c.plane_size, c.plane_to_border
        self.priors, self.picture_px = c.priors, c.backbone_picture_px
        self.encoder = _encoder(c)
        self.visible_branch = VisibleBranch(
            c.local_channels,
            c.feature_channels,
            c.head_width,
            c.head_depth,
            c.priors,
            c.sigmoid_on_columns,
            c.prior_depth,
            c.prior_colour,
        )
        self.completion_branch = _completion_branch(c) if c.completion_branch else None

    def forward(
        self,
        image: Float[Tensor, "batch 3 height width"],
        mask: Float[Tensor, "batch 1 height width"],
        track: HeadTrack,
    ) -> StaticHead:
        """Reconstruct.

        Args:
            image: Portrait crops; with priors without their background (`foreground`).
            mask: Person probability.
            track: The heads in the crops.
        """
        plane = track.camera.lifting_plane(self.plane_size, self.plane_to_border)
        return (self._around_priors if self.priors else self._freely)(image, mask, track, plane)

    def _freely(self, image: Tensor, mask: Tensor, track: HeadTrack, plane: Tensor) -> StaticHead:
        """As in the paper: everything is learned, before black, and the whole person is one rigid head."""
        size = (self.picture_px, self.picture_px)
        picture = F.interpolate(image * mask, size=size, mode="bilinear", antialias=True)
        local, code = self.encoder(picture)
        layers = self.visible_branch(local, plane, track.camera)
        visible = Gaussians.concatenate([layers.back, layers.front])
        completion = visible.none()
        if self.completion_branch is not None:
            completion = self.completion_branch(
                code, track.completion_points, -track.camera.plane_normal, track.completion_rows
            )
        return StaticHead(
            completion=completion,
            visible=visible,
            completion_canonical=completion.means,
            visible_canonical=visible.means,
            support=torch.ones_like(visible.opacities),
            head_weight=torch.ones_like(torch.cat([completion.opacities, visible.opacities], dim=1)),
        )

    def _around_priors(self, image: Tensor, mask: Tensor, track: HeadTrack, plane: Tensor) -> StaticHead:
        """As mini does it: residuals around the photo's pixels on the tracked face."""
        face = FaceModel.bundled().to(image.device)
        c, size = self.config, self.plane_size
        priors = [
            plane_prior(track.camera[i : i + 1], track.mesh[i : i + 1], face, size) for i in range(len(track))
        ]
        if not c.prior_depth:
            priors = [p.flat() for p in priors]
        colours = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True)
        small_mask = F.interpolate(mask, size=(size, size), mode="bilinear", antialias=True)
        local, code = self.encoder(self._picture(image, small_mask, priors))
        around = layer_priors(
            colours, small_mask, plane, track.camera, priors, c.lying_gaussians, c.hair_behind
        )
        if not c.prior_colour:
            around = LayerPriors(around.back.without_colour(), around.front.without_colour())
        layers = self.visible_branch(local, plane, track.camera, around)
        visible = Gaussians.concatenate([layers.back, layers.front])
        completion, completion_canonical = visible.none(), visible.none().means
        if self.completion_branch is not None:
            completion = self.completion_branch.around_priors(
                code,
                track.completion_points,
                track.camera.plane_normal,
                _sample(image, track, track.completion_points),
                _skin_colour(colours, priors),
                c.prior_colour,
            )
            template = CompletionTemplate.bundled().to(image.device)
            completion_canonical = template.place(face.canonical_face[None]).expand(len(track), -1, -1)
        canonical = _flat([p.canonical for p in priors]).repeat(1, 2, 1)
        if not c.canonical_positions:
            completion_canonical, canonical = completion.means.detach(), visible.means.detach()
        weight = _flat([p.head_weight for p in priors])[..., 0]
        if not c.still_shoulders:
            weight = torch.ones_like(weight)
        brows = _flat([p.brows for p in priors])
        return StaticHead(
            completion=completion,
            visible=visible,
            completion_canonical=completion_canonical,
            visible_canonical=canonical,
            support=_flat([p.support for p in priors])[..., 0].repeat(1, 2),
            head_weight=torch.cat([torch.ones_like(completion.opacities), weight, weight], dim=1),
            brows=torch.cat([torch.zeros_like(completion.means), brows, brows], dim=1),
        )

    def _picture(self, image: Tensor, mask: Tensor, priors: list[PlanePrior]) -> Tensor:
        folded = F.pixel_unshuffle(
            F.interpolate(image, size=(2 * self.plane_size,) * 2, mode="bilinear", antialias=True), 2
        )
        known = ("offset", "canonical", "support") if self.config.prior_depth else ("support",)
        maps = [torch.cat([getattr(p, name) for name in known]) for p in priors]
        return torch.cat([folded, mask, torch.stack(maps)], dim=1)


def _completion_branch(config: SDTalkConfig) -> CompletionBranch:
    """The completion branch of a config."""
    c = config
    return CompletionBranch(
        c.template_points,
        c.template_width,
        c.global_width,
        c.feature_channels,
        c.head_width,
        c.priors,
        c.quats_over_points,
    )


def _encoder(config: SDTalkConfig) -> nn.Module:
    """The image encoder a config names."""
    if config.image_encoder == "unet":
        global_width = config.global_width if config.completion_branch else 0  # nothing else looks at it
        channels = PICTURE_CHANNELS + (MESH_CHANNELS if config.prior_depth else 0)
        return ImageEncoder(channels, config.encoder_width, config.local_channels, global_width)
    from sdtalk.reconstruction.dino_encoder import (
        DinoEncoder,
    )  # transformers: slow to import, mini needs it not

    return DinoEncoder(
        config.backbone_width,
        config.backbone_depth,
        config.backbone_heads,
        config.backbone_picture_px,
        config.local_channels,
        config.first_patch_as_global,
    )


def foreground(
    image: Float[Tensor, "batch 3 height width"], mask: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    """The person's own colours, continued outwards: no rim of the old background is carried along.

    Where a pixel shows both, what the colours of person and background around it do not explain is the person's, in
    proportion to the mask (one pass of Forte and Pitie 2021, "Approximate Fast Foreground Colour Estimation").

    Args:
        image: RGB in [0, 1].
        mask: How far a pixel shows the person.
    """
    persons = []
    for picture, share in zip(image, mask, strict=True):
        person = fill_outwards(picture, share[0] > SURE)
        behind = fill_outwards(picture, share[0] < 1 - SURE)
        rest = picture - torch.lerp(behind, person, share)
        persons.append(torch.where(share > SURE, picture, (person + share * rest).clamp(0, 1)))
    return torch.stack(persons)


def _flat(maps: list[Tensor]) -> Float[Tensor, "batch point channel"]:
    return torch.stack(maps).flatten(2).transpose(1, 2)


def _sample(
    image: Float[Tensor, "batch 3 height width"], track: HeadTrack, points: Float[Tensor, "batch point 3"]
) -> Float[Tensor, "batch point 3"]:
    """The photo's colour where head-space points appear."""
    grid = track.camera.project(points) / track.camera.width * 2 - 1
    return F.grid_sample(image, grid[:, :, None], align_corners=False, padding_mode="border")[
        ..., 0
    ].transpose(1, 2)


def _skin_colour(
    colours: Float[Tensor, "batch 3 size size"], priors: list[PlanePrior]
) -> Float[Tensor, "batch 3"]:
    """Mean colour of the face."""
    skin = torch.stack([p.support for p in priors]) > 0.99
    return (colours * skin).sum((2, 3)) / skin.sum((2, 3)).clamp_min(1)
