"""Storage of a prepared data set, local or remote: reads byte ranges of its shards and checks them."""

import io
import tarfile
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sdtalk.errors import InputError
from training.data.entries import Span

BLOCK = tarfile.BLOCKSIZE
SHARD_FOLDERS = ("frames", "clips")
ARRAYS_REMEDY = "Copy this shard again, or prepare the clip again."
RETRY_WAITS_S = (1, 4, 15, 40)
"""How long to wait before asking a remote machine again."""


class Store(ABC):
    """Bytes of a data set by their paths inside it."""

    def __init__(self, source: str) -> None:
        self.source = source

    @staticmethod
    def open(source: str | Path) -> "Store":
        """A folder, or any address that fsspec knows.

        Raises:
            InputError: There is no such folder, or no way to read from this address.
        """
        if "://" in str(source):
            return RemoteStore(str(source))
        if not Path(source).is_dir():
            problem = "it is no folder" if Path(source).exists() else "there is no such folder"
            raise InputError(str(source), problem, "Give a folder that training/prepare.py wrote.")
        return LocalStore(str(source))

    @abstractmethod
    def read(self, path: str, start: int = 0, size: int | None = None) -> bytes:
        """Bytes of a file; fewer where it is too short.

        Raises:
            InputError: There is no such file, or it cannot be read.
        """

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Sizes in bytes of all shards, by path."""

    def span(self, span: Span) -> bytes:
        """The bytes of a span, as they were written.

        Raises:
            InputError: They are not.
        """
        data = self.read(span.shard, span.offset, span.size)
        if len(data) != span.size or zlib.crc32(data) != span.crc32:
            problem = f"bytes {span.offset:,} to {span.offset + span.size:,} are not what was written there"
            raise InputError(f"{self.source}/{span.shard}", problem, "Copy this shard again.")
        return data


class LocalStore(Store):
    """A folder."""

    def read(self, path: str, start: int = 0, size: int | None = None) -> bytes:
        """See `Store.read`."""
        file = Path(self.source, path)
        try:
            with file.open("rb") as opened:
                opened.seek(start)
                return opened.read(-1 if size is None else size)
        except FileNotFoundError as error:
            remedy = "Give a folder that training/prepare.py wrote."
            raise InputError(str(file), "there is no such file", remedy) from error
        except OSError as error:
            problem = f"it cannot be read ({error.strerror or error})"
            raise InputError(str(file), problem, "Copy it again.") from error

    def sizes(self) -> dict[str, int]:
        """See `Store.sizes`."""
        found = (p for folder in SHARD_FOLDERS for p in Path(self.source, folder).glob("*.tar"))
        return {f"{p.parent.name}/{p.name}": p.stat().st_size for p in found}


class UnreachableError(InputError):
    """Another machine does not answer: nothing is known about the data, so nothing of it may be left out."""


class RemoteStore(Store):
    """A data set on another machine, by fsspec: only the ranges that are needed come over."""

    def __init__(self, source: str) -> None:
        import fsspec  # comes with `datasets`; a local data set does without

        super().__init__(source.rstrip("/"))
        remedy = 'Give a folder, or "hf://datasets/USER/NAME".'
        try:
            self.files, self.root = fsspec.url_to_fs(self.source)
        except (ImportError, ValueError) as error:
            raise InputError(source, f"it cannot be opened ({error})", remedy) from error

    def read(self, path: str, start: int = 0, size: int | None = None) -> bytes:
        """See `Store.read`; asks again for a minute where there is no answer."""
        return self._with_retries(path, lambda: self._read(path, start, size))

    def _read(self, path: str, start: int, size: int | None) -> bytes:
        # without a cache: what is read beside a range is not needed
        with self.files.open(f"{self.root}/{path}", "rb", cache_type="none") as file:
            file.seek(start)
            return file.read(-1 if size is None else size)

    def sizes(self) -> dict[str, int]:
        """See `Store.sizes`."""
        return {
            path: size
            for folder in SHARD_FOLDERS
            for path, size in self._with_retries(folder, lambda folder=folder: self._listed(folder)).items()
        }

    def _listed(self, folder: str) -> dict[str, int]:
        found = self.files.ls(f"{self.root}/{folder}", detail=True)
        return {f"{folder}/{Path(f['name']).name}": f["size"] for f in found}

    def _with_retries(self, path: str, ask: Any) -> Any:
        remedy = "Check the address, your access to it, and the connection; training can go on with --resume."
        for wait in (*RETRY_WAITS_S, None):
            try:
                return ask()
            except FileNotFoundError as error:
                problem = "there is no such file, or no access to it"
                raise UnreachableError(f"{self.source}/{path}", problem, remedy) from error
            except Exception as error:  # clients of fsspec raise what their transports raise
                if wait is None:
                    raise UnreachableError(f"{self.source}/{path}", f"no answer ({error})", remedy) from error
                time.sleep(wait)
        raise AssertionError("unreachable")


def tar_members(data: bytes, source: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the members of a part of a tar.

    Raises:
        InputError: It is none; `source` says where it comes from.
    """
    at = 0
    while at < len(data):
        try:
            info = tarfile.TarInfo.frombuf(data[at : at + BLOCK], "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise InputError(source, f"it is damaged ({error})", "Copy this shard again.") from error
        start = at + BLOCK
        at = start + padded(info.size)
        if at > len(data):
            raise InputError(source, f"{info.name} is cut short", "Copy this shard again.")
        yield info.name, data[start : start + info.size]


def read_record(data: bytes, source: str) -> tuple[bytes, dict[str, np.ndarray]]:
    """Metadata, still encoded, and arrays of a clip.

    Args:
        data: The record's part of the tar.
        source: Where it comes from, for the message.

    Raises:
        InputError: It is damaged.
    """
    found = {name.partition(".")[2]: content for name, content in tar_members(data, source)}
    try:
        with np.load(io.BytesIO(found["npz"]), allow_pickle=False) as file:
            return found["json"], {name: file[name] for name in file.files}
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, OSError, BadZipFile) as error:
        raise InputError(source, f"its arrays cannot be read ({error!r})", ARRAYS_REMEDY) from error


def padded(size: int) -> int:
    """How many bytes a member of so many bytes takes in a tar, without its header."""
    return -(-size // BLOCK) * BLOCK
