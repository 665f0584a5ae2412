"""Small motion of every frame: gaze, brows and breath together, as the options and a driving video want them."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from sdtalk.camera import Camera
from sdtalk.driving.breath import breath_motion
from sdtalk.driving.brows import brow_motion
from sdtalk.driving.gaze import followed_gaze, held_gaze, natural_gaze
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.tracking.head_track import HeadTrack


def small_motion(
    pose: str,
    rest: Camera,
    camera: Camera,
    samples: Float[Tensor, " samples"],
    seed: int,
    eyes: HeadTrack | None = None,
    life: float = 1.0,
) -> SmallMotion:
    """What lives in a face besides mouth, lids and pose.

    A still head has nothing of it but the gaze: that of a video, or eyes that stay on the camera where it is turned.

    Args:
        pose: "still", or anything else.
        rest: The photo's camera, one.
        camera: Pose of every frame.
        samples: Speech, 16 kHz; brows follow its emphasis.
        seed: Chooses glances, raises and breaths.
        eyes: The tracked video whose eyes, and with them their gaze, are followed.
        life: Factor on glances, raises and breaths.
    """
    frames = len(camera)
    if pose == "still":
        held = held_gaze(rest, camera[:1]).expand(frames, -1)  # all frames have one pose
        small = replace(SmallMotion.none(frames), gaze=held)
    else:
        small = SmallMotion(
            gaze=natural_gaze(rest, camera, seed, life),
            brows=life * brow_motion(samples, seed),
            breath=life * breath_motion(frames, seed),
        )
    return small if eyes is None else replace(small, gaze=followed_gaze(eyes.mesh, frames))
