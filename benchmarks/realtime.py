"""Benchmark of real time on a CPU, beside another version: `python benchmarks/realtime.py --beside CHECKOUT`.

Both versions are measured in turn, so that a busy machine slows both; medians of all turns are reported. `--exact`
compares the frames with those of the exact way instead: how far the shortcuts are off.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from jaxtyping import Bool

from sdtalk.background import parse_background
from sdtalk.camera import FRAME_SIZE
from sdtalk.driving import DrivingSignals
from sdtalk.head import HeadGaussians
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE
from sdtalk.stream import render_frames
from sdtalk.tracking.face_model import FaceModel

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PORTRAIT, SPEECH = EXAMPLES / "eileen_collins.png", EXAMPLES / "sense_and_sensibility.wav"
GREY = "#808080"
MARGIN_PX = 4
"""Windows are cut around the moved face, and masks are soft: so much more does not count as outside."""

# what any version can do: it is run by the interpreter of this one, in the other's folder
MEASURE = """
import json, resource, sys, time
start = time.perf_counter()
from sdtalk import SDTalkPipeline
found = {"import": time.perf_counter() - start}
portrait, speech, output = sys.argv[1:]
pipeline = SDTalkPipeline.from_pretrained("mini", device="cpu")
talk = pipeline(portrait, speech)
list(zip(talk.frames(), range(8)))
for size in (512, 256):
    talk = pipeline(portrait, speech, size=size)
    start = time.perf_counter()
    talk.save(output)
    found[f"fps {size}"] = len(talk) / (time.perf_counter() - start)
start = time.perf_counter()
head = pipeline.reconstruct(portrait)
first = iter(pipeline.talk(head, speech).frames())
next(first)
found["photo"] = time.perf_counter() - start
first.close()
found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(found))
"""

ROWS = {
    "fps 512": ("frames a second, 512 px, with encoding", "{:.1f}"),
    "fps 256": ("frames a second, 256 px, with encoding", "{:.1f}"),
    "photo": ("photo to first frame, warm process, s", "{:.2f}"),
    "file": ("start to file, s", "{:.1f}"),
    "cold": ("first run ever, kernels compiled on the way, s", "{:.1f}"),
    "import": ("from sdtalk import SDTalkPipeline, s", "{:.2f}"),
    "torch": ("import torch alone, s", "{:.2f}"),
    "memory": ("largest memory of the process, MB", "{:.0f}"),
}


def environment(folder: Path, cache: str | None = None) -> dict[str, str]:
    """The variables under which a version runs: its own code, and perhaps no compiled kernels."""
    own = {**os.environ, "PYTHONPATH": str(folder)}
    own.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its bytecode
    return own if cache is None else {**own, "NUMBA_CACHE_DIR": cache}


def seconds_to_file(folder: Path, speech: Path, output: Path, cache: str | None = None) -> float:
    """Run a version's command line on the example portrait."""
    command = [sys.executable, "-m", "sdtalk", str(PORTRAIT), str(speech), "-o", str(output), "--quiet"]
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment(folder, cache), check=True)
    return time.perf_counter() - start


def torch_seconds(folder: Path) -> float:
    """What importing PyTorch alone takes, in a process of its own."""
    code = "import time; start = time.perf_counter(); import torch; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(folder), check=True, stdout=subprocess.PIPE)
    return float(done.stdout)


def one_turn(folder: Path, cold: bool, speech: Path = SPEECH) -> dict[str, float]:
    """Measure one version once."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "talk.mp4")
        command = [sys.executable, "-c", MEASURE, str(PORTRAIT), str(speech), str(output)]
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), check=True, stdout=subprocess.PIPE
        )
        found = json.loads(done.stdout.splitlines()[-1])
        found["torch"] = torch_seconds(folder)
        found["file"] = seconds_to_file(folder, speech, output)
        if cold:
            found["cold"] = seconds_to_file(folder, speech, output, str(Path(scratch, "cache")))
    return found


def table(turns: dict[str, list[dict[str, float]]]) -> str:
    """Medians of every version, and the last one's over the first one's."""
    names = list(turns)
    lines = [
        f"{'':<48}" + "".join(f"{name:>14}" for name in names) + ("         ratio" if len(names) > 1 else "")
    ]
    for key, (words, form) in ROWS.items():
        values = [median(t[key] for t in turns[name]) for name in names if key in turns[name][0]]
        if len(values) == len(names):
            ratio = f"{values[-1] / values[0]:>14.2f}" if len(values) > 1 else ""
            lines.append(f"{words:<48}" + "".join(f"{form.format(v):>14}" for v in values) + ratio)
    return "\n".join(lines)


def outside_windows(head: HeadGaussians, signals: DrivingSignals) -> Bool[np.ndarray, "frame 512 512"]:
    """Pixels that no painter touches: further from lips and lids than half a window."""
    assert head.photo is not None
    mesh = signals.camera.project(head.photo.mesh.expand(len(signals), -1, -1))
    mirror = FaceModel.bundled().mirror.tolist()
    windows = [(MOUTH, MOUTH.outline), (RIGHT_EYE, RIGHT_EYE.outline)]
    windows.append((RIGHT_EYE, tuple(mirror[point] for point in RIGHT_EYE.outline)))
    free = np.ones((len(signals), FRAME_SIZE, FRAME_SIZE), bool)
    for window, points in windows:
        centres = mesh[:, list(points)].mean(1).round().int().tolist()
        reach = window.size // 2 + MARGIN_PX
        for frame, (x, y) in zip(free, centres, strict=True):
            frame[max(y - reach, 0) : y + reach, max(x - reach, 0) : x + reach] = False
    return free


def differences(photos: list[Path], every: int) -> str:
    """How far frames are from those of the exact way, over grey, in 8-bit steps."""
    pipeline = SDTalkPipeline.from_pretrained("mini", device="cpu")
    lines = [f"{'':<48}{'mean':>8}{'outside windows: largest':>28}{'above 8':>12}"]
    for photo in photos:
        talk = pipeline(photo, SPEECH, background=GREY)
        head, shown = talk.head.gaussians, talk.signals[::every]
        scene = pipeline.scene(parse_background(GREY), talk.head.portrait)
        fast, exact = (
            np.concatenate(list(render_frames(pipeline.model, head, shown, scene, exact=e))).astype(int)
            for e in (False, True)
        )
        off = np.abs(fast - exact)
        outside = off.max(-1)[outside_windows(head, shown)]
        lines.append(f"{photo.name:<48}{off.mean():>8.3f}{outside.max():>28}{(outside > 8).mean():>12.2e}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another version, measured in turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns (5)")
    parser.add_argument("--cold", action="store_true", help="also a first run, with kernels to be compiled")
    parser.add_argument(
        "--exact", type=Path, nargs="+", metavar="PHOTO", help="compare with the exact way instead"
    )
    parser.add_argument("--every", type=int, default=20, help="so manieth frame is compared (20)")
    arguments = parser.parse_args(argv)
    if arguments.exact:
        print(differences(arguments.exact, arguments.every))
        return
    folders = {"this": ROOT}
    if arguments.beside is not None:
        folders = {arguments.beside.resolve().name: arguments.beside.resolve(), **folders}
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for _ in range(arguments.repeats):
        for name, folder in folders.items():
            turns[name].append(one_turn(folder, arguments.cold))
    print(table(turns))


if __name__ == "__main__":
    main()
