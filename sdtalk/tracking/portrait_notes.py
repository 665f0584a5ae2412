"""Portrait notes: what the user should know about a photo before it speaks."""

import torch

from sdtalk.tracking.head_track import HeadTrack

SMALL_FACE_PX = 100
"""Faces with a smaller longer side give a visibly blurred head."""

CUT_FACE = 0.03
"""Share of the landmarks beyond the picture's border from which on a face counts as cut off."""

CLOSED_LID_GAP = 0.15
"""Lid gap over the width of the eye below which an eye counts as closed; open ones have 0.19 and more (60 photos)."""

FAR_TURN_DEGREES = 25.0
"""Yaw or pitch from which on the far side of a face is too little to be seen."""


def portrait_note(faces: int, side_px: float, outside: float, track: HeadTrack) -> str:
    """Sentences about what may look poor, or "".

    Args:
        faces: How many were found.
        side_px: Size of the face used, px of the picture.
        outside: Share of its landmarks beyond the border of the picture.
        track: The head of the photo; one.
    """
    notes = []
    if faces > 1:
        notes.append(f"{faces} faces were found; the largest is used.")
    if outside > CUT_FACE:
        notes.append("The face is cut off by the border of the picture; the result may look wrong.")
    if side_px < SMALL_FACE_PX:
        notes.append(f"The face is only {side_px:.0f} px large; a larger picture gives a sharper video.")
    if turn := _far_turn(track):
        notes.append(
            f"The head is turned by {turn:.0f} degrees; a photo from the front gives a better video."
        )
    if _lid_gaps(track).amin() < CLOSED_LID_GAP:
        notes.append("An eye is closed in the photo; what it looks like when open is a guess.")
    return " ".join(notes)


def _far_turn(track: HeadTrack) -> float:
    """Yaw or pitch in degrees, the larger; 0 unless it is far."""
    forward = track.camera.rotation[0, :, 2]
    yaw = torch.atan2(forward[0], -forward[2])
    pitch = torch.asin(forward[1].clamp(-1, 1))
    degrees = float(torch.rad2deg(torch.stack([yaw, pitch])).abs().amax())
    return degrees if degrees > FAR_TURN_DEGREES else 0.0


def _lid_gaps(track: HeadTrack) -> torch.Tensor:
    """Mean lid gap of both eyes over their width."""
    eyes = track.eyes[0].view(2, 3)
    return eyes[:, :2].mean(1) / eyes[:, 2].clamp_min(1e-6)
