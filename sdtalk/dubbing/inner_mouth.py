"""Inner mouth: what a shot's mouth looks like between the lips, painted in any state and pose."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.dubbing.clip_track import Shot, mouth_aspect
from sdtalk.dubbing.lower_face import reference_head
from sdtalk.image import to_tensor
from sdtalk.model import SDTalk
from sdtalk.rendering.device_constants import point_list
from sdtalk.rendering.face_windows import MOUTH
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_inputs import DISTANCE_PX, window_inputs
from sdtalk.rendering.window_renderer import MOUTH_CUT, PhotoFace, WindowRenderer
from sdtalk.smoothstep import smoothly

INSIDE_PX, INSIDE_SOFT_PX = 1.0, 0.8
"""The painted inside counts up to so far outside of the lips' inner line, over so much, px of 512."""

OPEN = (0.12, 0.25)
"""Height over width of an opening that shows nothing of use inside, and of one that shows enough."""

SKIN_PX = (2.0, 10.0)
"""Colours are matched on the skin so far around the lips, px of 512."""


@dataclass(frozen=True)
class OpenMouth:
    """The frame of a shot that tells what its mouth looks like inside.

    Attributes:
        photo: Its crop, and the face mesh on it.
        open: Whether the inside can be taken from it as it is: 0 for lips that hardly part, 1 for an open mouth.
    """

    photo: PhotoFace
    open: Float[Tensor, ""]

    @classmethod
    def of(cls, shot: Shot, device: torch.device) -> "OpenMouth":
        """Prepare a shot in which a face was seen."""
        assert shot.mouth is not None
        camera, mesh = reference_head(shot)
        assert shot.mouth_landmarks is not None
        photo = PhotoFace(to_tensor(shot.mouth).to(device), mesh.to(device), camera.project(mesh).to(device))
        opening = torch.tensor(mouth_aspect(shot.mouth_landmarks[0]), device=device)
        return cls(photo, smoothly(opening, *OPEN))


@dataclass(frozen=True)
class PaintedMouth:
    """A painted window, in px of 512 of the camera's square.

    Attributes:
        corner: Left and top of the window.
        colours: RGB.
        inside: How far a pixel lies between the lips.
        skin: Which pixels are skin around the lips.
    """

    corner: Float[Tensor, "2"]
    colours: Float[Tensor, "1 3 size size"]
    inside: Float[Tensor, "1 1 size size"]
    skin: Float[Tensor, "1 1 size size"]


def painted_mouth(
    model: SDTalk, mouth: OpenMouth, mesh: Float[Tensor, "1 478 3"], camera: Camera
) -> PaintedMouth:
    """Paint the mouth of a shot's reference in another state and pose.

    Args:
        model: One with a window renderer.
        mouth: The reference.
        mesh: The face mesh in the state wanted, head space.
        camera: One.
    """
    renderer, photo = model.neural_renderer, mouth.photo
    assert isinstance(renderer, WindowRenderer)
    device = photo.image.device
    mesh, camera = mesh.to(device), camera.to(device)
    outline = point_list(MOUTH.outline, device)
    rest, moved = camera.project(photo.mesh), camera.project(mesh)
    cut, xy = photo.cut(outline, MOUTH_CUT, on_host=device.type == "cpu")
    corner = (moved[:, outline].mean(1) - MOUTH.size / 2).round()
    heights = -camera.to_camera_space(mesh)[..., 2]
    inputs = window_inputs(MOUTH, WindowGeometry(cut, xy, rest, moved, heights).within(corner))
    dtype = next(renderer.mouth.parameters()).dtype
    planes = inputs.planes.to(dtype).contiguous(memory_format=torch.channels_last)
    painted = inputs.painted(renderer.mouth(planes, inputs.numbers.to(dtype)).float())
    # the painter dims and softens teeth that the photo shows
    colours = torch.lerp(inputs.base, painted, torch.maximum(inputs.silent, 1 - mouth.open))
    inner, outer = (inputs.distances * DISTANCE_PX).split(1, 1)
    inside = torch.sigmoid((INSIDE_PX - inner) / INSIDE_SOFT_PX)
    near, far = SKIN_PX
    skin = ((outer > near) & (outer < far)).float()
    return PaintedMouth(corner[0].cpu(), colours.clamp(0, 1).cpu(), inside.cpu(), skin.cpu())
