"""Where the weight files that come with the package lie."""

from pathlib import Path

from sdtalk.errors import InputError

FOLDER = Path(__file__).parent / "assets"


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
