"""Photo texture: Gaussians that the photo shows are textured with it, wherever they move.

A pixel of a frame looks for its colour at the place in the photo that its Gaussians come from. Blending such places
would give one between the centres of a few Gaussians; what is blended instead is how far each Gaussian lies from where
it comes from, and the pixel looks so far from itself. In the photo's own state nothing has moved, and every pixel finds
itself.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.full_float32 import full_float32
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import LEARNED, RGB, SOURCE
from sdtalk.rendering.device_constants import numbers
from sdtalk.rendering.rasteriser import OnCuda, rasterise
from sdtalk.rendering.rules import OUR_RULES, FeatureImage, RasterRules

MIN_SOURCE_WEIGHT = 0.2
"""Where less of a pixel comes from the photo, its fine detail is not trusted."""

DETAIL_RANGE = 0.5
"""Limit on the photo's fine detail."""


@dataclass(frozen=True)
class PhotoPlaces:
    """Where in the photo the pixels of frames would lie if nothing had moved: scale * position in px + offset.

    Attributes:
        scale: Of x and y; places are in [-1, 1] of the photo with its margin.
        offset: Of x and y; positions have pixel (0, 0) at (0.5, 0.5).
    """

    scale: Float[Tensor, "frame 2"]
    offset: Float[Tensor, "frame 2"]

    @classmethod
    def of(cls, camera: Camera, photo: Camera) -> "PhotoPlaces":
        """Where the photo's camera sees what lies in the same directions.

        Args:
            camera: One view per frame.
            photo: That of the photo with its margin; one, or one per frame.
        """
        size = numbers((float(photo.width), float(photo.height)), camera.intrinsics.device)
        (focal, centre), (wanted_focal, wanted_centre) = map(_lens, (camera, photo))
        scale = 2 * wanted_focal / (focal * size)
        return cls(scale, 2 * wanted_centre / size - 1 - scale * centre)

    @classmethod
    def nowhere(cls, frames: int) -> "PhotoPlaces":
        """All at 0: shifts from there are the places themselves."""
        return cls(torch.zeros(frames, 2), torch.zeros(frames, 2))

    def __getitem__(self, index: slice) -> "PhotoPlaces":
        return PhotoPlaces(self.scale[index], self.offset[index])

    def moved(self, by: float) -> "PhotoPlaces":
        """The same, so far to the lower right."""
        return PhotoPlaces(self.scale, self.offset + by)

    def of_whole_pixels(self, index: int) -> tuple[np.float32, ...]:
        """Scale of x and y, and offsets, of one frame, for positions that have pixel (0, 0) at (0, 0)."""
        offset = self.offset[index] + self.scale[index] / 2
        return tuple(map(np.float32, (*self.scale[index].tolist(), *offset.tolist())))

    def at(self, positions: Float[Tensor, "batch point 2"]) -> Float[Tensor, "frame point 2"]:
        """The places of positions in px."""
        return torch.addcmul(self.offset[:, None], self.scale[:, None], positions)


def _lens(camera: Camera) -> tuple[Float[Tensor, "view 2"], Float[Tensor, "view 2"]]:
    """Focal lengths and centres, x and y, in px."""
    return torch.diagonal(camera.intrinsics, dim1=1, dim2=2)[:, :2], camera.intrinsics[:, :2, 2]


def without_texture(gaussians: Gaussians) -> Gaussians:
    """The same in the colours that the photo does not give them: those that come from it are black."""
    features = gaussians.features
    own = features[..., RGB] * (1 - features[..., SOURCE][..., 2:])
    return replace(gaussians, features=torch.cat([own, features[..., RGB.stop :]], dim=-1))


def rasterise_by_shift(
    gaussians: Gaussians, camera: Camera, photo: Camera, on_cuda: OnCuda = "triton"
) -> FeatureImage:
    """Rasterise, and blend where Gaussians come from as how far they lie from there; see the top of this file.

    Args:
        gaussians: One set per view, with source channels.
        camera: The views.
        photo: The view of the photo with its margin; one, or one per view.
        on_cuda: As of `rasteriser.rasterise`.
    """
    places = PhotoPlaces.of(camera, photo)
    source = gaussians.features[..., SOURCE]
    with full_float32(source.device):
        own = places.at(camera.project(gaussians.means))
    shifts = source[..., :2] - source[..., 2:] * own
    weight_and_learned = gaussians.features[..., SOURCE.stop - 1 :]
    parts = gaussians.features[..., RGB], shifts, weight_and_learned
    picture = rasterise(replace(gaussians, features=torch.cat(parts, dim=-1)), camera, OUR_RULES, on_cuda)
    source = from_shifts(picture.features[:, SOURCE], places)
    parts = picture.features[:, RGB], source, picture.features[:, LEARNED]
    return FeatureImage(torch.cat(parts, dim=1), picture.alpha)


def from_shifts(
    shifts: Float[Tensor, "frame 3 height width"], places: PhotoPlaces
) -> Float[Tensor, "frame 3 height width"]:
    """Where pixels come from, as `activations.SOURCE` says it, of blended shifts (times weight) and weights."""
    height, width = shifts.shape[-2:]
    rows, columns = (torch.arange(n, device=shifts.device) + 0.5 for n in (height, width))
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).reshape(1, -1, 2)
    own = places.at(pixels).transpose(1, 2).reshape(-1, 2, height, width)
    return torch.cat([torch.addcmul(shifts[:, :2], shifts[:, 2:], own), shifts[:, 2:]], dim=1)


def textured(
    source: Float[Tensor, "frame 3 height width"], texture: Float[Tensor, "batch 3 padded padded"]
) -> Float[Tensor, "frame 3 height width"]:
    """The texture at the places that pixels come from, times the weight with which they do.

    Args:
        source: Of pixels, see `activations.SOURCE`.
        texture: The photo with its margin; one, or one per frame.
    """
    weight = source[:, 2:]
    grid = (source[:, :2] / weight.clamp_min(1e-4)).permute(0, 2, 3, 1)
    return F.grid_sample(texture.expand(grid.shape[0], -1, -1, -1), grid, align_corners=False) * weight


@torch.no_grad()
def photo_detail(
    image: Float[Tensor, "batch 3 height width"],
    gaussians: Gaussians,
    camera: Camera,
    rules: RasterRules = OUR_RULES,
    on_cuda: OnCuda = "triton",
) -> Float[Tensor, "batch 3 height width"]:
    """What the Gaussians' own colours miss of the photo from its own camera: the texture of models of 0.1."""
    # the learned channels are not looked at, and would be most of the work
    coloured = replace(gaussians, features=gaussians.features[..., : LEARNED.start])
    picture = rasterise(coloured, camera, rules, on_cuda)
    weight = picture.features[:, SOURCE][:, 2:]
    missing = image * picture.alpha - picture.features[:, RGB]
    trusted = weight > MIN_SOURCE_WEIGHT
    return (missing / weight.clamp_min(MIN_SOURCE_WEIGHT)).clamp(-DETAIL_RANGE, DETAIL_RANGE) * trusted
