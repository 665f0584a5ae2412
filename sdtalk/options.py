"""What users choose, and whether it is possible: found out before the work starts."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from sdtalk.camera import FRAME_SIZE
from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.video import check_output, probe
from sdtalk.video.label import LONGEST_LABEL

SMALLEST, LARGEST = 64, 1024
"""Limits of the video's side in px; beyond the model's own 512 px it only gets softer."""

LOUDEST_MOUTH = 2.0


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


def choose_precision(name: str, config: SDTalkConfig, device: torch.device) -> torch.dtype:
    """Turn "auto", "float32" or "bfloat16" into what a model computes in.

    "auto" is bfloat16 for large models where the processor multiplies it faster, float32 otherwise.

    Raises:
        InputError: There is no such precision, or the model has no use for it.
    """
    large = not config.priors
    if name == "auto":
        cpu_knows = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        knows = torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_knows
        return torch.bfloat16 if large and knows else torch.float32
    if name == "bfloat16" and not large:
        raise InputError(
            f"precision {name!r}",
            f"the model {config.name!r} is small and has no use for it",
            "Choose float32.",
        )
    if name not in ("float32", "bfloat16"):
        raise InputError(
            f"precision {name!r}", "there is no such choice", "Choose auto, float32 or bfloat16."
        )
    return getattr(torch, name)


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
