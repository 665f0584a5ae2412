"""Dubbing: an existing video of a person gets new speech; only mouth and jaw are painted anew, frame by frame."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sdtalk.dubbing.clip_track import ClipTrack, Shot, track_clip
from sdtalk.dubbing.dub_options import DubOptions
from sdtalk.dubbing.inner_mouth import OpenMouth
from sdtalk.dubbing.lower_face import LowerFace
from sdtalk.dubbing.playback import frame_order, frames_in_order
from sdtalk.dubbing.repaint import repaint
from sdtalk.errors import InputError
from sdtalk.live.in_flight import in_flight
from sdtalk.model import SDTalk
from sdtalk.options import check_not_input
from sdtalk.progress import Progress, counted
from sdtalk.provenance.claim import COMPOSITE
from sdtalk.provenance.mark import marked
from sdtalk.rendering.window_renderer import WindowRenderer
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, Speech
from sdtalk.speech.encoder import SpeechEncoder
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import write_video
from sdtalk.talk import showing
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import DUBBED, check_output, open_writer, probe, read_frames
from sdtalk.video.label import labelled

FASTEST, INSTEAD = 120.0, 30.0
"""Files that claim more frames a second (browsers write 1000 into theirs) are read and written with so many."""


@dataclass(frozen=True)
class PreparedShot:
    """What repaints the frames of a shot.

    Attributes:
        first: Number of its first frame in the clip.
        face: None: no face was seen in it.
        mouth: The same.
    """

    first: int
    face: LowerFace | None
    mouth: OpenMouth | None


@dataclass(repr=False)
class Dub:
    """A dubbed clip: `frames()` repaints, `save()` writes. Nothing is repainted before it is wanted.

    Attributes:
        clip: The video.
        speech: The sound.
        options: How it is dubbed.
        codes: State of the mouth in every frame of the result.
        order: Which frame of the clip each of them is.
        fps: Frames a second, those of the clip.
        size: Width and height in px, those of the clip.
        note: What the user should know, or "".
        path: Where it was last saved; None: nowhere yet.

    Examples:
        >>> dub = pipeline.dub("clip.mp4", "speech.wav")
        >>> first = next(dub.frames())
        >>> dub.save("dubbed.mp4")
    """

    clip: Path
    speech: Speech
    options: DubOptions
    codes: Float[Tensor, "frame 5"]
    order: Int[Tensor, " frame"]
    fps: float
    size: tuple[int, int]
    note: str
    model: SDTalk
    shots: list[PreparedShot]
    watch: Stopwatch = field(default_factory=Stopwatch)
    path: Path | None = None

    def __len__(self) -> int:
        """Frames of the result."""
        return len(self.order)

    def __repr__(self) -> str:
        place = "not saved" if self.path is None else f"saved as {str(self.path)!r}"
        return f"Dub({len(self)} frames, {self.seconds:.2f} s, {place})"

    @property
    def seconds(self) -> float:
        """Length of the result."""
        return len(self) / self.fps

    @property
    def timings(self) -> dict[str, float]:
        """Seconds spent so far, by stage; "rendering" adds up what every core took."""
        return dict(self.watch.seconds)

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Repaint from the first frame on, as frames are taken; memory does not grow.

        Yields:
            RGB, as large as the clip; but for mouth, jaw, label and mark the clip's own pixels.
        """
        batches = self.batches()
        with closing(batches):  # type: ignore[type-var]
            for batch in batches:
                yield from batch

    def save(
        self, path: str | Path, progress: Progress | Literal[True] | None = None, pieces: Path | None = None
    ) -> Path:
        """Repaint and write the video with its new sound; the file appears when all went well.

        Args:
            path: The file to write; what it ends in chooses the format, see `video.open_writer`.
            progress: Told about every frame; True shows a bar.
            pieces: As for `Talk.save`.

        Raises:
            InputError: It cannot be written; nothing is left behind then.
        """
        path = Path(path)
        check_not_input(path, self.clip)
        on_gpu = self.model.device.type == "cuda"
        sound, frames = self.speech.original, len(self)
        writer = open_writer(path, self.size, self.fps, sound, frames, False, on_gpu, pieces, COMPOSITE)
        writer.comment = DUBBED
        with showing(progress) as show, self.watch("video"), writer:
            batches = self.batches()
            with closing(batches):  # type: ignore[type-var]
                write_video(writer, batches, frames, show, self.watch)
        self.path = path
        return path

    def batches(self) -> Iterator[UInt8[np.ndarray, "1 height width 3"]]:
        """Finished frames, one at a time, each core at one of them."""
        # on a GPU one thread: its work is in order anyway
        workers = min(torch.get_num_threads(), 8) if self.model.device.type == "cpu" else 1
        numbered = enumerate(frames_in_order(self.clip, self.fps, self.order))
        made = labelled(in_flight(self._repainted, numbered, workers), self.options.label, self.size)
        return marked(made) if self.options.mark else made

    def _repainted(
        self, numbered: tuple[int, UInt8[np.ndarray, "height width 3"]]
    ) -> UInt8[np.ndarray, "1 height width 3"]:
        number, frame = numbered
        index = int(self.order[number])
        shot = next(shot for shot in reversed(self.shots) if shot.first <= index)
        if shot.face is not None and shot.mouth is not None:
            with self.watch("rendering"):
                repaint(self.model, shot.mouth, shot.face, index - shot.first, self.codes[number], frame)
        return frame[None]


def check_dub(
    clip: str | Path, output: str | Path | None, speech: object, model: SDTalk | None = None
) -> None:
    """Find out what can be found out before the work starts.

    Args:
        clip: The video.
        output: The file to write; None: nothing is written yet.
        speech: As pipelines take it; only paths are looked at here.
        model: What is to repaint; None: it is not loaded yet.

    Raises:
        InputError: The output cannot be written or is an input, the clip is no video, or the model cannot dub.
    """
    if output is not None:
        check_output(output)
        check_not_input(output, clip, *([speech] if isinstance(speech, str | Path) else []))
    if isinstance(speech, str | Path) and not Path(speech).is_file():
        raise InputError(str(speech), "there is no such file", "Check the path of the recording.")
    probe(clip)
    if model is not None and not isinstance(model.neural_renderer, WindowRenderer):
        problem = "it does not paint mouths into pictures, so it cannot dub"
        raise InputError(f"model {model.config.name!r}", problem, "Use a model like `mini`.")


def prepare_dub(
    model: SDTalk,
    tracker: Tracker,
    speech_encoder: SpeechEncoder,
    clip: str | Path,
    speech: Speech,
    options: DubOptions,
    progress: Progress,
) -> Dub:
    """Follow the face through a clip and listen to the sound.

    Args:
        model: One like `mini`, see `check_dub`.
        tracker: Finds faces.
        speech_encoder: Hears.
        clip: The video.
        speech: The new sound.
        options: How it is dubbed.
        progress: Told about the frames that were looked at.

    Raises:
        InputError: The clip cannot be read, or shows no face, or no face with the number that is asked for.
    """
    clip, watch = Path(clip), Stopwatch()
    info = probe(clip)
    fps = info.fps if info.fps <= FASTEST else INSTEAD
    wanted = max(1, math.ceil(len(speech.samples) / SAMPLE_RATE_HZ * fps - 1e-6))
    with watch("tracking"):
        frames = islice(read_frames(clip, fps), wanted)
        total = min(wanted, max(1, round(info.duration * fps)))
        track = track_clip(
            tracker.networks, counted(frames, "tracking", total, progress), str(clip), options.face
        )
    progress("preparing", 0, 0)
    with watch("audio"):
        codes = speech_encoder.encode(speech, options.mouth)
    order = frame_order(options.loop, len(track), wanted)
    with watch("preparing"):
        shots = [_prepared(shot, model.device) for shot in track.shots]
    note = _note(track, order, wanted / fps, fps, options.loop)
    return Dub(
        clip,
        speech,
        options,
        at_rate(codes, len(order), fps),
        order,
        fps,
        track.size,
        note,
        model,
        shots,
        watch,
    )


def _prepared(shot: Shot, device: torch.device) -> PreparedShot:
    face = None if shot.mouth is None else LowerFace.of(shot)
    return PreparedShot(shot.first, face, None if face is None else OpenMouth.of(shot, device))


def at_rate(codes: Float[Tensor, "heard 5"], frames: int, fps: int | float) -> Float[Tensor, "{frames} 5"]:
    """Mouth codes, 25 a second, at the middles of frames of another rate; linear between."""
    place = ((torch.arange(frames, dtype=torch.float64) + 0.5) * (FRAME_RATE_HZ / fps) - 0.5).clamp(
        0, len(codes) - 1
    )
    before = place.floor().long()
    share = (place - before)[:, None].float()
    return torch.lerp(codes[before], codes[(before + 1).clamp(max=len(codes) - 1)], share)


def _note(track: ClipTrack, order: Int[Tensor, " frame"], sound_s: float, fps: float, loop: str) -> str:
    """What the user should know of a dub."""
    notes, clip_s = [], len(track) / fps
    if sound_s > clip_s + 1 / fps:
        how = {
            "pingpong": "the clip goes backward and forward",
            "hold": "its last frame stays",
            "cut": "the rest of the sound is cut off",
        }[loop]
        notes.append(f"The sound lasts {sound_s:.1f} s and the clip {clip_s:.1f} s: {how}.")
    if len(track.shots) > 1:
        notes.append(f"{len(track.shots) - 1} cuts were found; every shot has a mouth of its own.")
    if missing := track.without_face:
        notes.append(f"{missing} of {len(track)} frames show no face and stay as they are.")
    return " ".join(notes)
