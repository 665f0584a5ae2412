"""Published losses: both stages as the authors' code weighs and computes them (reference section 6; fixture j).

Every term comes back with its weight in it, so that a stage's loss is the plain sum of them. "Coarse" is the RGB part
of the rasterised picture, "refined" what the neural renderer makes of it; every picture term is the mean of both.

`training.train` uses the losses of `training.losses`, which need no weights of others; these are for comparison with
the published model and for training as it was trained.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from training.losses import lifting_loss

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of a prediction from a target, both [batch, 3, height, width]; a scalar."""

BOX_SCALE = 1.1
"""The head box is a square whose side is so many times the square root of the tracked box's area."""

CROP_PX = 512
"""Boxes are cut out and enlarged to so many px a side."""


@dataclass(frozen=True)
class Comparison:
    """Two predictions of a picture, and the picture; RGB in 0..1."""

    coarse: Float[Tensor, "batch 3 height width"]
    refined: Float[Tensor, "batch 3 height width"]
    target: Float[Tensor, "batch 3 height width"]

    def cropped(self, boxes_px: Int[Tensor, "batch 4"], size: int = CROP_PX) -> "Comparison":
        """The same part of all three, see `crop_to_box`."""
        crops = (crop_to_box(images, boxes_px, size) for images in (self.coarse, self.refined, self.target))
        return Comparison(*crops)

    def mean_of(self, distance: Distance) -> Tensor:
        """Mean of the distances of both predictions from the picture."""
        return 0.5 * (distance(self.coarse, self.target) + distance(self.refined, self.target))


def expand_bbox(boxes: Float[Tensor, "batch 4"], scale: float = BOX_SCALE) -> Float[Tensor, "batch 4"]:
    """Squares around the same centres, made smaller where they would reach over the border.

    The boxes of fixture j touch no border: that the square keeps its centre there is how we read the reference.

    Args:
        boxes: Left, top, right, bottom as shares of the picture's side, 0..1.
        scale: Side of the square over the square root of a box's area.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    centre = (low + high) / 2
    half = scale * (high - low).prod(dim=1, keepdim=True).sqrt() / 2
    room = torch.cat([centre, 1 - centre], dim=1).amin(dim=1, keepdim=True)
    half = torch.minimum(half, room)
    return torch.cat([centre - half, centre + half], dim=1)


def head_box_px(boxes: Float[Tensor, "batch 4"], size: int) -> Int[Tensor, "batch 4"]:
    """The expanded box in a picture of `size` px a side, cut to whole px towards zero.

    Returns:
        First row, last row + 1, first column, last column + 1, as of `sdtalk.tracking.landmarks68.lip_box_px`.
    """
    left, top, right, bottom = (expand_bbox(boxes) * size).long().unbind(1)
    return torch.stack([top, bottom, left, right], dim=1)


def crop_to_box(
    images: Float[Tensor, "batch 3 height width"], boxes_px: Int[Tensor, "batch 4"], size: int = CROP_PX
) -> Float[Tensor, "batch 3 size size"]:
    """Cut a box out of each picture and resize it (bilinear, antialiased); gradients reach the pixels.

    Args:
        images: Any channels.
        boxes_px: First row, last row + 1, first column, last column + 1. What reaches over the border is left out.
        size: Side of the result, px.

    Raises:
        ValueError: A box has no pixel inside its picture.
    """
    crops = []
    for image, box in zip(images, boxes_px.tolist(), strict=True):
        first_row, last_row, first_column, last_column = (max(edge, 0) for edge in box)
        part = image[None, :, first_row:last_row, first_column:last_column]
        if part.numel() == 0:
            raise ValueError(
                f"box {box} (rows, columns) has no pixel in a picture of {tuple(image.shape[1:])} px"
            )
        crops.append(F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(crops)


def stage1_losses(
    pictures: Comparison,
    head_boxes: Float[Tensor, "batch 4"],
    mesh: Float[Tensor, "batch vertex 3"],
    lifted: Float[Tensor, "batch point 3"],
    perceptual: Distance,
    *,
    image_weight: float = 1.0,
    box_weight: float = 1.0,
    perceptual_weight: float = 0.01,
    lifting_weight: float = 10.0,
) -> dict[str, Tensor]:
    """The terms of stage 1, weighted.

    Args:
        pictures: Square, coarse and refined prediction and the target.
        head_boxes: Tracked head boxes of the target: left, top, right, bottom as shares of the side.
        mesh: All tracked vertices of the target, head space.
        lifted: Visible Gaussians, both layers, head space.
        perceptual: `FacePerceptualLoss` with weights, or another distance of two pictures.
        image_weight: Of L1 on the whole picture.
        box_weight: Of L1 on the expanded head box.
        perceptual_weight: Of the perceptual loss there.
        lifting_weight: Of the squared distance of a vertex to its nearest lifted point; the published code has this
            10 inside of the distance.
    """
    head = pictures.cropped(head_box_px(head_boxes, pictures.target.shape[-1]))
    return {
        "image": image_weight * pictures.mean_of(F.l1_loss),
        "box": box_weight * head.mean_of(F.l1_loss),
        "perceptual": perceptual_weight * head.mean_of(perceptual),
        "lifting": lifting_weight * lifting_loss(mesh, lifted),
    }


def stage2_losses(
    pictures: Comparison,
    head_boxes: Float[Tensor, "batch 4"],
    lip_boxes_px: Int[Tensor, "batch 4"],
    mesh: Float[Tensor, "batch vertex 3"],
    lifted: Float[Tensor, "batch point 3"],
    completion: Float[Tensor, "batch completion 3"],
    perceptual: Distance,
    *,
    image_weight: float = 1.0,
    box_weight: float = 1.0,
    lip_weight: float = 1.0,
    perceptual_weight: float = 0.01,
    lifting_weight: float = 10.0,
) -> dict[str, Tensor]:
    """The terms of stage 2, weighted: those of stage 1, and L1 on the lip box.

    The lifting term is the mean over both branches, and both are compared with all vertices: the completion points are
    drawn towards vertices that they do not stand for, too, as in the published code.

    Args:
        pictures: As in stage 1.
        head_boxes: As in stage 1.
        lip_boxes_px: Of the target, `sdtalk.tracking.landmarks68.lip_box_px`.
        mesh: All tracked vertices of the target, head space.
        lifted: Visible Gaussians after motion, head space (before it, nothing learns in stage 2).
        completion: Completion Gaussians after motion, head space.
        perceptual: As in stage 1.
        image_weight: As in stage 1.
        box_weight: As in stage 1.
        lip_weight: Of L1 on the lip box.
        perceptual_weight: As in stage 1.
        lifting_weight: As in stage 1, for each of the branches before the mean.
    """
    losses = stage1_losses(
        pictures, head_boxes, mesh, lifted, perceptual,
        image_weight=image_weight, box_weight=box_weight,
        perceptual_weight=perceptual_weight, lifting_weight=lifting_weight,
    )  # fmt: skip
    of_completion = lifting_weight * lifting_loss(mesh, completion)
    return losses | {
        "lip": lip_weight * pictures.cropped(lip_boxes_px).mean_of(F.l1_loss),
        "lifting": 0.5 * (losses["lifting"] + of_completion),
    }
