"""Asset files: those bundled with the package, and those the user adds to a data folder."""

import os
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.weights.folder import replaced_folder

FOLDER = Path(__file__).parent.parent / "assets"

HUBERT = "facebook/hubert-large-ls960-ft"


def bundled(name: str) -> Path:
    """Find a file that comes with the package.

    Args:
        name: Path below `sdtalk/assets`, for example "tracker.safetensors".

    Raises:
        InputError: The file is missing, so the installation is incomplete.
    """
    path = FOLDER / name
    if not path.is_file():
        raise InputError(str(path), "this file of the package is missing", "Install sdtalk again.")
    return path


def example(name: str) -> Path:
    """Find an example of the package, from `examples/` of the sources or its copy in an installed package.

    Args:
        name: "eileen_collins.png" (a portrait), "sense_and_sensibility.wav" (7.1 s of speech), or another that
            examples/ATTRIBUTION.md names.

    Raises:
        InputError: The file is missing, so the installation is incomplete.
    """
    sources = FOLDER.parent.parent / "examples" / name
    return sources if sources.is_file() else bundled(f"examples/{name}")


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
        name="lpips",
        what="the weights of LPIPS 0.1: AlexNet and its five linear layers",
        needed_for="the perceptual distance LPIPS, in evaluation and as a loss",
        licence="AlexNet of torchvision: BSD-3-Clause; linear layers: BSD-2-Clause",
        where=(
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth and lpips/weights/v0.1/alex.pth of the "
            "package lpips (https://pypi.org/project/lpips), then `sdtalk assets add lpips ALEXNET.pth alex.pth`"
        ),
        without="training compares pictures through the bundled face networks; evaluation leaves LPIPS out and says so",
        files=("lpips/lpips.safetensors",),
    ),
    OptionalAsset(
        name="syncnet",
        what="the lip-sync network SyncNet, syncnet_v2.model",
        needed_for="the lip-sync figures Sync-C and Sync-D, in evaluation",
        licence="MIT (its authors' code); none stated for the weights",
        where=(
            "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model, then `sdtalk assets add syncnet "
            "syncnet_v2.model`"
        ),
        without="evaluation leaves Sync-C and Sync-D out and says so; mouth correlation and spread remain",
        files=("syncnet/syncnet.safetensors",),
    ),
    OptionalAsset(
        name="arcface",
        what="the face-recognition network IR-SE50 (ArcFace), model_ir_se50.pth",
        needed_for="the identity similarity, in evaluation",
        licence="MIT (its author's code); trained on MS-Celeb-1M, so for research only",
        where="https://github.com/TreB1eN/InsightFace_Pytorch, then `sdtalk assets add arcface model_ir_se50.pth`",
        without="evaluation leaves identity similarity out and says so",
        files=("arcface/arcface.safetensors",),
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


def replaced_asset(name: str) -> AbstractContextManager[Path]:
    """A folder to write an asset to, see `replaced_folder`.

    Args:
        name: Of the asset's folder in the user's data folder.
    """
    remedy = "Make room and check its permissions, or choose another folder with SDTALK_HOME."
    return replaced_folder(data_folder() / name, remedy)
