"""Exported files: a head, or a head that speaks, as a file whose suffix says of which kind."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.export.moving import moving_splats
from sdtalk.export.packed import as_json
from sdtalk.export.page import page_of
from sdtalk.export.splats import Splats, splats_of
from sdtalk.export.still import as_ply, as_splat
from sdtalk.head import Head
from sdtalk.talk import Talk

STILL: dict[str, Callable[[Splats], bytes]] = {".ply": as_ply, ".splat": as_splat}
MOVING = (".json", ".html")
"""Those that can hold motion."""
SUFFIXES = (*STILL, *MOVING)

MISSING = (
    "The neural renderer's part is missing in it: the painted inside of the mouth and the painted eyes. "
    "Other viewers show the Gaussians alone."
)


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        path: Where it is.
        splats: How many Gaussians are in it.
        left_out: How many Gaussians of the head are not: transparent, hidden from every side, or beyond the photo.
        size: Bytes.
        frames: How many frames of motion it has.
    """

    path: Path
    splats: int
    left_out: int
    size: int
    frames: int = 0


def export_head(head: Head, path: str | Path) -> Exported:
    """Write a head as the photo shows it.

    Args:
        head: From `SDTalkPipeline.reconstruct`.
        path: A .ply (3D Gaussian Splatting's), .splat, .json (see `export.packed`) or .html (a viewer with the head in
            it). It appears when all went well, and else nothing does.

    Raises:
        InputError: It cannot be written, or its suffix is none of these.

    Examples:
        >>> export_head(pipeline.reconstruct("portrait.jpg"), "head.ply").path.name
        'head.ply'
    """
    kind = check_export(path)
    splats = splats_of(head.gaussians)
    if kind in STILL:
        return _written(Path(path), STILL[kind](splats), splats)
    packed = as_json(splats)
    return _written(Path(path), packed if kind == ".json" else page_of(packed), splats)


def export_talk(talk: Talk, path: str | Path) -> Exported:
    """Write a head with the motion of a recording, and its sound.

    Args:
        talk: From `SDTalkPipeline.talk`; its frames need not be rendered. Its label and background are not shown.
        path: A .json (see `export.packed`) or .html (a viewer with the head in it).

    Raises:
        InputError: It cannot be written, or its suffix is none of these.

    Examples:
        >>> export_talk(pipeline("portrait.jpg", "speech.wav"), "head.html").path.name
        'head.html'
    """
    kind = check_export(path, moving=True)
    moving = moving_splats(talk.model, talk.head.gaussians, talk.signals)
    packed = as_json(moving, talk.speech.samples)
    data = packed if kind == ".json" else page_of(packed)
    return _written(Path(path), data, moving.splats, len(moving))


def check_export(path: str | Path, moving: bool = False) -> str:
    """Make sure that a head can be written to a path, before the work starts.

    Args:
        path: The file to write.
        moving: Whether it is to hold motion.

    Returns:
        The suffix, in lower case.

    Raises:
        InputError: It has another suffix, is a folder, or its folder takes no files.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        problem = f"its name ends in none of {', '.join(SUFFIXES)}"
        raise InputError(str(path), problem, "Call it, say, head.ply.")
    if moving and suffix not in MOVING:
        problem = f"a {suffix} holds a head that stands still"
        raise InputError(str(path), problem, f"Use {' or '.join(MOVING)} for one that speaks.")
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise _unwritable(path, error) from error
    return suffix


def _written(path: Path, data: bytes, splats: Splats, frames: int = 0) -> Exported:
    """Write beside the place, then move there; nothing is left behind when that fails."""
    new_folders = [folder for folder in path.absolute().parents if not folder.exists()]
    draft = path.absolute().parent / f".sdtalk-{secrets.token_hex(6)}{path.suffix.lower()}"
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            for folder in new_folders:
                folder.rmdir()
        if isinstance(error, OSError):
            raise _unwritable(path, error) from error
        raise
    return Exported(path, len(splats), splats.left_out, len(data), frames)


def _unwritable(path: Path, error: OSError) -> InputError:
    reason = f"it cannot be written ({error.strerror})"
    return InputError(str(path), reason, "Choose another folder or name for the output.")
