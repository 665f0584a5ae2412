"""Reenactment: a clip's sound, poses and eyes drive its own first frame, or a portrait; beside it the real frames."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from sdtalk.background import TRANSPARENT, parse_background
from sdtalk.camera import FRAME_SIZE
from sdtalk.config import SDTalkConfig
from sdtalk.driving import DrivingSignals, followed_cameras, followed_eyes, followed_gaze, followed_mouth
from sdtalk.errors import InputError
from sdtalk.head import HeadGaussians
from sdtalk.image import Crop, crop_picture, read_picture, to_frames, to_tensor
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.options import check_not_input
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.progress import Progress, counted, no_progress
from sdtalk.provenance.claim import GENERATED
from sdtalk.speech.audio import read_speech
from sdtalk.speech.encoder import SpeechEncoder
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import render_frames
from sdtalk.talk import WrittenVideo
from sdtalk.tracking.head_track import Portrait
from sdtalk.video import check_output, open_writer, probe, read_frames


@dataclass(frozen=True)
class ReenactOptions:
    """How a clip is repeated.

    Attributes:
        portrait: Picture to animate; None: the clip's own first frame, in exactly the clip's crop and poses.
        background: Stands behind the prediction and behind the person of the real frames.
        measured_codes: The mouth follows the one that is seen in the clip, not the sound; needs a model whose audio
            code is a mouth code.
        exact: As in `TalkOptions`.
        mark: The same; the clip's real frames have none.
    """

    portrait: str | None = None
    background: str = "black"
    measured_codes: bool = False
    exact: bool = False
    mark: bool = True

    @property
    def transparent(self) -> bool:
        """Whether frames have an alpha channel."""
        return self.background == TRANSPARENT


@dataclass(frozen=True)
class Reenactment:
    """Everything known of a clip before its frames are rendered.

    Attributes:
        clip: The video.
        crop: The square of it that is shown.
        head: Who performs.
        signals: What happens.
        scene: The background; None: frames are transparent.
        note: What the user should know, or "".
        exact: As in `TalkOptions`.
    """

    clip: Path
    crop: Crop
    head: HeadGaussians
    signals: DrivingSignals
    scene: Float[Tensor, "1 3 height width"] | None
    note: str = ""
    exact: bool = False


def prepare(
    pipeline: SDTalkPipeline,
    clip: str | Path,
    options: ReenactOptions = ReenactOptions(),  # noqa: B008 - frozen
    progress: Progress = no_progress,
) -> Reenactment:
    """Track a clip, reconstruct the head, listen to the sound.

    Raises:
        InputError: The clip, the portrait or the background cannot be used, or the model knows no mouth codes.
    """
    if options.measured_codes:
        check_knows_mouth_codes(pipeline.model.config)
    clip = Path(clip)
    background, tracker = parse_background(options.background), pipeline.tracker
    picture = read_picture(options.portrait) if options.portrait else None
    info = probe(clip)
    total = round(info.duration * 25)
    video = tracker.video(counted(read_frames(clip), "tracking", total, progress), str(clip))
    track, notes = video.track, []
    camera, eyes = track.camera, track.eyes
    if picture is None:
        frames = read_frames(clip)
        with closing(frames):  # type: ignore[type-var]
            first = crop_picture(next(frames), video.crop, FRAME_SIZE)
        person = Portrait(to_tensor(first), tracker.person_masks(first[None]), track[0:1], video.crop)
    else:
        person = tracker.portrait(picture.pixels, str(options.portrait))
        camera = followed_cameras(person.track.camera, camera, len(track))
        eyes = followed_eyes(person.track.eyes, eyes, len(track))
        notes += [picture.note, person.note]
    progress("preparing", 0, 0)
    head = pipeline.reconstruct_tracked(person)
    if options.measured_codes:
        seen = tracker.face.mouth_code(track.mesh)
        code = followed_mouth(seen, seen[:1] if picture is None else None)
    elif info.has_sound:
        code = pipeline.speech_encoder.encode(read_speech(clip))
    else:
        code = head.audio_code.cpu() if head.audio_code is not None else pipeline.speech_encoder.silence()
        code = code.expand(len(track), *code.shape[1:])
        notes.append("The clip has no sound: the mouth stays as it is.")
    code = _fitted(code, len(track), pipeline.speech_encoder)
    note = " ".join(n for n in notes if n)
    scene = pipeline.scene(background, person)
    gaze = followed_gaze(track.mesh, len(track), track.mesh[:1] if picture is None else None)
    small = replace(SmallMotion.none(len(track)), gaze=gaze)
    signals = DrivingSignals(code, pipeline.eyes_for_model(eyes), camera, small)
    return Reenactment(clip, video.crop, head, signals, scene, note, options.exact)


def check_knows_mouth_codes(config: SDTalkConfig) -> None:
    """See that a measured mouth can move a model's.

    Raises:
        InputError: Its audio code does not say how the mouth stands.
    """
    if not config.hears_mouth_codes:
        problem = "its audio code is no mouth code, so a measured mouth cannot move its own"
        raise InputError(
            f"model {config.name!r}", problem, "Let the sound move it, or use a model like `mini`."
        )


def _fitted(
    code: Float[Tensor, "heard *field audio"], frames: int, speech_encoder: SpeechEncoder
) -> Float[Tensor, "{frames} *field audio"]:
    """Cut to the video's length, or fill up with silence."""
    if len(code) >= frames:
        return code[:frames]
    return torch.cat([code, speech_encoder.silence().expand(frames - len(code), *code.shape[1:])])


def frame_pairs(
    pipeline: SDTalkPipeline, reenactment: Reenactment, watch: Stopwatch | None = None, mark: bool = False
) -> Iterator[tuple[UInt8[np.ndarray, "size size channel"], UInt8[np.ndarray, "size size channel"]]]:
    """Prediction, marked where that is wanted, and real frame of every frame of the clip, over the same background."""
    r = reenactment
    predicted = render_frames(
        pipeline.model, r.head, r.signals, r.scene, FRAME_SIZE, watch, exact=r.exact, mark=mark
    )
    real = read_frames(reenactment.clip)
    for prediction in predicted:
        frames = list(islice(real, len(prediction)))
        yield from zip(prediction, real_frames(pipeline, reenactment, frames), strict=True)


def real_frames(
    pipeline: SDTalkPipeline, reenactment: Reenactment, frames: list[np.ndarray]
) -> UInt8[np.ndarray, "frame size size channel"]:
    """The clip's own frames, cropped, the person over the same background (or none)."""
    crops = np.stack([crop_picture(frame, reenactment.crop, FRAME_SIZE) for frame in frames])
    mask = pipeline.tracker.person_masks(crops)
    if reenactment.scene is None:
        return to_frames(torch.cat([to_tensor(crops), mask], dim=1))
    return to_frames(torch.lerp(reenactment.scene, to_tensor(crops), mask))


def reenact(
    pipeline: SDTalkPipeline,
    clip: str | Path,
    output: str | Path,
    target: str | Path | None = None,
    options: ReenactOptions = ReenactOptions(),  # noqa: B008 - frozen
    progress: Progress = no_progress,
) -> WrittenVideo:
    """Write the reenactment of a clip, and its real frames for comparison.

    Args:
        pipeline: Model and tracker.
        clip: Video of one person, with sound or without.
        output: What to write, see `video.open_writer`.
        target: The same for the real frames in the same crop and background; None: none.
        options: Who, and before which background.
        progress: Called with the stage, frames done and their number.

    Raises:
        InputError: An input cannot be used; nothing is left behind then.
    """
    outputs = [output] if target is None else [output, target]
    check_outputs(outputs, clip, options)
    reenactment = prepare(pipeline, clip, options, progress)
    total, watch = len(reenactment.signals), Stopwatch()
    sound = clip if probe(clip).has_sound else None
    with ExitStack() as stack:
        size, alpha = (FRAME_SIZE, FRAME_SIZE), reenactment.scene is None
        opened = [
            open_writer(
                p,
                size,
                sound=sound,
                frames=total,
                alpha=alpha,
                on_gpu=reenactment.head.eyes.is_cuda,
                claim=claim,
            )
            for p, claim in zip(outputs, (GENERATED, ""), strict=False)
        ]
        writers = [stack.enter_context(writer) for writer in opened]
        pairs = stack.enter_context(closing(frame_pairs(pipeline, reenactment, watch, options.mark)))  # type: ignore[type-var]
        for done, pair in enumerate(pairs):
            for writer, frame in zip(writers, pair, strict=False):
                writer.write(frame)
            progress("rendering", done + 1, total)
    return WrittenVideo(Path(output), total, reenactment.note, dict(watch.seconds))


def check_outputs(outputs: list[str | Path], clip: str | Path, options: ReenactOptions) -> None:
    """Find out before the work starts whether the outputs can be written.

    Raises:
        InputError: An output cannot be written, is an input, or is both outputs.
    """
    if len(outputs) == 2 and Path(outputs[0]).absolute() == Path(outputs[1]).absolute():
        raise InputError(str(outputs[1]), "it is both output and target", "Give two names.")
    for path in outputs:
        check_output(path, options.transparent)
        check_not_input(path, clip, options.portrait or clip, options.background)
