"""Driving: what moves a head in every frame besides the sound; one file for each part of it."""

from sdtalk.driving.breath import breath_motion
from sdtalk.driving.brows import brow_motion
from sdtalk.driving.emphasis import stressed_moments
from sdtalk.driving.expression import relaxed
from sdtalk.driving.eyes import (
    BLINKS_A_MINUTE,
    CLOSED_GAP,
    GAPS,
    eye_states,
    followed_eyes,
    following_lids,
    natural_blinks,
    with_lid_gaps,
)
from sdtalk.driving.gaze import followed_gaze, natural_gaze
from sdtalk.driving.head_motion import (
    NECK,
    camera_path,
    followed_cameras,
    forth_and_back,
    idle_cameras,
    turned_cameras,
)
from sdtalk.driving.idle_style import IDLE_STYLES
from sdtalk.driving.mouth import followed_mouth
from sdtalk.driving.signals import DrivingSignals
from sdtalk.driving.small_motion import small_motion

__all__ = [
    "BLINKS_A_MINUTE",
    "CLOSED_GAP",
    "GAPS",
    "IDLE_STYLES",
    "NECK",
    "DrivingSignals",
    "breath_motion",
    "brow_motion",
    "camera_path",
    "eye_states",
    "followed_cameras",
    "followed_eyes",
    "followed_gaze",
    "followed_mouth",
    "following_lids",
    "forth_and_back",
    "idle_cameras",
    "natural_blinks",
    "natural_gaze",
    "relaxed",
    "small_motion",
    "stressed_moments",
    "turned_cameras",
    "with_lid_gaps",
]
