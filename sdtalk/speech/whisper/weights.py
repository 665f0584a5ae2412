"""Whisper weights: matrices and convolutions as bytes with a scale for each output channel, the rest as halves."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.speech.whisper.network import WhisperEncoder
from sdtalk.weights.assets import bundled

ASSET = "whisper_base_l3.safetensors"
SCALE = ".scale"
"""What the name of a matrix's scales ends with."""

_REMEDY = "Install the package again."


def quantised(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Store matrices and convolutions as int8, symmetric for each output channel; vectors as float16."""
    stored = {}
    for name, tensor in state.items():
        if tensor.ndim == 1:
            stored[name] = tensor.half()
            continue
        weight = tensor.float()
        scale = weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        stored[name] = (weight / _per_channel(scale, weight)).round().to(torch.int8)
        stored[name + SCALE] = scale
    return stored


def dequantised(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors in float32; those that were not stored as int8 are only converted."""
    scales = {name: stored[name] for name in stored if name.endswith(SCALE)}
    state = {name: tensor.float() for name, tensor in stored.items() if name not in scales}
    for name, scale in scales.items():
        key = name.removesuffix(SCALE)
        state[key] = state[key] * _per_channel(scale, state[key])
    return state


def read_whisper(path: Path | None = None) -> WhisperEncoder:
    """The encoder, frozen, in float32 on the CPU.

    Args:
        path: Its weights, as bytes or as they are; None: those of the package.

    Raises:
        InputError: They are missing or damaged, or of another size than the first three layers of Whisper base.
    """
    path = path or bundled(ASSET)
    try:
        state = dequantised(load_file(path))
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(str(path), f"no weights can be read from it ({reason})", _REMEDY) from error
    with torch.device("meta"):
        network = WhisperEncoder()
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | state.keys()):
        if name not in wanted or name not in state or state[name].shape != wanted[name].shape:
            problem = f"it does not hold the first three layers of Whisper base ({name})"
            raise InputError(str(path), problem, _REMEDY)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _per_channel(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.reshape(-1, *[1] * (weight.ndim - 1))
