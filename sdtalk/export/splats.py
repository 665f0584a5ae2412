"""Splats: a head's Gaussians for other programs: those that show, with plain colours, in the axes they expect.

Axes: those of the photo's camera, x right, y down, z away from the camera, around the head-space origin; what COLMAP,
the original 3D Gaussian Splatting and gsplat use, and what viewers of their files expect: gsplat.js shows y down, and
SuperSplat turns a .ply by 180 degrees around z when it opens one. Length: head-space units of 0.2 m, in which a head is
about as large as viewers of scenes begin with.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.head import HeadGaussians
from sdtalk.reconstruction.activations import RGB, SOURCE
from sdtalk.reconstruction.surface import quat_product, quats_of
from sdtalk.rendering.cpu.backend import contributions
from sdtalk.rendering.photo_texture import photo_detail, textured
from sdtalk.rendering.reference import rotation_matrices
from sdtalk.rendering.rules import HALF_RATE_RULES

YAWS, PITCHES = (-60.0, -30.0, 0.0, 30.0, 60.0), (-20.0, 0.0, 20.0)
"""From where a viewer may look, in degrees from the photo's camera; further round a head of one photo falls apart."""

LEAST_SHOWN = 0.02
"""Gaussians that contribute less to every view of half the size are left out; in px, front ones contribute 0.9.

Of the example's 149,888 this leaves 78,494, which from these sides show the same to 57 dB.
"""

UNIT_LENGTH = 1e-3
"""A quaternion whose length is off by more than this shears what it should turn (the published code's may)."""


@dataclass(frozen=True)
class Splats:
    """Gaussians that a viewer can draw.

    Attributes:
        means: Centres, in units of 0.2 m; see the module for the axes.
        quats: Rotations wxyz, unit length.
        scales: Standard deviations along the rotated axes, > 0.
        opacities: In [0, 1].
        colours: RGB in [0, 1], the same from every side.
        head_weight: How far each follows the head's pose; shoulders stay.
        eye: Where the photo's camera is; it looks along +z.
        focal: Its focal length, in heights of the photo's crop.
        kept: Which of the head's Gaussians these are, ascending.
        left_out: How many of the head's Gaussians are not among them.
    """

    means: Float[np.ndarray, "splat 3"]
    quats: Float[np.ndarray, "splat 4"]
    scales: Float[np.ndarray, "splat 3"]
    opacities: Float[np.ndarray, " splat"]
    colours: Float[np.ndarray, "splat 3"]
    head_weight: Float[np.ndarray, " splat"]
    eye: Float[np.ndarray, " 3"]
    focal: float
    kept: Int[np.ndarray, " splat"]
    left_out: int

    def __len__(self) -> int:
        return len(self.means)

    def ordered(self, order: Int[np.ndarray, " splat"]) -> "Splats":
        """The same splats in another order; `kept` is ascending no more."""
        names = ("means", "quats", "scales", "opacities", "colours", "head_weight", "kept")
        return replace(self, **{name: getattr(self, name)[order] for name in names})


@torch.no_grad()
def splats_of(head: HeadGaussians, also: Int[Tensor, " more"] | None = None) -> Splats:
    """The splats of a head in the photo's own state.

    Args:
        head: One person.
        also: Indices of Gaussians that show in other states; within the photo, on the CPU.
    """
    gaussians, rest = head.gaussians.to("cpu"), head.rest.to("cpu")
    inside = within_photo(gaussians, rest)  # others must not hide what they will not cover
    kept = inside[shown_from_around(gaussians.only(inside), rest) > LEAST_SHOWN]
    if also is not None:
        kept = torch.unique(torch.cat([kept, also]))
    count = gaussians.means.shape[1]
    colours = plain_colours(head)[kept]
    g = gaussians.only(kept)
    turn = rest.rotation[0]
    quats, scales = with_unit_length(g.quats[0], g.scales[0])
    return Splats(
        means=(g.means[0] @ turn.T).numpy(),
        quats=F.normalize(quat_product(quats_of(turn).expand_as(quats), quats), dim=-1).numpy(),
        scales=scales.numpy(),
        opacities=g.opacities[0].clamp(0, 1).numpy(),
        colours=colours.numpy(),
        head_weight=head.head_weight.to("cpu")[0, kept].numpy(),
        eye=-rest.translation[0].numpy(),
        focal=float(rest.intrinsics[0, 1, 1]) / rest.height,
        kept=kept.numpy(),
        left_out=count - len(kept),
    )


def within_photo(gaussians: Gaussians, camera: Camera) -> Int[Tensor, " inside"]:
    """Indices of the Gaussians within the photo's crop: beyond it they are its mirror image, outside of every frame.

    Args:
        gaussians: One set.
        camera: The photo's.
    """
    place = camera.project(gaussians.means)[0] / gaussians.means.new_tensor([camera.width, camera.height])
    return ((place >= 0) & (place <= 1)).all(-1).nonzero()[:, 0]


def shown_from_around(gaussians: Gaussians, camera: Camera) -> Float[Tensor, " gaussian"]:
    """The most that each Gaussian contributes to any of the views that a viewer may take.

    Args:
        gaussians: One set, on the CPU.
        camera: In front of them.
    """
    views = [turned(camera, yaw, pitch) for yaw in YAWS for pitch in PITCHES]
    half = camera.width // 2
    seen = [contributions(gaussians, view.resized(half), HALF_RATE_RULES) for view in views]
    return torch.stack(seen).amax(0)


def turned(camera: Camera, yaw: float, pitch: float) -> Camera:
    """The view of one camera once the head was turned before it.

    Args:
        camera: Looks at the head-space origin.
        yaw: Degrees to the right, as seen.
        pitch: Degrees down, as seen.
    """
    y, p = np.radians(yaw), np.radians(pitch)
    across = [[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]
    down = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    world_to_camera = camera.world_to_camera.clone()
    turn = world_to_camera.new_tensor(np.array(down) @ np.array(across))
    world_to_camera[:, :3, :3] = turn @ camera.rotation
    return replace(camera, world_to_camera=world_to_camera)


def plain_colours(head: HeadGaussians) -> Float[Tensor, "gaussian 3"]:
    """RGB of each Gaussian on the CPU: its own, what the photo has where it comes from, and what these then miss of it.

    Without the last the example's own view is 28.3 dB from the photo, with it 31.2 dB.

    Args:
        head: One person.
    """
    gaussians = head.gaussians.to("cpu")
    rgb, detail = gaussians.features[0, :, RGB], head.detail
    if head.texture is not None:
        image = head.texture.to("cpu")
        rgb = rgb + _where_they_come_from(gaussians, image)
        coloured = replace(
            gaussians, features=torch.cat([rgb[None], gaussians.features[..., RGB.stop :]], -1)
        )
        detail = photo_detail(image, coloured, head.photo_camera.to("cpu"))
    if detail is not None:
        rgb = rgb + _where_they_come_from(gaussians, detail.to("cpu"))
    return rgb.clamp(0, 1)


def _where_they_come_from(
    gaussians: Gaussians, image: Float[Tensor, "1 3 padded padded"]
) -> Float[Tensor, "gaussian 3"]:
    """An image at the places of the photo that Gaussians come from, times the weight with which they do."""
    source = gaussians.features[0, :, SOURCE]
    return textured(source.T[None, :, :, None], image)[0, :, :, 0].T


def with_unit_length(
    quats: Float[Tensor, "gaussian 4"], scales: Float[Tensor, "gaussian 3"]
) -> tuple[Float[Tensor, "gaussian 4"], Float[Tensor, "gaussian 3"]]:
    """Rotations and scales of the ellipsoids that the rasteriser draws for quaternions as they are.

    Args:
        quats: wxyz, of any length but 0.
        scales: Standard deviations; only their squares count.
    """
    sheared = ((quats.norm(dim=-1) - 1).abs() > UNIT_LENGTH).nonzero()[:, 0]
    quats, scales = F.normalize(quats, dim=-1) if not len(sheared) else quats.clone(), scales.abs().clone()
    if len(sheared):
        axes, lengths, _ = torch.linalg.svd(rotation_matrices(quats[sheared]) * scales[sheared][:, None, :])
        axes[:, :, 2] *= torch.linalg.det(axes)[:, None]  # a rotation rather than a reflection
        quats[sheared], scales[sheared] = quats_of(axes), lengths
        quats = F.normalize(quats, dim=-1)
    return quats, scales.clamp_min(1e-7)
