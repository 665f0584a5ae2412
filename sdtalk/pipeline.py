"""Files in, a file out: everything around the model. A portrait and a recording become a talking video."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.checkpoint import load_model, locate, read_config
from sdtalk.config import SDTalkConfig
from sdtalk.driving import followed_cameras, followed_eyes, idle_cameras, natural_blinks
from sdtalk.flame.tracker import FlameTracker
from sdtalk.head import HeadGaussians
from sdtalk.image import Background, background_frame, parse_background, read_picture, to_frames
from sdtalk.model import SDTalk
from sdtalk.options import LOUDEST_MOUTH, TalkOptions, check_inputs, choose_device, choose_precision
from sdtalk.speech.audio import Speech, frame_count, read_speech, speech_level
from sdtalk.speech.encoder import SpeechEncoder, hubert_for
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import DrivingSignals, Progress, render_frames, write_video
from sdtalk.tracking.head_track import HeadTrack, Portrait
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import VideoWriter, read_frames
from sdtalk.video.label import labelled

__all__ = ["LOUDEST_MOUTH", "SDTalkPipeline", "Talk", "TalkOptions"]

DRIVER_FRAMES = 7500
"""At most five minutes of a video that lends its pose are tracked; a longer recording loops them."""


@dataclass(frozen=True)
class Talk:
    """A finished video.

    Attributes:
        path: Where it is.
        frames: Its length in frames of 1/25 s.
        note: What the user should know, or "".
        timings: Seconds spent, by stage; "encoding" runs beside the others.
    """

    path: Path
    frames: int
    note: str = ""
    timings: dict[str, float] = field(default_factory=dict)


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


class SDTalkPipeline:
    """Makes talking videos; holds the model and the tracker, and nothing of any person."""

    def __init__(
        self,
        model: SDTalk,
        tracker: Tracker,
        device: torch.device | str = "cpu",
        speech_encoder: SpeechEncoder | None = None,
    ) -> None:
        self.model, self.tracker, self.device = model, tracker, torch.device(device)
        self.speech_encoder = speech_encoder or SpeechEncoder.for_model(model, device)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "mini",
        device: str = "auto",
        precision: str = "auto",
        compiled: bool = False,
    ) -> "SDTalkPipeline":
        """Load a checkpoint and what it sees and hears with.

        Args:
            source: "mini" (bundled), a folder, or "user/name" or "user/name@revision" on the Hugging Face Hub.
            device: "cpu", "cuda", or "auto": CUDA where it can be used.
            precision: "float32", "bfloat16", or "auto": bfloat16 for large models where the processor knows it.
            compiled: Compile the networks, see `SDTalk.compiled`.

        Raises:
            InputError: The checkpoint, the device or the precision cannot be used, or FLAME or HuBERT are needed
                and not there.
        """
        chosen, folder = choose_device(device), locate(source)
        config = read_config(folder)
        dtype = choose_precision(precision, config, chosen)
        tracker = tracker_for(config, chosen)  # first, since what is missing shows at once
        hubert = hubert_for(config, chosen, dtype)
        model = load_model(folder, chosen).in_precision(dtype)
        model = model.compiled() if compiled else model
        return cls(model, tracker, chosen, SpeechEncoder(model, hubert, chosen))

    def __call__(
        self,
        portrait: str | Path,
        speech: str | Path,
        output: str | Path,
        options: TalkOptions = TalkOptions(),  # noqa: B008 - frozen
        progress: Progress = no_progress,
    ) -> Talk:
        """Make a video of a person speaking; it is exactly as long as the sound, to within a frame.

        Args:
            portrait: Picture with one face.
            speech: Recording, or a video with sound.
            output: The .mp4 to write; appears when all went well.
            options: Pose, blinks, background, size.
            progress: Called with the stage ("preparing", "tracking" a video, "rendering"), frames done and their
                number. What it raises ends the work.

        Raises:
            InputError: Any input cannot be used; nothing is left behind then.
        """
        watch = Stopwatch()
        progress("preparing", 0, 0)
        with watch("reading"):
            check_inputs(portrait, speech, output, options)
            background = parse_background(options.background)
            picture, sound = read_picture(portrait), read_speech(speech)
        frames = frame_count(sound.samples)
        progress("preparing", 0, 0)  # nothing to count, but a chance to stop
        with watch("tracking"):
            person = self.tracker.portrait(picture.pixels, str(portrait))
        progress("preparing", 0, 0)
        with watch("reconstruction"):
            head = self.reconstruct(person)
        progress("preparing", 0, 0)
        signals = self._driving_signals(person, sound, options, progress, watch)
        scene = self.scene(background, person)
        with VideoWriter(output, (options.size, options.size), sound=speech) as writer:
            batches = render_frames(self.model, head, signals, scene, options.size, watch, options.seed)
            with closing(batches):  # type: ignore[type-var]
                write_video(writer, labelled(batches, options.label, options.size), frames, progress, watch)
        note = " ".join(n for n in (picture.note, person.note) if n)
        return Talk(Path(output), frames, note, dict(watch.seconds))

    @torch.inference_mode()
    def reconstruct(self, person: Portrait) -> HeadGaussians:
        """Make a head of a tracked portrait; once per person."""
        where = self.device
        return self.model.reconstruct(person.image.to(where), person.mask.to(where), person.track.to(where))

    def scene(self, background: Background, person: Portrait) -> Float[Tensor, "1 3 height width"]:
        """What stands still behind the head."""
        return background_frame(background, to_frames(person.image)[0], person.mask[0, 0])

    def _driving_signals(
        self, person: Portrait, sound: Speech, options: TalkOptions, progress: Progress, watch: Stopwatch
    ) -> DrivingSignals:
        """Decide what every frame shows."""
        rest, frames = person.track, frame_count(sound.samples)
        with watch("audio"):
            code = self.speech_encoder.encode(sound, options.mouth)
            level = speech_level(sound.samples)
        drivers: dict[str, HeadTrack] = {}
        with watch("tracking"):
            for path in {options.pose, options.blink} - {"idle", "still", "natural", "none"}:
                drivers[path] = self._driver(path, frames, progress)
        if options.pose in drivers:
            camera = followed_cameras(rest.camera, drivers[options.pose].camera, frames)
        elif options.pose == "idle":
            camera = idle_cameras(rest.camera, level, options.seed)
        else:
            camera = rest.camera[torch.zeros(frames, dtype=torch.long)]
        if options.blink in drivers:
            eyes = followed_eyes(rest.eyes, drivers[options.blink].eyes, frames)
        elif options.blink == "natural":
            eyes = natural_blinks(rest.eyes, frames, options.seed)
        else:
            eyes = rest.eyes.expand(frames, -1)
        return DrivingSignals(code, self.eyes_for_model(eyes), camera)

    def eyes_for_model(self, eyes: Float[Tensor, "frame 6"]) -> Float[Tensor, "frame 6"]:
        """Eye states in the model's steps: blinks and drivers scale what published weights know in whole px only."""
        return eyes.trunc() if self.model.config.eyes_in_px else eyes

    def _driver(self, path: str, frames: int, progress: Progress) -> HeadTrack:
        """Track as much of a video as is needed."""
        wanted = min(frames, DRIVER_FRAMES)
        pictures = islice(read_frames(path), wanted)
        return self.tracker.video(counted(pictures, "tracking", wanted, progress), path).track


def tracker_for(config: SDTalkConfig, device: torch.device | str) -> Tracker:
    """The tracker that gives what a model was trained on.

    Raises:
        InputError: It fits FLAME, which is not on this machine.
    """
    if config.template == "flame":
        return FlameTracker.from_installed(device, eyes_in_px=config.eyes_in_px)
    return Tracker.from_bundled(device)


def counted(frames: Iterator[np.ndarray], stage: str, total: int, progress: Progress) -> Iterator[np.ndarray]:
    """Pass frames on and tell how many have gone by."""
    for done, frame in enumerate(frames):
        yield frame
        progress(stage, done + 1, total)
