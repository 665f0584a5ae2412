"""Self- and cross-reenactment: renders a prepared clip's poses, eyes and sound with the head of one picture."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.camera import FRAME_SIZE
from sdtalk.config import SDTalkConfig
from sdtalk.driving import followed_cameras, followed_eyes, followed_gaze, followed_mouth
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.speech.audio import speech_level
from sdtalk.speech.encoder import SpeechEncoder, hold_in_silence
from sdtalk.stream import BATCH, DrivingSignals, render_frames
from sdtalk.tracking.head_track import HeadTrack
from sdtalk.tracking.landmarks68 import eye_numbers_px, landmarks68
from training.data.dataset import PreparedClip
from training.data.index import Index

SourceFrame = tuple[Float[Tensor, "1 3 height width"], Float[Tensor, "1 1 height width"], HeadTrack]
"""A picture, its person mask, and the head in it."""

AUDIO_BATCH_FRAMES = 64
"""Frames whose sound windows are held at once."""


def check_data_fits(config: SDTalkConfig, index: Index, name: str) -> None:
    """See that a data set was prepared for a model.

    Args:
        config: The model's.
        index: The data set's.
        name: What to call the data set.

    Raises:
        InputError: It was tracked with something else, or keeps other features of the sound.
    """
    tracker = "flame" if config.template == "flame" else "face_mesh"
    checked = [("tracker", tracker, index.tracker)]
    if config.sound != "whisper":  # its features are computed from the sound itself
        hubert = config.sound == "hubert"
        checked += [
            ("sound", config.sound, index.sound),
            ("sound_width", config.audio_width if hubert else config.mel_bins, index.sound_width),
            ("token_alignment", config.token_alignment if hubert else None, index.token_alignment),
        ]
    for what, wanted, found in checked:
        if wanted != found:
            problem = f"its {what} is {found!r}, and the model {config.name!r} needs {wanted!r}"
            raise InputError(name, problem, "Prepare the videos for this model: training/prepare.py.")


def predicted_frames(
    model: SDTalk,
    clip: PreparedClip,
    source: SourceFrame,
    frames: range,
    codes: Float[Tensor, "frame *field audio"] | None = None,
    device: torch.device | str = "cpu",
    batch: int = BATCH,
    relative: bool = False,
    exact: bool = False,
) -> Iterator[UInt8[np.ndarray, "512 512 3"]]:
    """Render frames of a clip before a black background, in inference mode; memory does not grow with their number.

    Args:
        model: In evaluation mode, on the device.
        clip: Gives poses, eyes and sound.
        source: Whose head; a frame of the clip, or of somebody else.
        frames: Numbers of the clip's frames.
        codes: States of the mouth, one a frame; None: see `mouth_codes`.
        device: Where the model is.
        batch: Frames animated at once.
        relative: Poses and eyes move from the source's own as the clip's move from its usual ones; for somebody else's
            picture, whose head has another place and whose eyes have another shape.
        exact: As in `TalkOptions`.
    """
    chosen = torch.tensor(frames)
    image, mask, track = source
    with torch.inference_mode():
        seen = replace(track, eyes=model_eyes(model.config, track)).to(device)
        head = model.reconstruct(image.to(device), mask.to(device), seen)
        codes = mouth_codes(model, clip, frames, device) if codes is None else codes
    moved = clip.heads(chosen)
    camera, eyes = moved.camera, model_eyes(model.config, moved)
    if relative:
        camera = followed_cameras(track.camera, camera, len(chosen))
        eyes = followed_eyes(model_eyes(model.config, track), eyes, len(chosen))
        eyes = eyes.trunc() if model.config.eyes_in_px else eyes
    small = None
    if model.config.priors:
        gaze = followed_gaze(moved.mesh, len(chosen), None if relative else track.mesh)
        small = replace(SmallMotion.none(len(chosen)), gaze=gaze)
    signals = DrivingSignals(codes.cpu(), eyes, camera, small)
    black = torch.zeros(1, 3, FRAME_SIZE, FRAME_SIZE)
    for rendered in render_frames(model, head, signals, black, FRAME_SIZE, batch=batch, exact=exact):
        yield from rendered


def mouth_codes(
    model: SDTalk, clip: PreparedClip, frames: range, device: torch.device | str = "cpu"
) -> Float[Tensor, "frame *field audio"]:
    """States of the mouth: predicted from the sound where it is the speaker's own; else, see `mouth_source`."""
    chosen, kind = torch.tensor(frames), mouth_source(model.config, clip.entry.own_speech)
    if kind == "measured":
        return clip.mouth[chosen]
    if kind == "silence":
        return _silence(model, clip, device).expand(len(chosen), -1, -1)
    with torch.inference_mode():
        parts = [
            model.encode_audio(clip.sound(some, model.config.sound).to(device)).cpu()
            for some in chosen.split(AUDIO_BATCH_FRAMES)
        ]
    codes = torch.cat(parts)
    if not model.config.hears_mouth_codes:
        return codes
    return hold_in_silence(codes, speech_level(clip.audio)[chosen])


def measured_mouth(clip: PreparedClip, frames: range, same: bool) -> Float[Tensor, "frame 5"]:
    """The speaker's own mouth codes, relative to those of the picture that is animated.

    Args:
        clip: Who speaks.
        frames: Numbers of the clip's frames.
        same: Whether the picture is the clip's first frame; otherwise the clip's mean shape counts as neutral.
    """
    return followed_mouth(clip.mouth, clip.mouth[:1] if same else None)[torch.tensor(frames)]


def mouth_source(config: SDTalkConfig, own_speech: bool) -> str:
    """What moves the mouth: "sound"; where it is not the speaker's own, "measured" codes, or "silence" for base."""
    if own_speech:
        return "sound"
    return "measured" if config.hears_mouth_codes else "silence"


def model_eyes(config: SDTalkConfig, track: HeadTrack) -> Float[Tensor, "frame 6"]:
    """Eye states as a model knows them: prepared data keep head-space units, published weights want whole px."""
    if not config.eyes_in_px:
        return track.eyes
    return eye_numbers_px(landmarks68(track.camera.project(track.mesh)), truncated=True)


def _silence(model: SDTalk, clip: PreparedClip, device: torch.device | str) -> Tensor:
    """What a model that hears tokens makes of silence, for which HuBERT is needed.

    Raises:
        InputError: HuBERT is not on this machine.
    """
    return SpeechEncoder.for_model(model, device).silence()
