"""Where files lie that no network is built from code alone: those of the package, and those the user adds."""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sdtalk.errors import InputError

FOLDER = Path(__file__).parent / "assets"

HUBERT = "facebook/hubert-large-ls960-ft"
HUBERT_WIDTH = 1024

_UNREADABLE = (EOFError, ValueError, LookupError, AttributeError, TypeError, OSError, RuntimeError)
"""What torch.load raises for other files than its own, besides UnpicklingError."""


def bundled(name: str) -> Path:
    """Find a file that comes with the package.

    Args:
        name: Path below `sdtalk/assets`, for example "tracker.safetensors".

    Raises:
        InputError: The file is missing, so the installation is incomplete.
    """
    path = FOLDER / name
    if not path.is_file():
        raise InputError(str(path), "this file of the package is missing", "Install sdtalk again")
    return path


def data_folder() -> Path:
    """The user's folder for added assets: $SDTALK_HOME, or the usual place of the system; need not exist."""
    if chosen := os.environ.get("SDTALK_HOME"):
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or ".")
        base = base if base.is_absolute() else home / ".local" / "share"  # relative ones are to be ignored
    return base / "sdtalk"


@dataclass(frozen=True)
class OptionalAsset:
    """What some uses need, but does not come with the package.

    Attributes:
        name: Its short name.
        what: What it is.
        needed_for: What does not work without it.
        licence: Its licence.
        where: Where to get it, and how to add it.
        without: What works without it.
        files: Its files below the user's data folder, all in one folder; empty if it cannot be added.
        hub: Its repository on the Hugging Face Hub, where the Hub's cache may hold it, too.
        hub_files: Its files there; of an inner tuple any one will do.
    """

    name: str
    what: str
    needed_for: str
    licence: str
    where: str
    without: str
    files: tuple[str, ...] = ()
    hub: str = ""
    hub_files: tuple[tuple[str, ...], ...] = ()

    def found(self) -> Path | None:
        """Where it lies on this machine: the file if it is one, else the folder; never asks the network."""
        paths = [data_folder() / name for name in self.files]
        if paths and all(path.is_file() for path in paths):
            return paths[0] if len(paths) == 1 else paths[0].parent
        return self._in_hub_cache() if self.hub_files else None

    def _in_hub_cache(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache  # slow to import

        found = None
        for names in self.hub_files:
            cached = (try_to_load_from_cache(self.hub, name) for name in names)
            found = next((Path(path) for path in cached if isinstance(path, str)), None)
            if found is None:
                return None
        return found.parent if found else None

    def remedy(self) -> str:
        """What to do where it is missing, in a sentence or two for an `InputError`."""
        return f"Get it from {self.where}. Licence: {self.licence}. Without it: {self.without}."


OPTIONAL_ASSETS = (
    OptionalAsset(
        name="flame",
        what="the FLAME head model with its vertex masks and landmarks",
        needed_for="models whose points lie on FLAME: `base` and converted checkpoints",
        licence="FLAME 2020: Max Planck, non-commercial research; FLAME 2023 Open: CC-BY-4.0",
        where="https://flame.is.tue.mpg.de (free registration), then `sdtalk assets add flame FILE...`",
        without="the bundled model `mini` works, with its own face mesh",
        files=("flame/flame.safetensors",),
    ),
    OptionalAsset(
        name="hubert",
        what=f"the speech network HuBERT-large, {HUBERT}",
        needed_for="models that hear through HuBERT: `base` and converted checkpoints",
        licence="Apache-2.0",
        where=f"https://huggingface.co/{HUBERT} (`hf download {HUBERT}`), or `sdtalk assets add hubert FOLDER`",
        without="the bundled model `mini` works, with its own ear",
        files=("hubert/config.json", "hubert/model.safetensors"),
        hub=HUBERT,
        hub_files=(("config.json",), ("model.safetensors", "pytorch_model.bin")),
    ),
    OptionalAsset(
        name="dinov2",
        what="the image network DINOv2-base, facebook/dinov2-base",
        needed_for="training `base` from scratch",
        licence="Apache-2.0",
        where="https://huggingface.co/facebook/dinov2-base (`hf download facebook/dinov2-base`)",
        without="everything else works: checkpoints hold its weights",
        hub="facebook/dinov2-base",
        hub_files=(("config.json",), ("model.safetensors", "pytorch_model.bin")),
    ),
    OptionalAsset(
        name="checkpoint",
        what="the checkpoint of the paper's authors, SDGTalk.pt",
        needed_for="their model; `sdtalk convert SDGTalk.pt FOLDER` makes a folder for --model of it",
        licence="none stated: ask its authors",
        where="https://huggingface.co/ZeeoRe/SDGTalk",
        without="the bundled model `mini` and models of your own training work",
    ),
)
"""Everything that `sdtalk doctor` lists as missing or there."""


def optional_asset(name: str) -> Path:
    """Find an asset that the user had to add, see `OptionalAsset.found`.

    Raises:
        InputError: It is not on this machine.
    """
    asset = next(asset for asset in OPTIONAL_ASSETS if asset.name == name)
    path = asset.found()
    if path is None:
        raise InputError(asset.what, "it is not on this machine", asset.remedy())
    return path


@contextmanager
def replaced_asset(name: str) -> Iterator[Path]:
    """A folder to write an asset to, which takes the place of the old one when the block ends without an error.

    Args:
        name: Of the asset's folder in the user's data folder.

    Raises:
        InputError: It cannot be written; the old asset is still there.
    """
    place = data_folder() / name
    draft = place.with_name(f".{name}-{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        yield draft
        _exchange(draft, place)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "Make room and check its permissions, or choose another folder with SDTALK_HOME."
        raise InputError(str(place), f"it cannot be written ({reason})", remedy) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _exchange(draft: Path, place: Path) -> None:
    """No system replaces a full folder in one step: the old one steps aside, and comes back if need be."""
    aside = draft.with_name(f"{draft.name}-old")
    if place.exists():
        os.replace(place, aside)
    try:
        os.replace(draft, place)
    except BaseException:
        if aside.exists():
            os.replace(aside, place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def add_hubert(folder: Path) -> Path:
    """Check and store HuBERT-large, from a folder as the Hub's download of it makes.

    Args:
        folder: With config.json and model.safetensors, or pytorch_model.bin (which is read without running it).

    Returns:
        The folder in the user's data folder, with config.json and model.safetensors.

    Raises:
        InputError: The folder does not hold that network, or the data folder cannot be written.
    """
    from safetensors.torch import save_file

    remedy = f"Give the folder of {HUBERT}, with config.json and model.safetensors (or pytorch_model.bin)."
    config = _hubert_config(folder / "config.json", remedy)
    tensors = _hubert_tensors(folder, remedy)
    depth = config["num_hidden_layers"]
    for layer in (0, depth - 1):
        name = f"encoder.layers.{layer}.attention.q_proj.weight"
        shapes = [
            tuple(tensor.shape) for key, tensor in tensors.items() if key.removeprefix("hubert.") == name
        ]
        if shapes != [(HUBERT_WIDTH, HUBERT_WIDTH)]:
            raise InputError(str(folder), f"its weights lack {name} as HuBERT-large has it", remedy)
    with replaced_asset("hubert") as draft:
        (draft / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
    return data_folder() / "hubert"


def _hubert_config(path: Path, remedy: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(str(path), f"it cannot be read ({error.strerror or error})", remedy) from error
    except ValueError as error:
        raise InputError(str(path), "it is no JSON", remedy) from error
    wanted = {"model_type": "hubert", "hidden_size": HUBERT_WIDTH}
    for name, value in wanted.items():
        if not isinstance(config, dict) or config.get(name) != value:
            found = config.get(name) if isinstance(config, dict) else None
            raise InputError(str(path), f"its {name} is {found!r} instead of {value!r}", remedy)
    if type(config.get("num_hidden_layers")) is not int:
        raise InputError(str(path), "it does not say num_hidden_layers", remedy)
    return config


def _hubert_tensors(folder: Path, remedy: str) -> dict[str, Any]:
    import pickle

    import torch
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    path = path if path.is_file() else folder / "pytorch_model.bin"
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(str(folder), "it holds no weights", remedy) from error
    except (*_UNREADABLE, SafetensorError, pickle.UnpicklingError) as error:
        raise InputError(str(path), "it is damaged, or holds more than tensors", remedy) from error
    if not isinstance(tensors, dict) or not all(isinstance(t, torch.Tensor) for t in tensors.values()):
        raise InputError(str(path), "it holds more than tensors", remedy)
    return {str(name): tensor.clone().contiguous() for name, tensor in tensors.items()}
