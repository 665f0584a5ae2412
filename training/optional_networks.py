"""Optional networks: published networks with weights that the user has added (`sdtalk assets add`)."""

from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from sdtalk.errors import InputError
from sdtalk.weights.assets import OPTIONAL_ASSETS

Network = TypeVar("Network", bound=nn.Module)

UNUSED = "num_batches_tracked"
"""What batch normalisation counts while training; files of old PyTorch versions lack it."""


def load_optional_network(kind: type[Network], asset: str, device: torch.device | str) -> Network | None:
    """A network with the weights of an optional asset; it takes no gradients and evaluates.

    Args:
        kind: Builds the network, which has exactly the tensors of the asset.
        asset: Its short name.
        device: Where the network goes.

    Returns:
        The network, or None where the asset is not on this machine.

    Raises:
        InputError: The file is damaged, or holds another network.
    """
    path = next(a for a in OPTIONAL_ASSETS if a.name == asset).found()
    if path is None:
        return None
    network = kind()
    try:
        found = network.load_state_dict(load_file(path), strict=False)
        wrong = [*found.unexpected_keys, *(k for k in found.missing_keys if not k.endswith(UNUSED))]
        if wrong:
            raise RuntimeError(f"{wrong[0]} does not fit")
    except (SafetensorError, RuntimeError, OSError) as error:
        remedy = f"Add it again: `sdtalk assets add {asset} FILE...`."
        raise InputError(str(path), "it is damaged, or holds another network", remedy) from error
    return network.eval().requires_grad_(False).to(device)


def missing_network_reason(asset: str) -> str:
    """Why a metric that needs an asset cannot be computed, and what helps."""
    found = next(a for a in OPTIONAL_ASSETS if a.name == asset)
    return f"not on this machine: {found.what}. Get it from {found.where}"
