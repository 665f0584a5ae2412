"""Safe unpickler: reads pickles of numbers and runs nothing they name.

`sdtalk.weights.pickle_machine` runs it and leaves notes of what it asked for. What they mean is worked out here, for
arrays and for what scipy's matrices and chumpy's arrays hold.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from sdtalk.errors import InputError
from sdtalk.weights.pickle_machine import Note, Refused, check_keys, run_pickle

LARGEST_BYTES = 1 << 29
"""No file, and no sum of the arrays in one, may be larger (FLAME's largest file has 50 MB)."""

DEEPEST = 30
"""How far containers may be nested."""


@dataclass(frozen=True)
class Unread:
    """What stands in the place of a value that is not read: another library's, or a type."""

    kind: str


def read_pickle(content: bytes, subject: str) -> Any:
    """Read a pickle of numbers, of Python 2 or 3.

    Args:
        content: The file's bytes.
        subject: What to call the file in an error.

    Returns:
        Dicts, lists, tuples, sets, strings, numbers, NumPy arrays and dtypes; sparse matrices as whole arrays,
        chumpy's arrays as the array they hold, and `Unread` for the rest of chumpy, for tensors of PyTorch and types.

    Raises:
        InputError: It names anything else, is damaged, or is too large.
    """
    return _guarded(lambda: _Meaning().plain(run_pickle(content)), content, subject)


def read_npy(content: bytes, subject: str) -> Any:
    """Read a .npy file: its array or, of an object array, the one object it holds, as `read_pickle` does.

    Raises:
        InputError: As for `read_pickle`.
    """
    return _guarded(lambda: _npy(content), content, subject)


def _guarded(read: Callable[[], Any], content: bytes, subject: str) -> Any:
    try:
        if len(content) > LARGEST_BYTES:
            raise Refused(f"is larger than {LARGEST_BYTES >> 20} MB")
        return read()
    except Refused as error:
        remedy = "Do not use it; download the file again from the site of its authors."
        raise InputError(subject, f"it {error}", remedy) from None
    except Exception as error:  # neither pickle nor numpy's reader of headers promises what damage raises
        problem = "it is damaged or no file of numbers"
        raise InputError(subject, problem, "Download it again, whole.") from error


def _npy(content: bytes) -> Any:
    stream = io.BytesIO(content)
    header_readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    shape, fortran, dtype = header_readers[npy_format.read_magic(stream)](stream)
    if dtype.hasobject:
        return _Meaning().one_object(run_pickle(content[stream.tell() :]))
    return _numbers(content[stream.tell() :], dtype, shape, "F" if fortran else "C")


class _Meaning:
    """Turns what the machine left into plain values."""

    def __init__(self) -> None:
        self.bytes_left = LARGEST_BYTES
        self.done: dict[int, Any] = {}  # what became of each object; a file may hold it several times

    def plain(self, value: Any, depth: int = 0) -> Any:
        """A value with all its notes worked out; part of what `run_pickle` gave, or its `id` would not last."""
        if depth > DEEPEST:
            raise Refused("is nested too deeply")
        if id(value) not in self.done:
            self.done[id(value)] = self.made(value, depth + 1)
        return self.done[id(value)]

    def made(self, value: Any, depth: int) -> Any:
        match value:
            case dict():
                return {key: self.plain(part, depth) for key, part in value.items()}
            case list() | tuple():
                return type(value)([self.plain(part, depth) for part in value])
            case Note(values=None) | Note(kind="torch"):
                return Unread(value.kind)
            case Note(kind="chumpy", state=None | dict()):
                numbers = self.plain((value.state or {}).get("x"), depth)
                return numbers if isinstance(numbers, np.ndarray) else Unread("chumpy")
            case Note():
                return self.meant(value.kind, self.plain(value.values, depth), self.plain(value.state, depth))
        return value  # text, bytes, numbers, and sets of them

    def one_object(self, value: Any) -> Any:
        match value:
            case Note(kind="array", state=(_, () | (1,), _, _, [thing])):
                return self.plain(thing)
        raise Refused("is an array of objects, and not of exactly one")

    def meant(self, kind: str, values: Any, state: Any) -> Any:
        match kind, values, state:
            case "dtype", (str(code), *_), None | (_, "<" | ">" | "|" | "=", None, None, None, *_):
                if not re.fullmatch(r"[iu][1248]|f[248]|b1|O[48]?", code):
                    raise Refused("holds arrays of something else than numbers")
                return np.dtype("O" if code[0] == "O" else (state[1] if state else "=") + code)
            case "array", (Unread("ndarray"), *_), (_, shape, dtype, fortran, raw):
                return self.array(raw, dtype, shape, "F" if fortran else "C")
            case "number", (dtype, raw), None:
                return self.array(raw, dtype, (), "C").item()
            case "buffer", (raw, dtype, shape, order, *axes), None:
                array = self.array(raw, dtype, shape, order)
                return array.transpose(*axes) if order == "K" else array
            case "bytes", (), None:
                return b""
            case "bytes", (str(text), "latin1" | "latin-1"), None:
                self.spend(len(text))
                return text.encode("latin-1")
            case "set", (list(items),), None:
                self.spend(100 * len(items))  # about what a set takes for each
                check_keys(items)
                return set(items)
            case "csc" | "csr", _, dict():
                return self.whole_matrix(state, kind)
        raise TypeError

    def array(self, raw: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
        if dtype.hasobject:
            raise Refused("holds an array of objects")
        raw = raw.encode("latin-1") if type(raw) is str else raw
        self.spend(len(raw))
        return _numbers(raw, dtype, shape, order)

    def spend(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise Refused(f"holds more than {LARGEST_BYTES >> 20} MB of numbers")

    def whole_matrix(self, state: dict[str, Any], form: str) -> np.ndarray:
        """What scipy's `toarray` gives, with the checks it leaves out.

        Ends beyond the values must not reach numpy.repeat: their differences may add up to a length that is too
        small only because the sum overflows, and it would write outside its memory.
        """
        rows, columns = state["_shape"] if "_shape" in state else state["shape"]
        majors, minors = (columns, rows) if form == "csc" else (rows, columns)
        values, minor, ends = (state[name] for name in ("data", "indices", "indptr"))
        if any(type(size) is not int or size < 0 for size in (rows, columns)):
            raise ValueError
        if any(part.ndim != 1 for part in (values, minor, ends)) or len(minor) != len(values):
            raise ValueError
        if any(part.dtype.kind not in "iu" or (part < 0).any() for part in (minor, ends)):
            raise ValueError
        if len(ends) != majors + 1 or ends[0] != 0 or ends[-1] != len(values) or ends.max() > len(values):
            raise ValueError
        self.spend(majors * minors * values.itemsize)
        whole = np.zeros((majors, minors), values.dtype)
        np.add.at(whole, (np.repeat(np.arange(majors), np.diff(ends.astype(np.int64))), minor), values)
        return whole.T if form == "csc" else whole


def _numbers(raw: bytes | bytearray, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    if type(raw) not in (bytes, bytearray) or type(shape) is not tuple or dtype.kind not in "fiub":
        raise TypeError
    if len(shape) > 8 or any(type(size) is not int or not 0 <= size <= LARGEST_BYTES for size in shape):
        raise ValueError
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError
    flat = np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")
