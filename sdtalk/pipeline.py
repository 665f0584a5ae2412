"""The pipeline: a portrait and a recording go in, a talking video comes out. Everything around the model.

    portrait ─► read_picture ─► Tracker ─► Portrait ─► SDTalk.reconstruct ─► Head                      once a person
                                                                              │
    speech ──► read_speech ──► SpeechEncoder ─► audio codes ─┐                ▼
    options ─► idle motion, blinks, a video to follow ───────┴► DrivingSignals ─► Talk                 once a recording
                                                                                   │
                              Talk.frames() ◄── render_frames ◄────────────────────┤                   once a frame
                              Talk.save() ◄── VideoWriter ◄────────────────────────┘

A pipeline holds nothing of any person: two portraits cannot mix.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sdtalk.background import Background, parse_background
from sdtalk.batch import Job, JobResult, run_batch
from sdtalk.checkpoint import load_model, locate, read_config
from sdtalk.devices import choose_device, choose_precision, choose_rasteriser
from sdtalk.directing import driving_signals, eyes_for_model
from sdtalk.driving import DrivingSignals
from sdtalk.dubbing import Dub, DubOptions, check_dub, prepare_dub
from sdtalk.framing import scene_behind
from sdtalk.full_float32 import full_float32
from sdtalk.gpu_memory import enough_memory
from sdtalk.head import Head, HeadGaussians
from sdtalk.image import PictureSource, read_picture, turned_picture
from sdtalk.model import SDTalk
from sdtalk.options import TalkOptions, check_inputs
from sdtalk.progress import Progress, no_progress
from sdtalk.speech.audio import Speech, SpeechSource, read_speech
from sdtalk.speech.encoder import SpeechEncoder, features_for
from sdtalk.stopwatch import Stopwatch
from sdtalk.talk import Talk, showing
from sdtalk.tracking.found_faces import LARGEST, FoundFace, found_faces
from sdtalk.tracking.head_track import Portrait
from sdtalk.tracking.tracker import Tracker

LEAST_OPENING = 0.02
SILENT = "Nothing that sounds like speech was heard; the face stays calm."


class SDTalkPipeline:
    """Makes talking videos; holds the model and the tracker, and nothing of any person.

    Examples:
        >>> pipeline = SDTalkPipeline.from_pretrained()
        >>> pipeline("portrait.jpg", "speech.wav").save("talk.mp4")
    """

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
        rasteriser: str = "auto",
    ) -> "SDTalkPipeline":
        """Load a checkpoint and what it sees and hears with.

        Args:
            source: "mini" (bundled), a folder, or "user/name" or "user/name@revision" on the Hugging Face Hub.
            device: "cpu", "cuda", or "auto": CUDA where it can be used.
            precision: "float32", "bfloat16", or "auto": bfloat16 for large models where the processor or GPU knows it.
            compiled: Compile the networks, see `SDTalk.compiled`.
            rasteriser: On CUDA: "triton", also "auto", or "gsplat", which compiles itself with nvcc.

        Raises:
            InputError: The checkpoint, the device, the precision or the rasteriser cannot be used, or FLAME or HuBERT
                are needed and not there.

        Examples:
            >>> SDTalkPipeline.from_pretrained("mini", device="cpu")
            SDTalkPipeline('mini', cpu, float32)
        """
        from sdtalk.flame.tracker import tracker_for  # takes a quarter of a second to import

        chosen, folder = choose_device(device), locate(source)
        config = read_config(folder)
        dtype, on_cuda = choose_precision(precision, config, chosen), choose_rasteriser(rasteriser, chosen)
        with enough_memory(chosen):
            tracker = tracker_for(config, chosen)  # first, since what is missing shows at once
            features = features_for(config, chosen, dtype)
            model = load_model(folder, chosen).in_precision(dtype).drawing_with(on_cuda)
        model = model.compiled() if compiled else model
        return cls(model, tracker, chosen, SpeechEncoder(model, features, chosen))

    def to(self, device: torch.device | str) -> "SDTalkPipeline":
        """Move the model and the networks around it; heads made before stay where they are.

        Args:
            device: "cpu", "cuda", "cuda:1", or "auto".

        Raises:
            InputError: There is no such device, or nothing here can use it.

        Examples:
            >>> pipeline.to("cpu")
            SDTalkPipeline('mini', cpu, float32)
        """
        chosen = choose_device(str(device))
        with enough_memory(chosen):
            self.model.to(chosen)
            self.tracker.to(chosen)
            self.speech_encoder.to(chosen)
        self.device = chosen
        return self

    def __repr__(self) -> str:
        precision = str(self.model.precision).removeprefix("torch.")
        return f"SDTalkPipeline({self.model.config.name!r}, {self.device}, {precision})"

    def __call__(
        self,
        portrait: PictureSource,
        speech: SpeechSource,
        output: str | Path | None = None,
        options: TalkOptions | None = None,
        *,
        sampling_rate: int | None = None,
        face: int = LARGEST,
        turn: int = 0,
        progress: Progress | Literal[True] | None = None,
        **choices: Any,
    ) -> Talk:
        """Make a person speak; the video is exactly as long as the sound, to within a frame.

        Args:
            portrait: Picture with a face: a path, a PIL image, an array [height, width, 3], or the bytes of a file.
            speech: Recording: a path (also of a video with sound), (rate, array), or a mono tensor or array with
                `sampling_rate`.
            output: File to write at once; None: nothing is rendered before it is wanted, see `Talk`.
            options: How the video is made.
            sampling_rate: Of a bare array, in Hz.
            face: Which face of the picture, counted from left to right from 1, see `faces`; 0: the largest.
            turn: Turn the picture clockwise first: 0, 90, 180 or 270 degrees.
            progress: Called with the stage ("preparing", "tracking" a video, "rendering"), frames done and their
                number; what it raises ends the work. True shows a bar.
            choices: Fields of `TalkOptions` by name, on top of `options`: pose, blink, background, size, seed, mouth,
                expression, label, exact, frame, shape, mark, motion, style, blink_rate, life, yaw, pitch, roll.

        Raises:
            InputError: Any input cannot be used; nothing is left behind then.

        Examples:
            >>> talk = pipeline("portrait.jpg", "speech.wav", pose="still", mouth=1.2)
            >>> next(talk.frames()).shape
            (512, 512, 3)
            >>> talk.save("talk.mp4")
        """
        options, watch = TalkOptions.of(options, **choices), Stopwatch()
        check_inputs(portrait, speech, output, options)
        with showing(progress) as show:
            head = self._reconstruct(portrait, face, turn, show, watch)
            return self._talk(head, speech, sampling_rate, output, options, show, watch)

    def faces(self, portrait: PictureSource) -> list[FoundFace]:
        """The faces of a photo, from left to right, each with what should be known of it before it speaks.

        Args:
            portrait: As for the pipeline itself.

        Raises:
            InputError: It is no picture.

        Examples:
            >>> [face.turned_deg for face in pipeline.faces("portrait.jpg")]
            [0]
        """
        with self._on_device():
            return found_faces(read_picture(portrait, "portrait").pixels, self.tracker.networks)

    def reconstruct(self, portrait: PictureSource, *, face: int = LARGEST, turn: int = 0) -> Head:
        """Make a head of a photo, once a person.

        Args:
            portrait: As for the pipeline itself.
            face: Which face of the picture, counted from left to right from 1; 0: the largest.
            turn: Turn the picture clockwise first: 0, 90, 180 or 270 degrees.

        Raises:
            InputError: It is no picture, or shows no face that can be used.

        Examples:
            >>> head = pipeline.reconstruct("portrait.jpg")
            >>> for name in ("one", "two"):
            ...     pipeline.talk(head, f"{name}.wav").save(f"{name}.mp4")
        """
        with showing(None) as show:
            return self._reconstruct(portrait, face, turn, show, Stopwatch())

    def talk(
        self,
        head: Head,
        speech: SpeechSource,
        output: str | Path | None = None,
        options: TalkOptions | None = None,
        *,
        sampling_rate: int | None = None,
        progress: Progress | Literal[True] | None = None,
        **choices: Any,
    ) -> Talk:
        """Make a head speak; as the pipeline itself, without looking at the photo again.

        Args:
            head: From `reconstruct` of this pipeline.
            speech: Recording.
            output: File to write at once; None: nothing is rendered before it is wanted.
            options: How the video is made.
            sampling_rate: Of a bare array, in Hz.
            progress: As for the pipeline itself.
            choices: Fields of `TalkOptions` by name, on top of `options`.

        Raises:
            InputError: Any input cannot be used; nothing is left behind then.

        Examples:
            >>> head = pipeline.reconstruct("portrait.jpg")
            >>> pipeline.talk(head, "speech.wav", "talk.mp4").path.name
            'talk.mp4'
        """
        options = TalkOptions.of(options, **choices)
        check_inputs(None, speech, output, options)
        with showing(progress) as show:
            return self._talk(head, speech, sampling_rate, output, options, show, Stopwatch())

    def dub(
        self,
        clip: str | Path,
        speech: SpeechSource,
        output: str | Path | None = None,
        options: DubOptions | None = None,
        *,
        sampling_rate: int | None = None,
        progress: Progress | Literal[True] | None = None,
        **choices: Any,
    ) -> Dub:
        """Give an existing video of a person new speech: only mouth and jaw change, see `sdtalk.dubbing`.

        Args:
            clip: The video; its frames, size and frame rate stay.
            speech: Recording, as for the pipeline itself; the video ends with it.
            output: File to write at once; None: nothing is repainted before it is wanted, see `Dub`.
            options: How it is dubbed.
            sampling_rate: Of a bare array, in Hz.
            progress: As for the pipeline itself.
            choices: Fields of `DubOptions` by name, on top of `options`: face, loop, mouth, label, mark.

        Raises:
            InputError: Any input cannot be used, or the model is not one like `mini`; nothing is left behind then.

        Examples:
            >>> pipeline.dub("clip.mp4", "speech.wav", loop="hold").save("dubbed.mp4")
        """
        chosen = DubOptions.of(options, **choices)
        check_dub(clip, output, speech, self.model)
        sound = read_speech(speech, sampling_rate)
        with showing(progress) as show, self._on_device():
            dub = prepare_dub(self.model, self.tracker, self.speech_encoder, clip, sound, chosen, show)
            if output is not None:
                dub.save(output, show)
        return dub

    def batch(
        self,
        jobs: Iterable[Job] | str | Path,
        folder: str | Path,
        progress: Progress | Literal[True] | None = None,
    ) -> list[JobResult]:
        """Make many videos, each photo looked at once; a job that fails stops no other, what is finished is skipped.

        Args:
            jobs: `sdtalk.batch.Job`s, or the path of a .jsonl or .csv file of them.
            folder: Where the videos go.
            progress: As for the pipeline itself.

        Returns:
            What became of every job, in order.

        Raises:
            InputError: The file of jobs or the folder cannot be used.

        Examples:
            >>> from sdtalk.batch import Job
            >>> results = pipeline.batch([Job("portrait.jpg", "speech.wav")], "videos")
            >>> results[0].outcome, results[0].path.name
            ('made', 'portrait_speech.mp4')
        """
        return run_batch(self, jobs, folder, progress)

    @torch.inference_mode()
    def reconstruct_tracked(self, person: Portrait) -> HeadGaussians:
        """Turn a tracked portrait into Gaussians, on the pipeline's device."""
        where, image, mask = self.device, person.image, person.mask
        if self.model.config.margin_px and person.picture is not None:
            image, mask = self.tracker.with_margin(person, self.model.config.margin_px)
        with self._on_device():
            return self.model.reconstruct(image.to(where), mask.to(where), person.track.to(where))

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Around what decides positions: on a GPU float32 in full, and a clear error where its memory is too small."""
        with full_float32(self.device), enough_memory(self.device):
            yield

    def scene(self, background: Background, person: Portrait) -> Float[Tensor, "1 3 height width"] | None:
        """What stands still behind the head; None: nothing."""
        return scene_behind(background, person)

    def signals(
        self,
        person: Portrait,
        sound: Speech,
        options: TalkOptions,
        progress: Progress = no_progress,
        watch: Stopwatch | None = None,
    ) -> DrivingSignals:
        """What happens in every frame of a talk, see `directing.driving_signals`."""
        with self._on_device():
            parts = self.model.config, self.speech_encoder, self.tracker
            return driving_signals(*parts, person, sound, options, progress, watch or Stopwatch())

    def eyes_for_model(self, eyes: Float[Tensor, "frame 6"]) -> Float[Tensor, "frame 6"]:
        """Eye states in the model's steps: blinks and drivers scale what published weights know in whole px only."""
        return eyes_for_model(self.model.config, eyes)

    def _reconstruct(
        self, portrait: PictureSource, face: int, turn: int, progress: Progress, watch: Stopwatch
    ) -> Head:
        progress("preparing", 0, 0)
        name = str(portrait) if isinstance(portrait, str | Path) else "portrait"
        with watch("reading"):
            picture = turned_picture(read_picture(portrait, name), turn)
        progress("preparing", 0, 0)  # nothing to count, but a chance to stop
        with watch("tracking"), self._on_device():
            person = self.tracker.portrait(picture.pixels, name, face)
        progress("preparing", 0, 0)
        with watch("reconstruction"):
            gaussians = self.reconstruct_tracked(person)
        return Head(gaussians, person, " ".join(n for n in (picture.note, person.note) if n))

    def _talk(
        self,
        head: Head,
        speech: SpeechSource,
        sampling_rate: int | None,
        output: str | Path | None,
        options: TalkOptions,
        progress: Progress,
        watch: Stopwatch,
    ) -> Talk:
        progress("preparing", 0, 0)
        with watch("reading"):
            background = parse_background(options.background)
            sound = read_speech(speech, sampling_rate)
        progress("preparing", 0, 0)
        signals = self.signals(head.portrait, sound, options, progress, watch)
        if self._stays_closed(signals) and options.mouth:
            head = replace(head, note=f"{head.note} {SILENT}".strip())
        talk = Talk(self.model, head, signals, sound, background, options, watch)
        if output is not None:
            talk.save(output, progress)
        return talk

    def _stays_closed(self, signals: DrivingSignals) -> bool:
        """Whether the mouth opens in no frame: nothing that sounds like speech was heard."""
        return self.model.config.hears_mouth_codes and bool(signals.audio_code[..., 0].amax() < LEAST_OPENING)
