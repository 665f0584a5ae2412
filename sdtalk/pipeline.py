"""Files in, a file out: everything around the model. A portrait and a recording become a talking video."""

import importlib.util
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.audio import Speech, frame_count, read_speech, speech_level, speech_windows
from sdtalk.camera import FRAME_SIZE
from sdtalk.checkpoint import load_model
from sdtalk.errors import InputError
from sdtalk.image import Background, background_frame, parse_background, read_picture, to_frames
from sdtalk.label import LONGEST_LABEL, labelled
from sdtalk.model import HeadGaussians, SDTalk
from sdtalk.motion.audio_encoder import hold_in_silence
from sdtalk.poses import followed_cameras, followed_eyes, idle_cameras, natural_blinks
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import Performance, Progress, render_frames, write_video
from sdtalk.tracking.head_track import HeadTrack, Portrait
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import VideoWriter, check_output, probe, read_frames

SMALLEST, LARGEST = 64, 1024
"""Limits of the video's side in px; beyond the model's own 512 px it only gets softer."""

LOUDEST_MOUTH = 2.0

DRIVER_FRAMES = 7500
"""At most five minutes of a video that lends its pose are tracked; a longer recording loops them."""


@dataclass(frozen=True)
class TalkOptions:
    """How a talking video is made.

    Attributes:
        pose: "idle" (small natural motion), "still", or a video whose head is followed.
        blink: "natural", "none", or a video whose eyes are followed.
        background: "original", a colour (`white`, `#rrggbb`), or a picture.
        size: Side of the video in px, 64 to 1024.
        seed: Chooses the idle motion and the moments of blinks.
        mouth: How far the mouth moves, 1 as learned; 0 to 2.
        label: Text in a corner of every frame, for example "AI-generated"; "": none.
    """

    pose: str = "idle"
    blink: str = "natural"
    background: str = "original"
    size: int = FRAME_SIZE
    seed: int = 0
    mouth: float = 1.0
    label: str = ""

    def __post_init__(self) -> None:
        if not SMALLEST <= self.size <= LARGEST:
            remedy = f"Choose {SMALLEST} to {LARGEST} (the model's own size is {FRAME_SIZE})."
            raise InputError(f"size {self.size}", "frames cannot be made that small or large", remedy)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed {self.seed}", "it is negative or too large", "Choose, say, 0.")
        if not (math.isfinite(self.mouth) and 0 <= self.mouth <= LOUDEST_MOUTH):
            remedy = f"Choose 0 (still) to {LOUDEST_MOUTH:g}; 1 is what was learned."
            raise InputError(f"mouth {self.mouth}", "no possible strength of the mouth's motion", remedy)
        if len(self.label) > LONGEST_LABEL or not self.label.isprintable():
            remedy = f"Give one line of at most {LONGEST_LABEL} characters."
            raise InputError(f"label {self.label!r}", "it does not fit into a corner", remedy)


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

    def __init__(self, model: SDTalk, tracker: Tracker, device: torch.device | str = "cpu") -> None:
        self.model, self.tracker, self.device = model, tracker, torch.device(device)

    @classmethod
    def from_pretrained(cls, source: str | Path = "mini", device: str = "auto") -> "SDTalkPipeline":
        """Load a checkpoint and the tracker.

        Args:
            source: "mini" (bundled), a folder, or "user/name" on the Hugging Face Hub.
            device: "cpu", "cuda", or "auto": CUDA where it can be used.

        Raises:
            InputError: The checkpoint or the device cannot be used.
        """
        chosen = choose_device(device)
        return cls(load_model(source, chosen), Tracker.from_bundled(chosen), chosen)

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
            progress: Called with the stage, frames done and their number.

        Raises:
            InputError: Any input cannot be used; nothing is left behind then.
        """
        watch = Stopwatch()
        with watch("reading"):
            check_inputs(portrait, speech, output, options)
            background = parse_background(options.background)
            picture, sound = read_picture(portrait), read_speech(speech)
        frames = frame_count(sound.samples)
        with watch("tracking"):
            person = self.tracker.portrait(picture.pixels, str(portrait))
        with watch("reconstruction"):
            head = self.reconstruct(person)
        performance = self._performance(person, sound, options, progress, watch)
        scene = self.scene(background, person)
        with VideoWriter(output, (options.size, options.size), sound=speech) as writer:
            batches = render_frames(self.model, head, performance, scene, options.size, watch)
            with closing(batches):  # type: ignore[type-var]
                write_video(writer, labelled(batches, options.label, options.size), frames, progress, watch)
        note = " ".join(n for n in (picture.note, person.note) if n)
        return Talk(Path(output), frames, note, dict(watch.seconds))

    @torch.inference_mode()
    def reconstruct(self, person: Portrait) -> HeadGaussians:
        """Make a head of a tracked portrait; once per person."""
        where = self.device
        return self.model.reconstruct(person.image.to(where), person.mask.to(where), person.track.to(where))

    @torch.inference_mode()
    def listen(self, sound: Speech) -> Float[Tensor, "frame audio"]:
        """Mouth codes of a recording, at rest in its pauses; on the CPU."""
        codes = [
            self.model.listen(windows.to(self.device)).cpu() for windows in speech_windows(sound.samples)
        ]
        return hold_in_silence(torch.cat(codes), speech_level(sound.samples))

    def scene(self, background: Background, person: Portrait) -> Float[Tensor, "1 3 height width"]:
        """What stands still behind the head."""
        return background_frame(background, to_frames(person.image)[0], person.mask[0, 0])

    def _performance(
        self, person: Portrait, sound: Speech, options: TalkOptions, progress: Progress, watch: Stopwatch
    ) -> Performance:
        """Decide what every frame shows."""
        rest, frames = person.track, frame_count(sound.samples)
        with watch("audio"):
            code = self.listen(sound) * options.mouth
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
        return Performance(code, eyes, camera)

    def _driver(self, path: str, frames: int, progress: Progress) -> HeadTrack:
        """Track as much of a video as is needed."""
        wanted = min(frames, DRIVER_FRAMES)
        pictures = islice(read_frames(path), wanted)
        return self.tracker.video(counted(pictures, "tracking", wanted, progress), path).track


def counted(frames: Iterator[np.ndarray], stage: str, total: int, progress: Progress) -> Iterator[np.ndarray]:
    """Pass frames on and tell how many have gone by."""
    for done, frame in enumerate(frames):
        yield frame
        progress(stage, done + 1, total)


def choose_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        usable = torch.cuda.is_available() and importlib.util.find_spec("gsplat") is not None
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r}", "no such device", "Choose auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r}", "the rasteriser has no code for it", "Choose auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r}", "PyTorch finds no such GPU", "Choose auto or cpu.")
    return device


def check_inputs(portrait: str | Path, speech: str | Path, output: str | Path, options: TalkOptions) -> None:
    """Find out what can be found out before the work starts.

    Raises:
        InputError: The output cannot be written, or an input is missing.
    """
    check_output(output)
    check_not_input(output, portrait, speech, options.pose, options.blink, options.background)
    for path, kind in ((portrait, "picture"), (speech, "recording")):
        if not Path(path).is_file():
            problem = "it is not a file" if Path(path).exists() else "there is no such file"
            raise InputError(str(path), problem, f"Check the path of the {kind}.")
    for choice, words in ((options.pose, ("idle", "still")), (options.blink, ("natural", "none"))):
        _check_driver(choice, words)


def _check_driver(choice: str, words: tuple[str, str]) -> None:
    """Make sure that a choice is one of two words or a video that can be read."""
    if choice in words:
        return
    if not Path(choice).exists():
        remedy = f"Give '{words[0]}', '{words[1]}', or the path of a video."
        raise InputError(f"{choice!r}", "no such choice and no such file", remedy)
    probe(choice)


def check_not_input(output: str | Path, *inputs: str | Path) -> None:
    """Refuse to write over an input.

    Raises:
        InputError: The output is one of the inputs.
    """
    for path in inputs:
        if Path(path).exists() and Path(output).exists() and Path(path).samefile(output):
            raise InputError(str(output), "it is also an input", "Choose another name for the output.")
