"""Wheels: packages that a machine without a network is given as files, installed into a folder of their own."""

import sys
from importlib import invalidate_caches
from importlib.machinery import PathFinder
from pathlib import Path

from scripts.gpu.steps import ROOT, Step


def wheels_step(wheels: Path, site: Path) -> Step:
    """Install every wheel of a folder into another one; nothing is asked of a network, nothing else is changed."""
    files = sorted(str(path.resolve()) for path in wheels.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += [
        "--no-deps",
        "--no-compile",
        "--no-cache-dir",
        "--root-user-action=ignore",
        "--target",
        str(site),
    ]
    return Step("wheels", [*command, *files], 60, skip="" if files else f"there are none in {wheels.name}")


def search_path(site: Path, inherited: str) -> str:
    """PYTHONPATH under which commands find the repository, then those wheels, then what was there."""
    return ":".join([str(ROOT), str(site), *([inherited] if inherited else [])])


def importable(module: str, site: Path) -> bool:
    """Whether commands will find a module."""
    invalidate_caches()  # it may just have been installed
    return PathFinder.find_spec(module, [str(site), *sys.path]) is not None
