"""Third-party weights: checks files as their publishers offer them, stores them as safetensors."""

import hashlib
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdtalk.errors import InputError
from sdtalk.weights.assets import data_folder, replaced_asset

_UNREADABLE = (EOFError, ValueError, LookupError, AttributeError, TypeError, OSError, RuntimeError)
"""What torch.load raises for other files than its own, besides UnpicklingError."""

LPIPS_0_0 = "18720f55913d0af89042f13faa7e536a6ce1444a0914e6db9461355ece1e8cd5"
"""SHA-256 of the linear layers of LPIPS 0.0, which have the same shapes as those of 0.1."""


@dataclass(frozen=True)
class Download:
    """A file of weights as it is published.

    Attributes:
        file: Its name there.
        tensor: One of its tensors, by which it is known.
        shape: Of that tensor.
        wanted: Names of the tensors that are kept.
        stored: Their names here, as `re.sub` writes them.
        outdated: SHA-256 of an older file that looks alike.
    """

    file: str
    tensor: str
    shape: tuple[int, ...]
    wanted: str
    stored: str
    outdated: str = ""


DOWNLOADS = {
    "lpips": (
        Download(
            "alexnet-owt-7be5be79.pth", "features.0.weight", (64, 3, 11, 11), r"features\.(.+)", r"alexnet.\1"
        ),
        Download(
            "alex.pth of version 0.1", "lin0.model.1.weight", (1, 64, 1, 1), r"lin(\d)\.model\.1\.weight",
            r"linear.\1.weight", outdated=LPIPS_0_0,
        ),
    ),
    "syncnet": (
        Download("syncnet_v2.model", "netcnnlip.0.weight", (96, 3, 5, 7, 7), r"(net(?:cnn|fc)(?:aud|lip)\..+)", r"\1"),
    ),
    "arcface": (
        Download(
            "model_ir_se50.pth", "output_layer.3.weight", (512, 25088), r"((?:input_layer|body|output_layer)\..+)",
            r"\1",
        ),
    ),
}  # fmt: skip
"""Networks that measure, and are no part of any model of ours."""


def add_weights(name: str, paths: list[Path]) -> Path:
    """Check and store the weights of a network that measures; files are read without running what they hold.

    Args:
        name: Of `DOWNLOADS`.
        paths: The files as downloaded, in any order.

    Returns:
        The file in the user's data folder.

    Raises:
        InputError: A file is missing, damaged or another one, or the data folder cannot be written.
    """
    from safetensors.torch import save_file

    downloads = DOWNLOADS[name]
    remedy = f"Give {' and '.join(d.file for d in downloads)}."
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        tensors = read_tensors(path, remedy)
        download = next((d for d in downloads if _shape(tensors, d.tensor) == d.shape), None)
        if download is None:
            raise InputError(str(path), f"it is no file of {name}", remedy)
        if download.outdated and hashlib.sha256(path.read_bytes()).hexdigest() == download.outdated:
            raise InputError(str(path), "it is of an older version", remedy)
        found[download.file] = {
            re.sub(download.wanted, download.stored, key): tensor
            for key, tensor in tensors.items()
            if re.fullmatch(download.wanted, key)
        }
    for download in downloads:
        if download.file not in found:
            raise InputError(name, f"{download.file} is missing", remedy)
    with replaced_asset(name) as draft:
        save_file({k: t for part in found.values() for k, t in part.items()}, draft / f"{name}.safetensors")
    return data_folder() / name / f"{name}.safetensors"


def _shape(tensors: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def read_tensors(path: Path, remedy: str) -> dict[str, Any]:
    """Tensors by name, from safetensors or from a file of torch.save, which is read without running it.

    Raises:
        InputError: It is damaged, or holds anything else; with the remedy.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(str(path), "there is no such file", remedy) from error
    except (*_UNREADABLE, SafetensorError, pickle.UnpicklingError) as error:
        raise InputError(str(path), "it is damaged, or holds more than tensors", remedy) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise InputError(str(path), "it holds more than tensors", remedy)
    return {str(name): tensor.clone().contiguous() for name, tensor in tensors.items()}
