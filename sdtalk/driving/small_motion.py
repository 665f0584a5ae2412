"""Small motion of every frame: gaze, brows and breath together, as the options and a driving video want them."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.driving.breath import breath_motion
from sdtalk.driving.brows import brow_motion
from sdtalk.driving.gaze import followed_gaze, natural_gaze
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.tracking.head_track import HeadTrack


def small_motion(
    pose: str,
    rest: Camera,
    camera: Camera,
    samples: Float[Tensor, " samples"],
    seed: int,
    eyes: HeadTrack | None = None,
) -> SmallMotion:
    """What lives in a face besides mouth, lids and pose; a still head has nothing of it but the gaze of a video.

    Args:
        pose: "still", or anything else.
        rest: The photo's camera, one.
        camera: Pose of every frame.
        samples: Speech, 16 kHz; brows follow its emphasis.
        seed: Chooses glances, raises and breaths.
        eyes: The tracked video whose eyes, and with them their gaze, are followed.
    """
    frames = len(camera)
    if pose == "still":
        small = SmallMotion.none(frames)
    else:
        small = SmallMotion(
            gaze=natural_gaze(rest, camera, seed),
            brows=brow_motion(samples, seed),
            breath=breath_motion(frames, seed),
        )
    return small if eyes is None else replace(small, gaze=followed_gaze(eyes.mesh, frames))
