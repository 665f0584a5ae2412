"""Heads: a person made of Gaussians, and the frames rendered of one; what the model hands over."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.gaussians import GaussianDelta, Gaussians
from sdtalk.motion.face_motion import moved_face
from sdtalk.motion.motion_field import PointCode
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.rendering.window_renderer import PhotoFace
from sdtalk.tracking.head_track import Portrait


@dataclass(frozen=True)
class HeadGaussians:
    """A person, ready to be animated; Gaussians in the order completion, back layer, front layer.

    Attributes:
        gaussians: The head as the photo shows it, in head space.
        completion_canonical: Where the fields see the completion Gaussians: on the canonical face, or where they are.
        visible_canonical: The same for the visible Gaussians that can move.
        fine_code: What the fine field makes of the former; None without a fine field.
        coarse_code: What the coarse field makes of the latter; without a fine field of both, the former first.
        moving: Which visible Gaussians can move in any head of the batch.
        support: How far they take part in facial motion; 0 for those that move in other heads only.
        head_weight: How far every Gaussian follows the head's pose.
        rest: The source camera: the pose in which head and shoulders belong together.
        eyes: The state of the eyes in the photo.
        audio_code: The state of the mouth in the photo; None without priors.
        texture: The photo with its margin, of Gaussians that it shows, whose own colours are black; None where all have
            colours of their own.
        detail: Where Gaussians have colours of their own, what these miss of the photo with its margin; None without
            priors of colour.
        photo: The photo and the face mesh on it; None without a window renderer.
        brows: Displacement of every Gaussian per unit of the brows' rise; None without priors.
        rest_offsets: What the fields say of the photo's own state; None without priors, and while gradients are
            wanted, since fields that learn change their mind.
    """

    gaussians: Gaussians
    completion_canonical: Float[Tensor, "batch completion 3"]
    visible_canonical: Float[Tensor, "batch moving 3"]
    fine_code: PointCode | None
    coarse_code: PointCode
    moving: Tensor
    support: Float[Tensor, "batch moving"]
    head_weight: Float[Tensor, "batch gaussian"]
    rest: Camera
    eyes: Float[Tensor, "batch 6"]
    audio_code: Float[Tensor, "batch audio"] | None = None
    texture: Float[Tensor, "batch 3 padded padded"] | None = None
    detail: Float[Tensor, "batch 3 padded padded"] | None = None
    photo: PhotoFace | None = None
    brows: Float[Tensor, "batch gaussian 3"] | None = None
    rest_offsets: GaussianDelta | None = None

    @property
    def moved_by_fields(self) -> Int[Tensor, " moved"]:
        """Which Gaussians the fields are asked about: those of the completion, then the moving ones."""
        first = self.completion_canonical.shape[1]
        return torch.cat([torch.arange(first, device=self.moving.device), first + self.moving])

    @property
    def photo_camera(self) -> Camera:
        """The source camera with the photo's margin; of heads made with priors of colour."""
        photo = self.detail if self.texture is None else self.texture
        assert photo is not None
        return self.rest.with_margin((photo.shape[-1] - self.rest.width) // 2)

    def only(self, index: Int[Tensor, " kept"]) -> "HeadGaussians":
        """The same person of some of the Gaussians; `index`: which, in ascending order."""
        first = self.completion_canonical.shape[1]
        completion, visible = index[index < first], index[index >= first] - first
        moves = torch.isin(self.moving, visible)
        moving = torch.searchsorted(visible, self.moving[moves])
        moves = moves.nonzero()[:, 0]
        asked = torch.cat([completion, first + moves])  # of what both fields are asked, one after the other
        return replace(
            self,
            gaussians=self.gaussians.only(index),
            completion_canonical=self.completion_canonical[:, completion],
            visible_canonical=self.visible_canonical[:, moves],
            fine_code=None if self.fine_code is None else self.fine_code[completion],
            coarse_code=self.coarse_code[asked if self.fine_code is None else moves],
            moving=moving,
            support=self.support[:, moves],
            head_weight=self.head_weight[:, index],
            brows=None if self.brows is None else self.brows[:, index],
            rest_offsets=None if self.rest_offsets is None else self.rest_offsets.only(asked),
        )


@dataclass(frozen=True)
class AnimatedHead:
    """A head in the state of each frame.

    Attributes:
        gaussians: In head space.
        mesh: The face mesh, for the window renderer; None without one.
    """

    gaussians: Gaussians
    mesh: Float[Tensor, "frame 478 3"] | None = None

    def __getitem__(self, index: slice) -> "AnimatedHead":
        return AnimatedHead(self.gaussians[index], None if self.mesh is None else self.mesh[index])


@dataclass(frozen=True, repr=False)
class Head:
    """A person, made of one photo once, for any number of recordings; from `SDTalkPipeline.reconstruct`.

    Attributes:
        gaussians: What is animated and rendered.
        portrait: The photo's crop, mask and tracked head, on the CPU.
        note: What the user should know (for example that the largest of several faces was taken), or "".

    Examples:
        >>> pipeline.reconstruct("portrait.jpg")
        Head(149,888 Gaussians on cpu)
    """

    gaussians: HeadGaussians
    portrait: Portrait
    note: str = ""

    def __repr__(self) -> str:
        means = self.gaussians.gaussians.means
        return f"Head({means.shape[1]:,} Gaussians on {means.device})"


@dataclass(frozen=True)
class Frame:
    """A rendered batch.

    Attributes:
        colours: RGB premultiplied by alpha, about [0, 1].
        alpha: How far a pixel shows the person.
        rasterised: The colours before the neural renderer (training supervises both).
        source: Where in the photo a pixel comes from, see `activations.SOURCE`; None without priors of colour, and in
            training.
        unpainted: The colours before windows were painted; None without windows, and in training.
    """

    colours: Float[Tensor, "batch 3 height width"]
    alpha: Float[Tensor, "batch 1 height width"]
    rasterised: Float[Tensor, "batch 3 height width"]
    source: Float[Tensor, "batch 3 height width"] | None = None
    unpainted: Float[Tensor, "batch 3 height width"] | None = None

    def over(self, background: Float[Tensor, "one 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        """Composite over a background, clamped to [0, 1]."""
        return (self.colours + (1 - self.alpha) * background).clamp(0, 1)

    def rgba(self) -> Float[Tensor, "batch 4 height width"]:
        """The person alone: premultiplied colours and alpha, clamped to [0, 1]."""
        return torch.cat([self.colours, self.alpha], dim=1).clamp(0, 1)


def scattered(moved: GaussianDelta, head: HeadGaussians) -> GaussianDelta:
    """Offsets of all Gaussians of a head, from those of its completion and its moving ones: zero elsewhere."""
    count, index = head.gaussians.means.shape[1], head.moved_by_fields
    parts = {}
    for name in ("means", "quats", "scales", "opacities"):
        offsets = getattr(moved, name)
        still = offsets.new_zeros(len(offsets), count, *offsets.shape[2:])
        parts[name] = still.index_copy(1, index, offsets)
    return GaussianDelta(**parts)


def small_shift(head: HeadGaussians, small: SmallMotion) -> Float[Tensor, "frame gaussian 3"]:
    """Shift of every Gaussian of a head made with priors: brows rise, and what does not follow the head breathes.

    Args:
        head: The person; one, or one a frame.
        small: Small motion of each frame.
    """
    assert head.brows is not None
    up = -head.rest.rotation[:, None, 1]  # in the photo, where `posed` leaves the shoulders
    shoulders = (1 - head.head_weight)[..., None] * up
    return small.brows[:, None, None] * head.brows + small.breath[:, None, None] * shoulders


def moved_mesh(
    head: HeadGaussians,
    audio_code: Float[Tensor, "frame 5"],
    eyes: Float[Tensor, "frame 6"],
    small: SmallMotion | None = None,
) -> Float[Tensor, "frame 478 3"]:
    """The face mesh of a head with a window renderer in the state of each frame, head space.

    Args:
        head: The person; one, or one a frame.
        audio_code: State of the mouth.
        eyes: State of the eyes.
        small: Gaze and brows; None: as in the photo.
    """
    assert head.photo is not None and head.audio_code is not None
    gaze, brows = (None, None) if small is None else (small.both_eyes, small.brows)
    return moved_face(head.photo.mesh, audio_code - head.audio_code, eyes - head.eyes, gaze, brows)


def rest_in_head(head: HeadGaussians, camera: Camera) -> Float[Tensor, "frame 4 4"]:
    """From the head space of the photo's pose to that of each frame's: where what stays at rest is seen from there."""
    # "ex": no check that a GPU would have to be waited for; rigid transforms have inverses
    return torch.linalg.inv_ex(camera.world_to_camera).inverse @ head.rest.world_to_camera


def posed(gaussians: Gaussians, head: HeadGaussians, camera: Camera) -> Gaussians:
    """Let shoulders stay where the photo has them while the head turns (linear blend of the two poses).

    Shoulder Gaussians keep their orientation: they are nearly round, and heads turn by little.
    """
    to_rest = rest_in_head(head, camera)
    rested = gaussians.means @ to_rest[:, :3, :3].transpose(1, 2) + to_rest[:, None, :3, 3]
    return replace(gaussians, means=torch.lerp(rested, gaussians.means, head.head_weight[..., None]))
