"""Full frames: a moved head back in its photo, at the photo's own resolution; what stands still is the photo."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.background import without_person
from sdtalk.framing import Framing
from sdtalk.head import AnimatedHead, Frame, HeadGaussians
from sdtalk.image import Crop, crop_picture, to_tensor
from sdtalk.model import SDTalk
from sdtalk.smoothstep import smoothly
from sdtalk.tracking.head_track import Portrait

LARGEST_BEHIND = 1024
"""Largest side of what stands behind the person in the crop, px; it is seen in narrow strips."""

SURE = 0.2
"""Where less of a pixel comes from the photo, it is not known from where."""

STILL_PX, MOVED_PX = 0.1, 0.4
"""A pixel that comes from so near is the photo's own; from so far on it is the head's. px of the crop."""

SAME, OTHER = 2 / 255, 6 / 255
"""The same for colours that differ from those of the head in the photo's own state."""

BORDER = 1 / 20
"""Towards a border of the crop within the photo all becomes the photo again, over this share of the crop's side."""


@dataclass(frozen=True)
class FullFrame:
    """A photo, and where in it a head is replaced by a moved one. On the head's device.

    Attributes:
        photo: What is shown where nothing moved.
        crop: The square that the head was made of, in px of the photo.
        box: Left, top, right, bottom (the last two exclusive) of the part of the photo in it, whole px.
        fine: What the photo shows in the box beyond the crop's resolution, RGB.
        behind: The crop without the person, RGB in [0, 1].
        coarse_behind: The same as large as the head's frames.
        own_colours: The head in the photo's own state over it.
        own_places: Where in the crop the head's pixels come from then, px.
        kept: How far the crop may change at all: 0 at its borders within the photo.
        elsewhere: Whether the person stands before another background: then nothing stays as the photo is.
        reach: Half the side of the photo with its margin that the head's pixels say they come from, px of the crop.
    """

    photo: UInt8[Tensor, "height width 3"]
    crop: Crop
    box: tuple[int, int, int, int]
    fine: Float[Tensor, "1 3 rows columns"]
    behind: Float[Tensor, "1 3 side side"]
    coarse_behind: Float[Tensor, "1 3 size size"]
    own_colours: Float[Tensor, "1 3 size size"]
    own_places: Float[Tensor, "1 2 size size"]
    kept: Float[Tensor, "1 1 size size"]
    elsewhere: bool
    reach: float

    @classmethod
    @torch.inference_mode()
    def of(
        cls,
        model: SDTalk,
        head: HeadGaussians,
        portrait: Portrait,
        framing: Framing,
    ) -> "FullFrame":
        """Prepare pasting.

        Args:
            model: The model that made the head.
            head: One person.
            portrait: The photo's crop, and its mask.
            framing: What is shown.
        """
        photo, crop, where = framing.photo, framing.crop, head.eyes.device
        height, width = photo.shape[:2]
        image = portrait.image.to(where)
        size, side = image.shape[-1], min(round(crop.side), LARGEST_BEHIND)
        if framing.scene is None:
            mask = F.interpolate(portrait.mask.cpu(), (side, side), mode="bilinear", align_corners=False)
            behind = without_person(to_tensor(crop_picture(photo, crop, side)), mask).to(where)
        else:
            behind = framing.scene.to(where)
        coarse = F.interpolate(behind, (size, size), mode="bilinear", align_corners=False, antialias=True)
        own, reach = own_state(model, head), size / 2 + model.config.margin_px
        box = box_of(crop, width, height)
        left, top, right, bottom = box
        pixels = torch.from_numpy(np.ascontiguousarray(photo)).to(where)
        there = pixels[top:bottom, left:right].permute(2, 0, 1)[None] / 255
        return cls(
            photo=pixels,
            crop=crop,
            box=box,
            fine=there - sampled_at(image, *in_crop(box, crop, size, where)),
            behind=behind,
            coarse_behind=coarse,
            own_colours=own.over(coarse),
            own_places=places(own, reach),
            kept=kept(crop, width, height, size).to(where),
            elsewhere=framing.scene is not None,
            reach=reach,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in px."""
        return self.photo.shape[1], self.photo.shape[0]

    def changes(self, moved: Frame) -> Float[Tensor, "frame 8 size size"]:
        """What is pasted, at the crop's resolution.

        Args:
            moved: The head in the state of each frame.

        Returns:
            Colours, premultiplied, and alpha; how far a pixel has come, px of the photo, x and y; how far the photo's
            fine detail belongs to it; and how far it is the head's instead of the photo's own.
        """
        size = moved.alpha.shape[-1]
        shift = (places(moved, self.reach) - self.own_places) * self.kept
        over = moved.over(self.coarse_behind)
        other = smoothly((over - self.own_colours).abs().amax(1, keepdim=True), SAME, OTHER)
        distance = torch.hypot(shift[:, :1], shift[:, 1:])  # `norm` takes ten times as long
        changed = torch.maximum(smoothly(distance, STILL_PX, MOVED_PX), other)
        changed = F.avg_pool2d(F.max_pool2d(changed, 3, 1, 1), 3, 1, 1) * self.kept
        if self.elsewhere:
            changed = torch.ones_like(changed)
        detail = torch.zeros_like(moved.alpha) if moved.source is None else moved.source[:, 2:]
        if (
            moved.unpainted is not None
        ):  # a painted mouth has lost the photo's detail, an eye that is as it was has not
            painted = (moved.colours - moved.unpainted).abs().amax(1, keepdim=True)
            detail = detail * (1 - smoothly(painted, SAME, OTHER))
        return torch.cat(
            [moved.colours, moved.alpha, shift * (self.crop.side / size), detail, changed], dim=1
        )

    @torch.inference_mode()
    def pasted(self, moved: Frame) -> UInt8[Tensor, "frame height width 3"]:
        """Whole frames; by a compiled kernel on a CPU."""
        changes = self.changes(moved)
        frames = self.photo[None].repeat(len(changes), 1, 1, 1)
        if frames.device.type != "cpu":
            return self.paste_reference(changes, frames)
        from sdtalk.rendering.cpu import pasting

        fine, behind = (x[0].permute(1, 2, 0).contiguous().numpy() for x in (self.fine, self.behind))
        place = tuple(np.float32(x) for x in (self.crop.left, self.crop.top, self.crop.side))
        for head, frame in zip(changes, frames, strict=True):
            values = head.permute(1, 2, 0).contiguous().numpy()
            pasting.paste(0, fine.shape[0], values, fine, behind, place, self.box[:2], frame.numpy())
        return frames

    def paste_reference(
        self, changes: Float[Tensor, "frame 8 size size"], frames: UInt8[Tensor, "frame height width 3"]
    ) -> UInt8[Tensor, "frame height width 3"]:
        """The kernel's work in plain PyTorch, on any device; frames show the photo, and are changed in place."""
        left, top, right, bottom = self.box
        where, side = changes.device, self.behind.shape[-1]
        values = sampled_at(changes, *in_crop(self.box, self.crop, changes.shape[-1], where))
        behind = sampled_at(self.behind, *in_crop(self.box, self.crop, side, where))
        columns = torch.arange(right - left, device=where) + values[:, 4]
        rows = torch.arange(bottom - top, device=where)[:, None] + values[:, 5]
        fine = sampled_at(self.fine.expand(len(changes), -1, -1, -1), columns, rows)
        new = values[:, :3] + values[:, 6:7] * fine + (1 - values[:, 3:4]) * behind
        was = frames[:, top:bottom, left:right].permute(0, 3, 1, 2).float()
        mixed = was + values[:, 7:] * (new.clamp(0, 1) * 255 - was)
        frames[:, top:bottom, left:right] = (mixed + 0.5).to(torch.uint8).permute(0, 2, 3, 1)
        return frames


def places(frame: Frame, reach: float) -> Float[Tensor, "frame 2 size size"]:
    """Where in the crop every pixel comes from, px from its middle; its own place where that is not known."""
    size = frame.alpha.shape[-1]
    own = torch.arange(size, device=frame.alpha.device) + 0.5 - size / 2
    grid = torch.stack(torch.meshgrid(own, own, indexing="xy"))[None]
    if frame.source is None:
        return grid.expand(len(frame.alpha), -1, -1, -1)
    weight = frame.source[:, 2:]
    return torch.where(weight > SURE, frame.source[:, :2] / weight.clamp_min(SURE) * reach, grid)


def own_state(model: SDTalk, head: HeadGaussians) -> Frame:
    """The head as the photo shows it."""
    unmoved = AnimatedHead(head.gaussians)
    if head.audio_code is not None:
        unmoved = model.animate(head, head.audio_code, head.eyes)
    return model.render(head, unmoved, head.rest)


def box_of(crop: Crop, width: int, height: int) -> tuple[int, int, int, int]:
    """Whole px of a picture whose middles lie in a crop: left, top, right, bottom, the last two exclusive."""

    def within(start: float, length: int) -> tuple[int, int]:
        first, end = math.ceil(start - 0.5), math.ceil(start + crop.side - 0.5)
        return min(max(first, 0), length), min(max(end, 0), length)

    (left, right), (top, bottom) = within(crop.left, width), within(crop.top, height)
    return left, top, right, bottom


def kept(crop: Crop, width: int, height: int, size: int) -> Float[Tensor, "1 1 size size"]:
    """How far pixels of a crop may change: 0 at borders that lie within the picture, 1 from `BORDER` on.

    Args:
        crop: Where it lies in the picture.
        width: Of the picture in px.
        height: Of the picture in px.
        size: Of the crop in px after resampling.
    """
    ramp = smoothly((torch.arange(size) + 0.5) / size, 0.0, BORDER)
    free = torch.ones(size)
    columns = (ramp if crop.left > 0 else free) * (ramp.flip(0) if crop.left + crop.side < width else free)
    rows = (ramp if crop.top > 0 else free) * (ramp.flip(0) if crop.top + crop.side < height else free)
    return (rows[:, None] * columns)[None, None]


def sampled_at(
    image: Float[Tensor, "frame channel rows columns"],
    x: Float[Tensor, "*#frame #high wide"],
    y: Float[Tensor, "*#frame high #wide"],
) -> Float[Tensor, "frame channel high wide"]:
    """An image between its pixels, bilinearly; beyond the border it is the border's.

    Args:
        image: What is sampled.
        x: In px, the first pixel at 0.
        y: See x.
    """
    rows, columns = image.shape[2:]
    grid = torch.stack(torch.broadcast_tensors((2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1), -1)
    grid = grid.expand(len(image), *grid.shape[-3:])
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def in_crop(
    box: tuple[int, int, int, int], crop: Crop, size: int, device: torch.device
) -> tuple[Float[Tensor, "1 columns"], Float[Tensor, "rows 1"]]:
    """Where the pixels of a box lie in a crop that was resampled to a size, px, the first pixel at 0: x and y."""
    left, top, right, bottom = box
    scale = size / crop.side
    x = (torch.arange(left, right, device=device) + 0.5 - crop.left) * scale - 0.5
    y = (torch.arange(top, bottom, device=device) + 0.5 - crop.top) * scale - 0.5
    return x[None], y[:, None]
