"""Face following: one face through the frames of a video, in batches."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sdtalk.tracking.detector import overlaps
from sdtalk.tracking.networks import MIN_FLAG, SURE_FLAG, FaceLandmarks, FaceNetworks
from sdtalk.tracking.roi import Rois, between, roi_from_landmarks

KEYFRAME_STEP = 8
"""Frames from one full search to the next (0.32 s at 25 fps)."""

MAX_DRIFT = 0.1
"""A frame is looked at again when its face lies farther (share of its square) from where it was expected."""


def follow_face(
    networks: FaceNetworks,
    pictures: UInt8[Tensor, "frame height width 3"],
    previous: FaceLandmarks | None = None,
) -> list[FaceLandmarks | None]:
    """Find the same face in consecutive frames.

    Faces are searched for in every eighth frame; in between the place is interpolated and only the mesh runs,
    on whole batches. Unlike MediaPipe's video mode, where each frame waits for the one before, nothing is
    sequential, and the smooth path of the crop leaves less jitter in the landmarks. A frame in which this
    fails (a cut, a fast turn) is searched as a picture of its own.

    Args:
        networks: The networks.
        pictures: Consecutive frames, RGB; 16 or more at a time are fastest.
        previous: The face in the frame before the first one, to go on following it. Without it the largest
            face of the first frame that shows one is followed.

    Returns:
        For each frame the face, or None where it is not to be seen.
    """
    known = _keyframes(networks, pictures, previous)
    faces: list[FaceLandmarks | None] = [None] * len(pictures)
    if known:
        expected = _interpolated(known, len(pictures))
        points, flags = networks.landmarks(pictures, expected)
        again = _drifted(expected, roi_from_landmarks(points)) | (flags < SURE_FLAG)
        own = torch.arange(len(pictures), device=points.device)
        points, flags = networks.look_again(pictures, points, flags, own, again)
        for i, flag in enumerate(flags.tolist()):
            faces[i] = FaceLandmarks(points[i], flag) if flag > MIN_FLAG else None
    last = previous
    for i, face in enumerate(faces):
        if face is None:
            found = networks.find_faces(pictures[i : i + 1])[0]
            # Nothing where the face was: after a cut it is elsewhere, or somebody else speaks.
            faces[i] = _same_face(found, last) or (found[0] if found else None)
        last = faces[i] or last
    return faces


def _keyframes(
    networks: FaceNetworks, pictures: UInt8[Tensor, "frame height width 3"], previous: FaceLandmarks | None
) -> list[tuple[int, FaceLandmarks]]:
    """The face in every eighth frame and the last one, where found, with the frame's index (-1: previous)."""
    known = [] if previous is None else [(-1, previous)]
    first = 0 if previous is None else KEYFRAME_STEP - 1
    indices = sorted({*range(first, len(pictures), KEYFRAME_STEP), len(pictures) - 1})
    for index, found in zip(indices, networks.find_faces(pictures[indices]), strict=True):
        face = _same_face(found, known[-1][1] if known else None)
        if face is not None:
            known.append((index, face))
    return known


def _same_face(found: Sequence[FaceLandmarks], last: FaceLandmarks | None) -> FaceLandmarks | None:
    """The face that overlaps most with the last one, if any does; without a last one the largest."""
    if not found or last is None:
        return found[0] if found else None
    shared = overlaps(last.box, torch.stack([face.box for face in found]))
    return found[int(shared.argmax())] if shared.max() > 0 else None


def _interpolated(known: list[tuple[int, FaceLandmarks]], frames: int) -> Rois:
    """Where to look in each frame: on the way from the keyframe before it to the one after it."""
    rois = roi_from_landmarks(torch.stack([face.points for _, face in known]))
    at = torch.tensor([index for index, _ in known], device=rois.centre.device)
    now = torch.arange(frames, device=at.device)
    after = torch.searchsorted(at, now).clamp(max=len(at) - 1)
    before = (after - 1).clamp(min=0)
    share = (now - at[before]) / (at[after] - at[before]).clamp(min=1)
    return between(rois[before], rois[after], share.clamp(0, 1))


def _drifted(expected: Rois, found: Rois) -> Bool[Tensor, " frame"]:
    """Whether place, size or turn (radians) differ by more than the limit."""
    side = expected.size[:, :1]
    moved = (found.centre - expected.centre).abs() / side
    grown = (found.size[:, :1] / side - 1).abs()
    turned: Float[Tensor, "frame 1"] = (
        torch.remainder((found.rotation - expected.rotation)[:, None] + torch.pi, 2 * torch.pi) - torch.pi
    )
    return (torch.cat([moved, grown, turned.abs()], dim=1) > MAX_DRIFT).any(dim=1)
