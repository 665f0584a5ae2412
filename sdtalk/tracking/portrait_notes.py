"""Portrait notes: what the user should know about a face in a photo before it speaks."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.tracking.camera_fit import fit_camera, landmarks_in_crop
from sdtalk.tracking.face_model import IRIS_POINTS, LOWER_LIDS, UPPER_LIDS, FaceModel, eye_state
from sdtalk.tracking.framing import choose_crop
from sdtalk.tracking.networks import FaceLandmarks
from sdtalk.tracking.steadiness import Steadiness

SMALL_FACE_PX = 100
"""Faces with a smaller longer side give a visibly blurred head."""

CUT_FACE = 0.03
"""Share of the landmarks beyond the picture's border from which on a face counts as cut off."""

CLOSED_LID_GAP = 0.15
"""Lid gap over the width of the eye below which an eye counts as closed; open ones have 0.19 and more (60 photos)."""

FAR_TURN_DEGREES = 25.0
"""Yaw or pitch from which on the far side of a face is too little to be seen."""

UNSTEADY = 0.045
"""Shift of a mesh (`Steadiness.moved`) from which on it is no bare human face seen upright; people have up to 0.040."""

PROFILE_DEGREES = 35.0
"""A face turned farther is unsteady for that reason alone."""

GUESSED_LIPS, GUESSED_EYES = 0.05, 0.04
"""Shifts of the lips and of an eye that has to be guessed; bare ones have at most 0.042 and 0.034."""

STEADY_EYES = 0.028
"""Where the eyes move less, and the flag does not fall by more than LOST_FLAG, only the mouth is in doubt."""

LOST_FLAG = -4.0

FLAT_EYES, DARK_EYES = 0.15, 0.6
"""Range of brightness in an eye over the face's, and brightness over the face's: less behind dark glasses."""

ODD = "the result will look odd."
NOT_HUMAN = f"This does not look like a bare human face seen upright; if it is none, {ODD}"
COVERED_MOUTH = f"The mouth seems to be covered; if it is, {ODD}"
COVERED_EYES = f"At least one eye seems to be covered; if it is, {ODD}"


def face_notes(
    face: FaceLandmarks, steadiness: Steadiness, picture: UInt8[Tensor, "1 height width 3"]
) -> tuple[str, ...]:
    """Sentences about what may look poor.

    Args:
        face: A face.
        steadiness: Its own.
        picture: RGB, in which it is.
    """
    height, width = picture.shape[1:3]
    points = face.points[None].cpu()
    crop = choose_crop(points, width, height)
    model = FaceModel.bundled()
    camera, mesh = fit_camera(landmarks_in_crop(points, crop), model.mean_face, model.pose_weights)
    notes = _about_place(face.side, share_outside(points, width, height)) + about_pose(camera, mesh)
    return (*notes, *_about_kind(steadiness, head_turn(camera), covered_eyes(points[0], picture.cpu())))


def share_outside(landmarks_px: Float[Tensor, "1 478 3"], width: int, height: int) -> float:
    """Share of the landmarks that lie beyond the border of a picture."""
    points = landmarks_px[0, :, :2] + 0.5
    beyond = (points < 0) | (points > points.new_tensor([width, height]))
    return float(beyond.any(dim=1).float().mean())


def head_turn(camera: Camera) -> float:
    """Yaw or pitch of one head in degrees, the larger."""
    forward = camera.rotation[0, :, 2]
    yaw = torch.atan2(forward[0], -forward[2])
    pitch = torch.asin(forward[1].clamp(-1, 1))
    return float(torch.rad2deg(torch.stack([yaw, pitch])).abs().amax())


def covered_eyes(landmarks_px: Float[Tensor, "478 3"], picture: UInt8[Tensor, "1 height width 3"]) -> bool:
    """Whether both eyes are dark and without a lighter or darker spot, as behind sunglasses."""
    height, width = picture.shape[1:3]
    at = landmarks_px[:, :2].round().long()
    column, row = at[:, 0].clamp(0, width - 1), at[:, 1].clamp(0, height - 1)
    brightness = picture[0, row, column].float().mean(1)
    low, middle, high = brightness.quantile(torch.tensor([0.1, 0.5, 0.9]))
    for upper, lower, iris in zip(UPPER_LIDS, LOWER_LIDS, IRIS_POINTS, strict=True):
        eye = brightness[[*upper, *lower, *iris]]
        flat = eye.quantile(0.9) - eye.quantile(0.1) < FLAT_EYES * (high - low)
        if not (flat and eye.mean() < DARK_EYES * middle):
            return False
    return True


def _about_place(side_px: float, outside: float) -> tuple[str, ...]:
    notes = []
    if outside > CUT_FACE:
        notes.append("The face is cut off by the border of the picture; the result may look wrong.")
    if side_px < SMALL_FACE_PX:
        notes.append(f"The face is only {side_px:.0f} px large; a larger picture gives a sharper video.")
    return tuple(notes)


def about_pose(camera: Camera, mesh: Float[Tensor, "1 478 3"]) -> tuple[str, ...]:
    """Sentences about how a head is turned, and about its eyes.

    Args:
        camera: In front of it.
        mesh: Its face mesh, head space.
    """
    notes, turn = [], head_turn(camera)
    if turn > FAR_TURN_DEGREES:
        notes.append(
            f"The head is turned by {turn:.0f} degrees; a photo from the front gives a better video."
        )
    eyes = eye_state(mesh)[0].view(2, 3)
    if (eyes[:, :2].mean(1) / eyes[:, 2].clamp_min(1e-6)).amin() < CLOSED_LID_GAP:
        notes.append("An eye is closed in the photo; what it looks like when open is a guess.")
    return tuple(notes)


def _about_kind(steadiness: Steadiness, turn: float, dark_eyes: bool) -> tuple[str, ...]:
    """Whether it is a bare human face at all."""
    if dark_eyes:
        return (COVERED_EYES,)
    if turn > PROFILE_DEGREES:
        return ()
    if steadiness.eyes_moved > GUESSED_EYES and steadiness.lips_moved < GUESSED_LIPS:
        return (COVERED_EYES,)
    if steadiness.moved < UNSTEADY:
        return ()
    if (
        steadiness.lips_moved > GUESSED_LIPS
        and steadiness.eyes_moved < STEADY_EYES
        and steadiness.gain > LOST_FLAG
    ):
        return (COVERED_MOUTH,)
    return (NOT_HUMAN,)
