"""Published checkpoint: reads the authors' file; runs nothing in it, accepts exactly their layout.

The file is opened by PyTorch's restricted loader, which makes tensors and plain containers and nothing else.
"""

from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from torch import Tensor

from sdtalk.config import BASE
from sdtalk.errors import InputError
from sdtalk.motion.hash_encoding import TriplaneHashEncoding
from sdtalk.published.keys import published_layout

REPOSITORY, FILE = "ZeeoRe/SDGTalk", "SDGTalk.pt"
REMEDY = f"Download {FILE} of {REPOSITORY} from the Hugging Face Hub again and convert that file."
MOTION = "motion_net_"


def read_published(path: Path) -> dict[str, Tensor]:
    """Every tensor of the authors' file, checked against the published layout; on the CPU, float32.

    Raises:
        InputError: It cannot be read without running code, or is not exactly what was published.
    """
    held = _load(path)
    if not isinstance(held, dict) or not isinstance(model := held.get("model"), dict):
        raise InputError(str(path), "it holds no 'model'", REMEDY)
    layout = published_layout()
    if absent := [key for key in layout if key not in model]:
        problem = f"{len(absent)} of {len(layout)} tensors are missing, first {absent[0]!r}"
        if all(key.startswith(MOTION) for key in absent) and len(absent) > 1:
            problem += " (it looks like a stage-1 model, which cannot talk yet)"
        raise InputError(str(path), problem, REMEDY)
    if unknown := [key for key in model if key not in layout]:
        raise InputError(str(path), f"{unknown[0]!r} does not belong there", REMEDY)
    for key, (shape, dtype) in layout.items():
        _check_tensor(path, key, model[key], shape, dtype)
    edges = table_edges().tolist()
    for key in layout:
        if key.endswith(".offsets") and model[key].tolist() != edges:
            raise InputError(str(path), f"the hash table sizes in {key!r} are not the published ones", REMEDY)
    _check_settings(path, held.get("meta_cfg"))
    return {key: model[key] for key in layout}


def _load(path: Path) -> object:
    """The file's content; made by a loader that can build tensors and plain containers only."""
    if not path.is_file():
        raise InputError(str(path), "there is no such file", f"Download {FILE} of {REPOSITORY} first.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UnpicklingError as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "").strip()
        problem = "it holds something other than tensors and plain values, which could run code"
        raise InputError(str(path), f"{problem} {reason}".rstrip(" ."), REMEDY) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise InputError(str(path), "it is no complete PyTorch checkpoint", REMEDY) from error


def _check_tensor(path: Path, key: str, tensor: object, shape: tuple[int, ...], dtype: str) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(str(path), f"{key!r} is no tensor", REMEDY)
    if tuple(tensor.shape) != shape:
        problem = f"{key!r} has the shape {tuple(tensor.shape)} instead of {shape}"
        raise InputError(str(path), problem, REMEDY)
    if tensor.dtype != getattr(torch, dtype):
        problem = f"{key!r} is of type {str(tensor.dtype).removeprefix('torch.')} instead of {dtype}"
        raise InputError(str(path), problem, REMEDY)
    if not torch.isfinite(tensor).all():
        raise InputError(str(path), f"{key!r} holds values that are not numbers", REMEDY)


def _check_settings(path: Path, settings: object) -> None:
    """Their own config, where the file has one, must not ask for other sound features."""
    model = settings.get("AUDIO_DRIVE_MODEL") if isinstance(settings, dict) else None
    extractor = model.get("AUDIO_EXTRACTOR", "hubert") if isinstance(model, dict) else "hubert"
    if extractor != "hubert":
        raise InputError(str(path), f"it was trained on {extractor!r} features, not on HuBERT's", REMEDY)


def table_edges() -> Tensor:
    """Where each level of a hash table begins and the last ends: the checkpoint's only integers (reference Q10)."""
    c = BASE
    encoding = TriplaneHashEncoding(
        c.hash_levels, c.hash_base_resolution, c.hash_finest_resolution, c.hash_log2_table
    )
    return encoding.xy.offsets
