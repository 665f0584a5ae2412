"""Command `sdtalk assets`: files that cannot come with the package are stored where models look for them."""

import argparse
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.flame.file import add_flame
from sdtalk.speech.hubert.weights import add_hubert
from sdtalk.weights.third_party import DOWNLOADS, add_weights


def run(arguments: argparse.Namespace) -> int:
    """Store what was downloaded."""
    asset, files = arguments.asset, [Path(file) for file in arguments.files]
    if asset == "flame":
        place = add_flame(files)
    elif asset in DOWNLOADS:
        place = add_weights(asset, files)
    elif len(files) == 1:
        place = add_hubert(files[0])
    else:
        remedy = "Give the one folder that holds its files."
        raise InputError("hubert", f"{len(files)} names were given", remedy)
    print(f"{asset} is stored in {place}")
    return 0
