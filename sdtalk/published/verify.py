"""Verification of a converted checkpoint against the authors' file: `sdtalk convert --verify`.

On a GPU the published code runs with TF32 (reference 4): inputs of every product keep 10 of their 23 bits. What
that changes is measured here on the CPU, with the same weights, by rounding the inputs of every product likewise;
a GPU may differ from the CPU by about so much.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from sdtalk.camera import FACING, FRAME_SIZE, Camera
from sdtalk.checkpoint import load_model
from sdtalk.errors import InputError
from sdtalk.gaussians import Gaussians
from sdtalk.head import Frame
from sdtalk.model import SDTalk
from sdtalk.published.checkpoint import read_published
from sdtalk.published.keys import our_tensors
from sdtalk.speech.hubert.windows import WINDOW
from sdtalk.tracking.head_track import COMPLETION_POINTS, EYE_NUMBERS, MESH_POINTS, HeadTrack

TF32_DROPPED_BITS = 13
MARGIN = 3.0
"""A GPU passes when its mean difference is at most so many times the one that TF32 rounding makes on the CPU."""

_PAIRS = [
    F.linear,
    F.conv2d,
    torch.conv2d,
    F.conv_transpose2d,
    torch.conv_transpose2d,
    torch.matmul,
    torch.bmm,
]
_PAIRS += [Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__]
PRODUCTS = dict.fromkeys(_PAIRS, 2) | {F.scaled_dot_product_attention: 3}
"""How many of a function's arguments are multiplied; what comes after them is added, in full precision."""


@dataclass(frozen=True)
class Difference:
    """How far two runs of the same model lie apart.

    Attributes:
        name: What was changed.
        rasterised_mean: Mean absolute difference of the rasterised colours.
        frame_mean: Mean absolute difference of the frame, RGB in [0, 1].
        frame_max: The largest one.
    """

    name: str
    rasterised_mean: float
    frame_mean: float
    frame_max: float


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        tensors: How many tensors were compared with the file, bit for bit.
        facts: Figures of these weights, by name.
        differences: TF32 on the CPU, then every GPU run.
        no_gpu: Why there is no GPU run, or "".
    """

    tensors: int
    facts: dict[str, float]
    differences: list[Difference]
    no_gpu: str = ""

    @property
    def passed(self) -> bool:
        """Whether every run on a device is as near to the CPU's as TF32 lets expect."""
        limit = MARGIN * self.differences[0].frame_mean
        return all(d.frame_mean <= limit for d in self.differences[1:])


@dataclass(frozen=True)
class Run:
    """A made-up person at a made-up moment of speech.

    Attributes:
        static: The person before any motion.
        moved: And speaking.
        frame: What that looks like; on the CPU.
    """

    static: Gaussians
    moved: Gaussians
    frame: Frame


class TF32(TorchFunctionMode):
    """While active, inputs of products are rounded to TF32."""

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204, D105 - torch's signature
        if func in PRODUCTS:
            factors, rest = args[: PRODUCTS[func]], args[PRODUCTS[func] :]
            args = (*map(rounded_to_tf32, factors), *rest)
        return func(*args, **(kwargs or {}))


def rounded_to_tf32(x: Tensor) -> Tensor:
    """Round float32 values to 10 bits of mantissa, to nearest; others are returned as they are."""
    if x.dtype != torch.float32:
        return x
    bits = x.detach().view(torch.int32) + (1 << (TF32_DROPPED_BITS - 1))
    return (bits & ~((1 << TF32_DROPPED_BITS) - 1)).view(torch.float32)


def verify(source: Path, folder: Path) -> Verification:
    """Compare a converted checkpoint with its source, tensor by tensor, then its runs with each other.

    Raises:
        InputError: One of both cannot be read, or a tensor is not the source's.
    """
    model = load_model(folder)
    compared = compare_tensors(read_published(source), model)
    reference = _run(model, "cpu")
    with TF32():
        runs = {"TF32 on the CPU": _run(model, "cpu")}
    on_gpu, no_gpu = _gpu_runs(model)
    runs |= on_gpu
    differences = [_difference(name, run.frame, reference.frame) for name, run in runs.items()]
    return Verification(compared, _facts(model, reference), differences, no_gpu)


def _gpu_runs(model: SDTalk) -> tuple[dict[str, Run], str]:
    """The same on a GPU, without and with TF32; or why there is none."""
    if not torch.cuda.is_available():
        return {}, "PyTorch finds none that it can use"
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    runs = {}
    try:
        for name, precision in (("CUDA in float32", "highest"), ("CUDA with TF32", "high")):
            torch.set_float32_matmul_precision(precision)
            torch.backends.cudnn.allow_tf32 = precision == "high"  # convolutions have a switch of their own
            runs[name] = _run(model.to("cuda"), "cuda")
    except InputError as error:  # of the rasteriser, which lacks something on this machine
        return {}, str(error)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        model.to("cpu")
    return runs, ""


def compare_tensors(theirs: dict[str, Tensor], model: SDTalk) -> int:
    """Count tensors that are bit for bit the same under both names.

    Raises:
        InputError: One is not.
    """
    ours, count = model.state_dict(), 0
    for key, tensor in theirs.items():
        for name, part in our_tensors(key, tensor).items():
            if not torch.equal(ours[name], part):
                raise InputError(
                    f"tensor {name!r}", f"it is not the file's {key!r}", "Convert the file again."
                )
            count += 1
    return count


def _facts(model: SDTalk, run: Run) -> dict[str, float]:
    """Figures that tell trained weights from untrained ones, and confirm what the notes only infer (reference 8)."""
    state = model.state_dict()
    strengths = [v for k, v in state.items() if k.startswith("neural_renderer.") and v.shape == (1,)]
    tables = torch.cat([v.flatten() for k, v in state.items() if k.endswith(".embeddings")])
    lengths = run.static.quats[:, :COMPLETION_POINTS].norm(dim=-1)
    motion = (run.moved.means - run.static.means).norm(dim=-1)
    return {
        "largest noise strength of the neural renderer": max(float(s.abs()) for s in strengths),
        "mean size of a hash table entry (5e-5 before training)": float(tables.abs().mean()),
        "length of a completion quaternion (0.03 confirms that they are normalised over points)": float(
            lengths.median()
        ),
        "mean motion of a mean, head-space units": float(motion.mean()),
    }


def _difference(name: str, frame: Frame, reference: Frame) -> Difference:
    error = (frame.colours - reference.colours).abs()
    rasterised = (frame.rasterised - reference.rasterised).abs()
    return Difference(name, float(rasterised.mean()), float(error.mean()), float(error.max()))


@torch.inference_mode()
def _run(model: SDTalk, device: str) -> Run:
    """Show a made-up person, without fresh noise."""
    random = torch.Generator().manual_seed(0)
    points = 0.35 * torch.randn(1, COMPLETION_POINTS, 3, generator=random)
    image = torch.rand(1, 3, 9, 9, generator=random)
    image = F.interpolate(image, (FRAME_SIZE, FRAME_SIZE), mode="bicubic").clamp(0, 1)
    windows = torch.randn(1, WINDOW, model.config.audio_width, generator=random)
    camera = Camera.from_pose(FACING[None], torch.tensor([[0.0, 0.0, 9.0]]))
    eyes, rows = torch.full((1, EYE_NUMBERS), 9.0), torch.arange(COMPLETION_POINTS)
    track = HeadTrack(camera, torch.zeros(1, MESH_POINTS, 3), points, eyes, rows).to(device)
    head = model.reconstruct(image.to(device), torch.ones_like(image[:, :1]).to(device), track)
    moved = model.animate(head, model.encode_audio(windows.to(device)), head.eyes)
    renderer: Any = model.neural_renderer
    noise, renderer.noise = renderer.noise, "stored" if renderer.noise == "fresh" else renderer.noise
    try:
        frame = model.render(head, moved, track.camera)
    finally:
        renderer.noise = noise
    on_cpu = (part.cpu() for part in (frame.colours, frame.alpha, frame.rasterised))
    return Run(head.gaussians, moved.gaussians, Frame(*on_cpu))


def as_text(found: Verification) -> str:
    """The findings for people."""
    lines = [f"{found.tensors} tensors are the file's, bit for bit."]
    lines += [f"{value:.3g}: {name}" for name, value in found.facts.items()]
    for d in found.differences:
        lines.append(
            f"{d.name}: differs from the CPU in float32 by {d.frame_mean:.1e} in the mean, {d.frame_max:.1e} at most "
            f"(RGB in [0, 1]); rasterised colours {d.rasterised_mean:.1e} in the mean."
        )
    if found.no_gpu:
        lines.append(f"No GPU was compared: {found.no_gpu.rstrip('.')}.")
    else:
        lines.append(
            "The GPU is as near as TF32 allows."
            if found.passed
            else "The GPU differs by MORE than TF32 explains."
        )
    return "\n".join(lines)
