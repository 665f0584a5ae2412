"""Checkpoints: finding them, and loading them strictly; safetensors only, so that no file can run code."""

import os
from collections.abc import Container
from itertools import chain, count
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sdtalk.config import SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.weights.assets import FOLDER, data_folder
from sdtalk.weights.config_file import REMEDY, read_config
from sdtalk.weights.hub import CONFIG, WEIGHTS, download, is_hub_name, split_revision

BUNDLED = ("mini",)
FULL_MODEL = "base"
FULL_MODEL_PROBLEM = "the weights of the paper's full model cannot come with the package"
FULL_MODEL_REMEDY = (
    "Get the authors' SDGTalk.pt, run `sdtalk convert SDGTalk.pt FOLDER` and give --model FOLDER; or train it "
    "(training/README.md); `sdtalk bench --model base` measures it with random weights."
)
MODELS_FOLDER = "models"
"""Below the user's data folder: every folder in it with a config.json is a model."""


def load_model(source: str | Path, device: torch.device | str = "cpu") -> SDTalk:
    """Load a checkpoint for inference; every tensor must be there, fit and be finite, and no other may be.

    Args:
        source: Name of a bundled model, a folder with config.json and model.safetensors, or "user/name" or
            "user/name@revision" on the Hugging Face Hub (downloaded once, found in the cache later).
        device: Where the model goes.

    Raises:
        InputError: The checkpoint cannot be found, or does not hold exactly what its config describes.
    """
    folder = locate(source)
    model = _build(read_config(folder), folder / CONFIG)
    tensors = _read_tensors(folder / WEIGHTS, {k: v.shape for k, v in model.state_dict().items()})
    model.load_state_dict(tensors, strict=True)
    return model.eval().requires_grad_(False).to(device)


def find_models(wanted: tuple[str, ...] = ()) -> dict[str, str]:
    """Names of models, and where they are.

    Args:
        wanted: Folders or Hub names given by hand; they come first.

    Returns:
        Name to show -> source for `SDTalkPipeline.from_pretrained`: what was given, what is bundled, and what lies in
        the user's data folder; a folder under two names counts once.
    """
    kept = sorted(path.parent for path in (data_folder() / MODELS_FOLDER).glob(f"[!.]*/{CONFIG}"))
    models: dict[str, str] = {}
    seen: set[str] = set()
    for source in (*wanted, *BUNDLED, *map(str, kept)):
        folder = source not in BUNDLED and Path(source).is_dir()
        place = os.path.realpath(source) if folder else source
        if place not in seen:
            seen.add(place)
            source = os.path.abspath(source) if folder else source
            models[_free_name(Path(source).name if folder else source, models)] = source
    return models


def _free_name(name: str, taken: Container[str]) -> str:
    numbered = (f"{name} ({number})" for number in count(2))  # no paths: visitors of a page see these names
    return next(new for new in chain([name], numbered) if new not in taken)


def locate(source: str | Path) -> Path:
    """Folder of a checkpoint; one on the Hub is downloaded where it is not cached."""
    if source in BUNDLED:
        return FOLDER / str(source)
    if Path(source).is_dir():
        return Path(source)
    remedy = (
        f"Give '{BUNDLED[0]}', a folder with {CONFIG} and {WEIGHTS}, or the user/name of a model on the Hub."
    )
    if Path(source).exists():
        raise InputError(f"model {str(source)!r}", "it is a file, not a folder", remedy)
    if source == FULL_MODEL:
        raise InputError(f"model {source!r}", FULL_MODEL_PROBLEM, FULL_MODEL_REMEDY)
    if not is_hub_name(str(source)):
        raise InputError(f"model {str(source)!r}", "there is no such folder", remedy)
    return _from_hub(str(source))


def _from_hub(source: str) -> Path:
    from huggingface_hub import errors  # slow to import, and not needed for the bundled model

    try:
        return download(*split_revision(source))
    except errors.LocalEntryNotFoundError as error:
        problem = _first_line(error)
        remedy = "Connect to the internet and try again, or use the bundled model 'mini'."
        cause: Exception = error
    except errors.RepositoryNotFoundError as error:
        problem = "there is no such repository on the Hub"
        remedy = "Check its name; for a private one log in with `hf auth login`."
        cause = error
    except errors.RevisionNotFoundError as error:
        problem, remedy = "there is no such revision", "Give a branch, tag or commit of this repository."
        cause = error
    except errors.EntryNotFoundError as error:
        problem = f"it holds no {CONFIG} with {WEIGHTS} beside it"
        remedy, cause = "Take a repository that SDTalk wrote.", error
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        problem = f"it cannot be downloaded ({_first_line(error)})"
        remedy, cause = "Check its name and the network.", error
    raise InputError(f"model {source!r}", problem, remedy) from cause


def _build(config: SDTalkConfig, path: Path) -> SDTalk:
    """A network with random weights, of the size that a config says."""
    try:
        return SDTalk(config)
    except (ValueError, RuntimeError, ZeroDivisionError, MemoryError) as error:
        problem = f"no network can be built from it ({_first_line(error)})"
        raise InputError(str(path), problem, REMEDY) from error


def _read_tensors(path: Path, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """All tensors of a safetensors file, which must have exactly these names and shapes."""
    remedy = "Use the model.safetensors that belongs to the config.json beside it."
    if not path.is_file():
        raise InputError(str(path), "this file of the checkpoint is missing", remedy)
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            names = set(file.keys())
            if absent := sorted(set(shapes) - names):
                raise InputError(str(path), f"the tensor {absent[0]!r} is missing", remedy)
            if unknown := sorted(names - set(shapes)):
                raise InputError(str(path), f"the tensor {unknown[0]!r} does not belong there", remedy)
            for name, shape in shapes.items():
                found = tuple(file.get_slice(name).get_shape())
                if found != tuple(shape):
                    problem = f"the tensor {name!r} has the shape {found} instead of {tuple(shape)}"
                    raise InputError(str(path), problem, remedy)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        problem = f"it is not a complete safetensors file ({_first_line(error)})"
        raise InputError(str(path), problem, "Download or save it again.") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            problem = f"the tensor {name!r} holds values that are not numbers"
            raise InputError(str(path), problem, "Use a checkpoint from before the training diverged.")
    return tensors


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
