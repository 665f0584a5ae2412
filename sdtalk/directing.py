"""Directing: what every frame of a talk shows, decided from the recording, the options and the photo's own state."""

from itertools import islice

from jaxtyping import Float
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.driving import (
    DrivingSignals,
    camera_path,
    eye_states,
    following_lids,
    relaxed,
    small_motion,
    stressed_moments,
    turned_cameras,
)
from sdtalk.options import TalkOptions
from sdtalk.progress import Progress, counted
from sdtalk.speech.audio import Speech, frame_count, speech_level
from sdtalk.speech.encoder import SpeechEncoder
from sdtalk.stopwatch import Stopwatch
from sdtalk.tracking.head_track import HeadTrack, Portrait
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import read_frames

DRIVER_FRAMES = 7500
"""At most five minutes of a video that lends its pose are tracked; a longer recording loops them."""


def driving_signals(
    config: SDTalkConfig,
    encoder: SpeechEncoder,
    tracker: Tracker,
    person: Portrait,
    sound: Speech,
    options: TalkOptions,
    progress: Progress,
    watch: Stopwatch,
) -> DrivingSignals:
    """Decide what every frame shows.

    Args:
        config: Of the model that will draw it.
        encoder: Turns the sound into states of the mouth.
        tracker: Follows videos that lend head or eyes.
        person: Who speaks, in the photo's own state.
        sound: As many frames as cover it.
        options: Pose, blinks, mouth, expression and seed are followed here.
        progress: Told of the tracking of videos.
        watch: Measures "audio" and "tracking".

    Raises:
        InputError: A video to follow cannot be used.
    """
    rest, frames = person.track, frame_count(sound.samples)
    with watch("audio"):
        code = encoder.encode(sound, options.mouth)
        level = speech_level(sound.samples)
    if config.hears_mouth_codes:
        code = relaxed(code, rest.mesh, level, options.expression)
    with watch("tracking"):
        wanted = {options.pose, options.blink} - {"idle", "still", "natural", "none"}
        drivers = {path: _followed(tracker, path, frames, progress) for path in wanted}
    camera = camera_path(
        options.pose,
        rest.camera,
        level,
        options.seed,
        drivers.get(options.pose),
        options.style,
        options.motion,
        stressed_moments(sound.samples),
    )
    camera = turned_cameras(camera, options.yaw, options.pitch, options.roll)
    seen = drivers.get(options.blink)
    eyes = eye_states(options.blink, rest.eyes, frames, options.seed, seen, options.blink_rate)
    small = None
    if config.priors:
        small = small_motion(
            options.pose, rest.camera, camera, sound.samples, options.seed, seen, options.life
        )
    if small is not None and seen is None and config.neural_renderer == "windows":
        eyes = following_lids(eyes, rest.eyes, small.gaze)  # those of a video do already
    return DrivingSignals(code, eyes_for_model(config, eyes), camera, small)


def eyes_for_model(config: SDTalkConfig, eyes: Float[Tensor, "frame 6"]) -> Float[Tensor, "frame 6"]:
    """Eye states in a model's steps: blinks and drivers scale what published weights know in whole px only."""
    return eyes.trunc() if config.eyes_in_px else eyes


def _followed(tracker: Tracker, path: str, frames: int, progress: Progress) -> HeadTrack:
    """Track as much of a video as is needed."""
    wanted = min(frames, DRIVER_FRAMES)
    return tracker.video(counted(islice(read_frames(path), wanted), "tracking", wanted, progress), path).track
