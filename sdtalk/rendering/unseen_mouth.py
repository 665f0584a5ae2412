"""Unseen mouth: the inside of an open mouth where the photo does not show it, as colours relative to the face's."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.rendering.dental_arch import HEIGHT_MM, STRIP_COLUMNS, DentalArches
from sdtalk.rendering.device_constants import numbers, point_list
from sdtalk.rendering.moved_photo import moved_photo
from sdtalk.tracking.completion import JAW, SKULL
from sdtalk.tracking.face_model import LOWER_INNER_LIP, UPPER_INNER_LIP

CAVITY_COLOUR = (0.40, 0.28, 0.29)
GUM_COLOUR = (0.64, 0.47, 0.50)
"""Of an open mouth, and of gums and tongue in it, relative to the photo's mean colour around it. In 275 frames of wide
open mouths what lies between the teeth is hardly redder than the skin: 1.1 to 1.3 of red over green."""

TEETH_BRIGHTNESS = (1.5, 1.2)
"""Of upper and lower teeth, relative to that colour."""

TEETH_GREY = 0.6
"""How far the colour of teeth lies from that of skin in this light towards grey."""

ENAMEL = (1.03, 1.0, 0.9)
"""Teeth in white light."""

LIP_SHADE, LIP_SHADE_SPANS = 0.55, 0.05
"""Teeth are so bright at the lips' edge; full light begins so far inside, in distances between the eyes."""

UPPER_TEETH_GAP = (0.15, 0.3)
"""Mouths that stand further open in the photo, height over width, show the edges of their own upper teeth."""

JAW_DROP = 0.8
"""So much of the gap between the photo's lips its lower teeth have sunk."""


LIP_MIDDLES = (13, 14)
"""Mesh points in the middle of the upper and of the lower inner lip."""

UPPER_SHOWN_MM, UPPER_OWN = 1.1, 0.25
"""How far upper front teeth reach below closed lips, and how much of a face's own difference from that is believed: an
average jaw says little of how long somebody's lips and teeth are. Measured on 71 clips, as is what follows."""

LOWER_SHOWN_MM, LOWER_OWN = 3.0, 0.2
"""How far lower front teeth reach above the lower lip, and how much more per mm that an average jaw would show."""

LOWER_FREE_MM = 10.0
"""They do where lips are so far apart, and less where they are nearer to each other."""


@dataclass(frozen=True)
class UnseenMouth:
    """Drawn insides.

    Attributes:
        cavity: Colours without teeth.
        teeth: What upper and lower teeth add to these.
        drawn: Where they are: how bright upper and lower teeth are drawn.
    """

    cavity: Float[Tensor, "window 3 size size"]
    teeth: Float[Tensor, "window 2 3 size size"]
    drawn: Float[Tensor, "window 2 size size"]


def unseen_mouth(
    tone: Float[Tensor, "window 3 1 1"],
    colourful: Float[Tensor, "window 1 1 1"],
    rest_xy: Float[Tensor, "window 478 2"],
    moved_xy: Float[Tensor, "window 478 2"],
    heights: Float[Tensor, "window 478"],
    depth: Float[Tensor, "window 1 size size"],
    aspect: Float[Tensor, " window"],
) -> UnseenMouth:
    """Draw insides.

    Args:
        tone: Mean colour of the photo around the mouth.
        colourful: How far it has colours: a grey photo has a grey mouth.
        rest_xy: The photo's mesh in the frame's pose, px of the window.
        moved_xy: The frame's mesh there.
        heights: Of the mesh towards the camera.
        depth: How far inside of the lips a pixel lies, in distances between the eyes.
        aspect: Height over width of the photo's opening.
    """
    device, size = rest_xy.device, depth.shape[-1]
    arches = DentalArches.on(device)
    upper_lip, lower_lip, skull_points, jaw_points = (
        point_list(tuple(points), device) for points in (UPPER_INNER_LIP, LOWER_INNER_LIP, SKULL, JAW)
    )
    gap = (rest_xy[:, lower_lip].mean(1) - rest_xy[:, upper_lip].mean(1))[:, None]
    moved = moved_xy - rest_xy
    skull, jaw = (moved[:, points].mean(1, keepdim=True) for points in (skull_points, jaw_points))
    xy = _under_the_lips(
        arches.placed(rest_xy, skull, jaw + JAW_DROP * gap), rest_xy + skull, moved_xy, aspect
    )
    drawn, _ = moved_photo(
        arches.picture[None],
        arches.picture_xy.expand(len(xy), -1, -1),
        xy,
        heights @ arches.weights.T,
        arches.triangles,
        size,
    )
    light = LIP_SHADE + (1 - LIP_SHADE) * (depth / LIP_SHADE_SPANS).clamp(0, 1)
    low, high = UPPER_TEETH_GAP
    own = ((aspect - low) / (high - low)).clamp(0, 1)[:, None, None]
    teeth = torch.stack([drawn[:, 0] * (1 - own), drawn[:, 1]], 1)

    def coloured(colour: tuple[float, float, float]) -> Tensor:
        relative = numbers(colour, device)[:, None, None]
        return tone * relative.mean().lerp(relative, colourful)

    cavity = torch.lerp(coloured(CAVITY_COLOUR), coloured(GUM_COLOUR) * light, drawn[:, 2:])
    skin = torch.lerp(tone, tone.mean(1, keepdim=True), TEETH_GREY)
    enamel = light * skin * numbers(ENAMEL, device)[:, None, None].pow(colourful)
    colours = torch.stack([enamel * brightness for brightness in TEETH_BRIGHTNESS], 1)
    return UnseenMouth(cavity, teeth[:, :, None] * (colours - cavity[:, None]), teeth)


def _under_the_lips(
    arches: Float[Tensor, "window point 2"],
    rest_xy: Float[Tensor, "window 478 2"],
    moved_xy: Float[Tensor, "window 478 2"],
    aspect: Float[Tensor, " window"],
) -> Float[Tensor, "window point 2"]:
    """Arches where lips show as much of their teeth as people's do.

    Args:
        arches: Where an average jaw has them, see `DentalArches.placed`; the tongue goes with the lower one.
        rest_xy: The photo's mesh, moved as the skull has.
        moved_xy: The frame's mesh.
        aspect: Height over width of the photo's opening: lips that are apart say nothing of closed ones.
    """
    upper, lower, tongue = arches.chunk(3, 1)
    middle = STRIP_COLUMNS // 2
    down = (upper[:, middle] - upper[:, STRIP_COLUMNS + middle]) / HEIGHT_MM  # px per mm
    scale = down.square().sum(-1)

    def below(points: Tensor, others: Tensor) -> Tensor:
        return ((points - others) * down).sum(-1) / scale

    upper_lip, lower_lip = LIP_MIDDLES
    shown = below(upper[:, middle], rest_xy[:, upper_lip])
    closed = (1 - aspect / UPPER_TEETH_GAP[0]).clamp(0, 1)
    lowered = closed * (1 - UPPER_OWN) * (UPPER_SHOWN_MM - shown)
    shown = below(moved_xy[:, lower_lip], lower[:, middle])
    apart = below(moved_xy[:, lower_lip], moved_xy[:, upper_lip])
    wanted = (LOWER_SHOWN_MM + LOWER_OWN * shown) * (apart / LOWER_FREE_MM).clamp(0, 1)
    upper = upper + (lowered[:, None] * down)[:, None]
    jaw = ((shown - wanted)[:, None] * down)[:, None]
    return torch.cat([upper, lower + jaw, tongue + jaw], 1)
