"""FLAME archives: recognises FLAME's data in pickles, .npy, .npz and zip files; nothing of it is run."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sdtalk.errors import InputError
from sdtalk.flame.layer import COMPLETION_MASKS
from sdtalk.weights.unpickle import LARGEST_BYTES, read_npy, read_pickle

ON_MESH = "mesh "
"""Marks an embedding of points of MediaPipe's face mesh, which FLAME's own site gives."""

_SPARED = {"generic_model": {"female_model", "male_model"}, "flame2023": {"flame2023_no_jaw"}}
"""Members of the site's archives that are models, too, and are passed over beside the one that trackers use."""


@dataclass(frozen=True)
class Piece:
    """What one file, or one member of an archive, holds.

    Attributes:
        kind: "model", "masks", "landmarks", or the last with ON_MESH before it.
        source: Where it was found, for errors.
        values: By their names there; numbers are arrays.
    """

    kind: str
    source: str
    values: dict[str, Any]


def pieces_in(path: Path) -> list[Piece]:
    """What a file holds of the three; more than one piece if it is an archive.

    Raises:
        InputError: It cannot be read, is damaged, names code to run, or holds none of them.
    """
    remedy = "Give the files as downloaded: pickles, .npy files, or archives with them."
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(str(path), f"it is larger than {LARGEST_BYTES >> 20} MB", remedy)
        content = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"it cannot be read ({error.strerror or error})", remedy) from error
    pieces = _pieces_of(content, str(path))
    if not pieces:
        raise InputError(str(path), "it holds neither FLAME's model nor its masks nor landmarks", remedy)
    return pieces


def _pieces_of(content: bytes, source: str, inner: bool = False) -> list[Piece]:
    """Pieces in a file's bytes; an archive may hold .npz files, which are archives, but no deeper ones."""
    if content.startswith(b"PK\x03\x04"):
        members = _members(content, source)
        if inner or all(name.endswith(".npy") for name in members):
            values = {PurePosixPath(n).stem: read_npy(read(), f"{source}/{n}") for n, read in members.items()}
            return _recognised(values, source) or [p for v in values.values() for p in _recognised(v, source)]
        found = (_pieces_of(read(), f"{source}/{name}", inner=True) for name, read in members.items())
        return [piece for pieces in found for piece in pieces]
    read_values = read_npy if content.startswith(b"\x93NUMPY") else read_pickle
    return _recognised(read_values(content, source), source)


def _members(content: bytes, source: str) -> dict[str, Callable[[], bytes]]:
    """Readers of those of an archive's files that may be FLAME's."""
    with _archive_errors(source):
        archive = zipfile.ZipFile(io.BytesIO(content))
        infos = [
            i for i in archive.infolist() if PurePosixPath(i.filename).suffix in (".pkl", ".npy", ".npz")
        ]

    def reader(info: zipfile.ZipInfo) -> Callable[[], bytes]:
        def read() -> bytes:
            with _archive_errors(source), archive.open(info) as member:
                return member.read(info.file_size)

        return read

    stems = {PurePosixPath(info.filename).stem for info in infos}
    spared = {sibling for stem in stems & set(_SPARED) for sibling in _SPARED[stem]}
    infos = [info for info in infos if PurePosixPath(info.filename).stem not in spared]
    infos = [info for info in infos if not info.filename.startswith("__MACOSX/")]
    if sum(info.file_size for info in infos) > LARGEST_BYTES:
        problem = f"its files are larger than {LARGEST_BYTES >> 20} MB when unpacked"
        raise InputError(source, problem, "Do not use it; download it again from the site of its authors.")
    return {info.filename: reader(info) for info in infos}


@contextmanager
def _archive_errors(source: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise InputError(source, "it is a damaged or locked archive", "Download it again.") from error


def _recognised(values: Any, source: str) -> list[Piece]:
    if not isinstance(values, dict):
        return []
    if "v_template" in values and "shapedirs" in values:
        return [Piece("model", source, values)]
    if any(name in values for name in COMPLETION_MASKS):
        return [Piece("masks", source, values)]
    if "landmark_indices" in values:
        return [Piece(f"{ON_MESH}landmarks", source, values)]
    if "full_lmk_faces_idx" in values or "lmk_face_idx" in values:
        return [Piece("landmarks", source, values)]
    return []
