"""Benchmark of the page's memory: `python benchmarks/page_memory.py --jobs 50`.

Visits it as people do, from a thread each: whole videos, ones that are stopped half way, files that are no pictures,
and at last a recording of 15 minutes, stopped after its first frames. Prints what the process holds now and then.
"""

import argparse
import os
import tempfile
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import numpy as np

from sdtalk.cli.bench import resident_mb
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.service import TalkService
from sdtalk.process import tune_process

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PORTRAIT, SPEECH = EXAMPLES / "eileen_collins.png", EXAMPLES / "sense_and_sensibility.wav"
KINDS = ("whole", "stopped", "whole", "no picture")


class Visitor(gr.Progress):
    """Somebody who waits for a video, or stops it after some frames."""

    def __init__(self, service: TalkService, number: int, speech: Path, kind: str) -> None:
        super().__init__()
        self.service, self.speech, self.kind = service, speech, kind
        self.request = gr.Request(session_hash=str(number))

    def __call__(self, done: object, *_: object, **__: object) -> None:
        """Stop when the first frames are there."""
        if self.kind == "stopped" and isinstance(done, tuple):
            self.service.stop(self.request)

    def visit(self) -> None:
        """Ask for a video."""
        portrait = SPEECH if self.kind == "no picture" else PORTRAIT
        try:
            video, _ = self.service.generate(
                str(portrait), str(self.speech), True, request=self.request, progress=self
            )
            Path(video).unlink()
        except gr.Error:
            assert self.kind != "whole"


def recording(path: Path, seconds: float) -> Path:
    """The example, cut or repeated."""
    with wave.open(str(SPEECH)) as source:
        rate, samples = source.getframerate(), np.frombuffer(source.readframes(source.getnframes()), "<i2")
    with wave.open(str(path), "wb") as target:
        target.setparams((1, 2, rate, 0, "NONE", ""))
        target.writeframes(np.resize(samples, round(seconds * rate)).tobytes())
    return path


def main(argv: list[str] | None = None) -> None:
    """Visit, and print memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=50, help="visits (50)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of speech in each (2)")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the long recording at the end (15)")
    arguments = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        short = recording(Path(folder, "short.wav"), arguments.seconds)
        long = recording(Path(folder, "long.wav"), 60 * arguments.minutes)
        service = TalkService(ModelCache({"mini": "mini"}, "cpu"))
        visits = [(short, KINDS[number % len(KINDS)]) for number in range(arguments.jobs)]
        for number, (speech, kind) in enumerate([*visits, (long, "stopped"), (short, "whole")]):
            with ThreadPoolExecutor(1) as thread:
                thread.submit(Visitor(service, number, speech, kind).visit).result()
            if number % 10 == 1 or number >= len(visits):
                print(f"after {number + 1:3d} visits: {resident_mb(os.getpid()):5.0f} MB", flush=True)


if __name__ == "__main__":
    tune_process(one_arena=True)
    main()
