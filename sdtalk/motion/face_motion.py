"""Face motion on the mesh: where a photo's face mesh goes when its mouth and eyes change state."""

from jaxtyping import Float
from torch import Tensor

from sdtalk.tracking.face_model import IRIS_POINTS, FaceModel


def moved_face(
    mesh: Float[Tensor, "one 478 3"],
    code: Float[Tensor, "frame 5"],
    eyes: Float[Tensor, "frame 6"],
    gaze: Float[Tensor, "frame 2 3"] | None = None,
    brows: Float[Tensor, " frame"] | None = None,
) -> Float[Tensor, "frame 478 3"]:
    """A photo's mesh in the state of each frame.

    Args:
        mesh: The photo's, head space; or one a frame.
        code: Change of the mouth code since the photo.
        eyes: Change of the eye state.
        gaze: Shift of the right and the left iris, head-space units; None: they stay.
        brows: Rise of the brows, head-space units; None: they stay.
    """
    face = FaceModel.bundled().to(mesh.device)
    moved = mesh + face.mouth_displacement(code) + face.lid_displacement(eyes)
    if brows is not None:
        moved = moved + brows[:, None, None] * face.brow_mode
    if gaze is not None:
        for side, points in enumerate(IRIS_POINTS):
            iris = slice(points[0], points[-1] + 1)  # a list would have to travel to a GPU first
            moved[:, iris] = moved[:, iris] + gaze[:, side, None]
    return moved
