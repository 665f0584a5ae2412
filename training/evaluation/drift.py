"""Measure drift: sharpness and identity over a long video, as curves.

    python -m training.evaluation.drift VIDEO -o runs/drift                           # of any method
    python -m training.evaluation.drift --photo PHOTO --speech SPEECH --model mini    # five minutes, rendered here

The sound is repeated until the video is long enough. Writes drift.json and drift.png. A talk's frames depend on nothing
but what drives them: --only-measured renders just those that are looked at, one a second, which takes a minute instead
of a quarter of an hour; without it all are rendered, as users do.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from sdtalk.background import parse_background
from sdtalk.camera import FRAME_SIZE
from sdtalk.cli.arguments import USER_ERROR
from sdtalk.devices import choose_device
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.speech.audio import FRAME_RATE_HZ, SAMPLE_RATE_HZ, read_speech
from sdtalk.stream import render_frames
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import probe, read_frames
from training.data.atomic import write_atomically
from training.evaluation.drift_metrics import CURVES, Drift, drift, measure_frame
from training.evaluation.identity import IrSe50


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        InputError: It asks for nothing, or for two things.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", nargs="?", type=Path, help="a finished video of one person")
    parser.add_argument("--photo", type=Path, help="render a talk of this photo instead")
    parser.add_argument("--speech", type=Path, help="with this sound, repeated")
    parser.add_argument("--model", default="mini", help="mini, a folder, or USER/NAME on the Hub")
    parser.add_argument("--minutes", type=float, default=5.0, help="at most so long (5)")
    parser.add_argument(
        "--every", type=int, default=FRAME_RATE_HZ, help="measure every so manieth frame (25)"
    )
    parser.add_argument(
        "--only-measured", action="store_true", help="render only the frames that are measured"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/drift"))
    arguments = parser.parse_args(argv)
    talk = arguments.photo, arguments.speech
    if (arguments.video is None) == (talk == (None, None)) or (None in talk and any(talk)):
        raise InputError("drift", "it is not clear what to measure", "Give VIDEO, or --photo and --speech.")
    for name, least in (("minutes", 0.002), ("every", 1)):
        value = getattr(arguments, name)
        if not (value >= least and math.isfinite(value)):
            raise InputError(f"--{name} {value}", f"it is less than {least}", "Give more.")
    return arguments


def video_frames(path: Path, every: int, limit: int) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Every so manieth frame of a video's first `limit`.

    Raises:
        InputError: It cannot be read.
    """
    frames = read_frames(path)
    with closing(frames):  # type: ignore[type-var]
        yield from islice(frames, 0, limit, every)


def talk_frames(
    pipeline: SDTalkPipeline, photo: Path, speech: Path, every: int, limit: int, only_measured: bool
) -> Iterator[UInt8[np.ndarray, "512 512 3"]]:
    """Every so manieth frame of a talk, whose sound is repeated until there are `limit` frames.

    Raises:
        InputError: The photo or the sound cannot be used.
    """
    once = read_speech(speech).samples.numpy()
    samples = np.resize(once, limit * SAMPLE_RATE_HZ // FRAME_RATE_HZ)  # repeats
    head = pipeline.reconstruct(photo)
    talk = pipeline.talk(head, (SAMPLE_RATE_HZ, samples), mark=False)
    if not only_measured:
        yield from islice(talk.frames(), 0, limit, every)
        return
    scene = pipeline.scene(parse_background(talk.options.background), head.portrait)
    signals = talk.signals[0:limit:every]
    for batch in render_frames(pipeline.model, head.gaussians, signals, scene, FRAME_SIZE):
        yield from batch


def measure_drift(arguments: argparse.Namespace) -> Drift:
    """Render or read, and measure.

    Raises:
        InputError: Something cannot be used, or no face is found.
    """
    limit, every = max(1, round(arguments.minutes * 60 * FRAME_RATE_HZ)), arguments.every
    device = choose_device(arguments.device)
    if arguments.video is not None:
        name, tracker = str(arguments.video), Tracker.from_bundled(device)
        frames = video_frames(arguments.video, every, limit)
        limit = min(limit, round(probe(arguments.video).duration * FRAME_RATE_HZ))
    else:
        pipeline = SDTalkPipeline.from_pretrained(arguments.model, str(device))
        name, tracker = str(arguments.photo), Tracker.from_bundled(device)
        frames = talk_frames(
            pipeline, arguments.photo, arguments.speech, every, limit, arguments.only_measured
        )
    arcface = IrSe50.installed(device)
    shown = tqdm(frames, desc="frames", total=-(-limit // every))
    measured = (
        measure_frame(tracker, arcface, frame, number * every / FRAME_RATE_HZ)
        for number, frame in enumerate(shown)
    )
    return drift(measured, tracker.face.pose_weights.numpy(), name)


def as_json(found: Drift, about: dict[str, str]) -> str:
    """The text of drift.json; frames without a face have null."""
    curves = {
        name: [round(float(v), 5) if np.isfinite(v) else None for v in curve]
        for name, curve in found.curves.items()
    }
    content = {"version": 1, **about, "curves": {name: CURVES[name] for name in curves}}
    content |= {"summary": found.summary(), "missing": found.missing}
    return (
        json.dumps(content | {"seconds": found.seconds.tolist(), **curves}, indent=1, allow_nan=False) + "\n"
    )


def plot(found: Drift, target: Path) -> None:
    """Write the picture: a panel a curve.

    Raises:
        InputError: It cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(found.curves), 1, figsize=(8, 2.2 * len(found.curves)), squeeze=False)
    for axis, (name, curve) in zip(axes[:, 0], found.curves.items(), strict=True):
        axis.plot(found.seconds / 60, curve, linewidth=0.8)
        axis.set_title(CURVES[name], fontsize=9)
        axis.set_ylim(bottom=0, top=max(1.1, 1.1 * float(np.nanmax(curve))))
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("minutes", fontsize=9)
    figure.tight_layout()
    try:
        figure.savefig(target, dpi=110)
    except OSError as error:
        raise InputError(str(target), f"it cannot be written ({error})", "Give another -o.") from error
    finally:
        pyplot.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    given = sys.argv[1:] if argv is None else argv
    try:
        arguments = parse_arguments(argv)
        found = measure_drift(arguments)
        talk = f"{arguments.photo} with {arguments.speech}, model {arguments.model}"
        about = {
            "command": shlex.join(["python", "-m", "training.evaluation.drift", *given]),
            "video": talk if arguments.video is None else str(arguments.video),
        }
        write_atomically(arguments.output / "drift.json", as_json(found, about).encode())
        plot(found, arguments.output / "drift.png")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    for name, part in found.summary().items():
        print(f"{CURVES[name]}: {part['start']:.3f}, in the last seconds {part['end']:.3f}")
    for name, reason in found.missing.items():
        print(f"{name}: {reason}")
    print(f"{arguments.output}/drift.png shows it.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
