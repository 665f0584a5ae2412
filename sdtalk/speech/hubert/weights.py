"""HuBERT weights: reads the files of a folder, strictly and without the Hub, and stores them for the user."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor, nn

from sdtalk.errors import InputError
from sdtalk.weights.assets import HUBERT, data_folder, replaced_asset
from sdtalk.weights.hub import CONFIG, WEIGHTS
from sdtalk.weights.third_party import read_tensors

HOP, KERNEL = 320, 400  # samples from one token to the next, and what a token hears before any attention
HUBERT_WIDTH = 1024  # numbers of a token of HuBERT-large

_REMEDY = f"Give the folder of {HUBERT}: {CONFIG} and {WEIGHTS} (or pytorch_model.bin)."


def read_hubert(folder: Path, width: int | None = None) -> nn.Module:
    """The bare network, a `transformers.HubertModel` in float32 on the CPU.

    Args:
        folder: With config.json and model.safetensors (or pytorch_model.bin, which is read without running it), of a
            speech recogniser (HubertForCTC; its letters are dropped) or of the bare network.
        width: How wide its tokens have to be; None: as wide as they are.

    Raises:
        InputError: A file is missing or damaged, or the network is of another kind than HuBERT-large.
    """
    from transformers import HubertModel  # takes seconds to import, which users of mini need not wait

    config = _read_config(folder)
    if width not in (None, config.hidden_size):
        problem = f"its hidden_size is {config.hidden_size} instead of {width}"
        raise InputError(str(folder / CONFIG), problem, _REMEDY)
    try:
        with torch.device("meta"):
            model = HubertModel(config)
    except (ValueError, TypeError, LookupError, RuntimeError, ZeroDivisionError) as error:
        raise InputError(str(folder / CONFIG), "no network can be built from it", _REMEDY) from error
    model.load_state_dict(_read_weights(folder, model.state_dict()), assign=True)
    return model


def add_hubert(folder: Path) -> Path:
    """Check HuBERT-large and store it among the user's files, in the place of an older one.

    Args:
        folder: As for `read_hubert`; as the Hub's download of it makes.

    Returns:
        The folder in the user's data folder, with config.json and model.safetensors: the bare network in float32.

    Raises:
        InputError: As `read_hubert`, or the data folder cannot be written.
    """
    network = read_hubert(folder, HUBERT_WIDTH)
    with replaced_asset("hubert") as draft:
        shutil.copyfile(folder / CONFIG, draft / CONFIG)
        save_file(network.state_dict(), draft / WEIGHTS, metadata={"format": "pt"})
    return data_folder() / "hubert"


def check_kind(config: Any, subject: str) -> None:
    """Refuse what cannot be computed in pieces, or has other tokens than HuBERT-large.

    Args:
        config: A `transformers.HubertConfig`.
        subject: What to call the network in an error.

    Raises:
        InputError: The network is of another kind.
    """
    problem = None
    if config.feat_extract_norm != "layer":
        problem = "it normalises its first convolution over the whole recording, so pieces of it would sound unlike it"
    elif not config.do_stable_layer_norm or getattr(config, "adapter_attn_dim", None) is not None:
        problem = "its transformer layers are not those of HuBERT-large"
    elif math.prod(config.conv_stride) != HOP or _kernel(config) != KERNEL:
        problem = f"its tokens are not {KERNEL} samples long and {HOP} apart"
    if problem:
        raise InputError(subject, problem, _REMEDY)


def _kernel(config: Any) -> int:
    """Samples that one token hears."""
    length = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        length = (length - 1) * stride + kernel
    return length


def _read_config(folder: Path) -> Any:
    from transformers import HubertConfig

    path = folder / CONFIG
    if not path.is_file():
        raise InputError(str(path), "there is no such file", _REMEDY)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("model_type") != "hubert":
            raise InputError(str(path), f"it describes {values.get('model_type')!r}, not HuBERT", _REMEDY)
        config = HubertConfig.from_dict(values)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, StrictDataclassError) as error:
        raise InputError(str(path), "it does not describe a HuBERT network", _REMEDY) from error
    check_kind(config, str(path))
    return config


def _read_weights(folder: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of the bare network, by its names, in float32."""
    path = folder / WEIGHTS
    path = path if path.is_file() else folder / "pytorch_model.bin"
    if not path.is_file():
        raise InputError(str(folder), "it holds no weights", _REMEDY)
    file = read_tensors(path, _REMEDY)
    tensors = {_our_name(k): tensor.float() for k, tensor in file.items() if not k.startswith("lm_head.")}
    missing = [k for k, like in wanted.items() if k not in tensors or tensors[k].shape != like.shape]
    if missing:
        problem = f"{len(missing)} of {len(wanted)} tensors are missing or misshapen, first {missing[0]!r}"
        raise InputError(str(path), problem, _REMEDY)
    if unknown := [key for key in tensors if key not in wanted]:
        raise InputError(str(path), f"{unknown[0]!r} does not belong there", _REMEDY)
    return tensors


def _our_name(key: str) -> str:
    """Names as of a bare network in today's transformers; older files name the weight norm otherwise."""
    norm = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
    old = {
        "encoder.pos_conv_embed.conv.weight_g": f"{norm}0",
        "encoder.pos_conv_embed.conv.weight_v": f"{norm}1",
    }
    key = key.removeprefix("hubert.")
    return old.get(key, key)
