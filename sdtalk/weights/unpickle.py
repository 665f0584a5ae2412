"""Safe unpickler: reads pickles of numbers and runs nothing they name.

A pickle is a program for a small stack machine, and may call whatever it names. Here the standard library's machine
runs it, but a name is never looked up: it stands for a note of what was asked for, and calling it only writes one.
What the notes mean is worked out afterwards, for arrays and for what scipy's matrices and chumpy's arrays hold.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from sdtalk.errors import InputError

LARGEST_BYTES = 1 << 29
"""No file, and no sum of the arrays in one, may be larger (FLAME's largest file has 50 MB)."""

MOST_OPERATIONS = 1_000_000
"""No file may have more instructions (FLAME's files have some thousands)."""

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
    return _guarded(lambda: _Meaning().plain(_run(content)), content, subject)


def read_npy(content: bytes, subject: str) -> Any:
    """Read a .npy file: its array or, of an object array, the one object it holds, as `read_pickle` does.

    Raises:
        InputError: As for `read_pickle`.
    """
    return _guarded(lambda: _npy(content), content, subject)


class _Refused(Exception):
    """The file asks for something it may not have; the text completes "it ..."."""


def _guarded(read: Callable[[], Any], content: bytes, subject: str) -> Any:
    try:
        if len(content) > LARGEST_BYTES:
            raise _Refused(f"is larger than {LARGEST_BYTES >> 20} MB")
        return read()
    except _Refused as error:
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
        return _Meaning().one_object(_run(content[stream.tell() :]))
    return _numbers(content[stream.tell() :], dtype, shape, "F" if fortran else "C")


class _Note:
    """What a file asks for: a kind of object, the values to make it from once it is called, its state after that.

    It has no place for other attributes, so no file can give it any.
    """

    __slots__ = ("kind", "values", "state")

    def __init__(self, kind: str, values: tuple[Any, ...] | None = None) -> None:
        self.kind, self.values = kind, values
        self.state: Any = None

    def __call__(self, *values: Any) -> Any:
        if self.kind == "new":  # an object of the class in values[0]
            return values[0]()
        return {} if self.kind == "dict" and not values else _Note(self.kind, values)


_Unpickler: Any = pickle._Unpickler  # the one in Python, whose instructions can be replaced one by one


class _Machine(_Unpickler):
    """The standard library's machine; the table of its instructions is below."""

    operations = 0

    def find_class(self, module: str, name: str) -> _Note:
        full = f"{module}.{name}"
        kind = _KINDS.get(full.replace("._c", ".c"))  # numpy._core was numpy.core, scipy.sparse._csc was .csc
        if kind is None and module.partition(".")[0] != "chumpy":
            shown = "".join(c if c.isprintable() else "?" for c in full)[:80]
            raise _Refused(f"wants to run {shown}, and a file of numbers runs nothing")
        return _Note(kind or "chumpy")

    def build(self) -> None:
        """Give a note its state; the library would set attributes of anything."""
        state, note = self.stack.pop(), self.stack[-1]
        if type(note) is not _Note or note.values is None:
            raise TypeError
        note.state = state

    def bytearray8(self) -> None:
        """The library takes the memory that the file asks for before it looks how much there is."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))


def _run(content: bytes) -> Any:
    if not content.endswith(pickle.STOP):  # first, or half a name at the end would be taken for another name
        raise EOFError
    return _Machine(io.BytesIO(content), encoding="latin-1").load()


# NEWOBJ asks for an object as REDUCE does, from a class and values, and gets the same note.
_OWN = {"NEWOBJ": _Unpickler.load_reduce, "BUILD": _Machine.build, "BYTEARRAY8": _Machine.bytearray8}
_FORBIDDEN = "PERSID BINPERSID INST OBJ EXT1 EXT2 EXT4 NEWOBJ_EX NEXT_BUFFER READONLY_BUFFER".split()
_PAIRS, _ALL = slice(None, None, 2), slice(None)
_KEYS = {"DICT": _PAIRS, "SETITEMS": _PAIRS, "SETITEM": slice(-2, -1), "ADDITEMS": _ALL, "FROZENSET": _ALL}
"""Where on the stack the keys are that an instruction hashes."""


def _check_keys(keys: list[Any]) -> None:
    """Hashing nested tuples could take for ever, or more of the process's stack than there is."""
    if any(type(key) not in (str, bytes, int, float, bool, type(None)) for key in keys):
        raise TypeError


def _limited(operation: pickletools.OpcodeInfo) -> Callable[[_Machine], None]:
    """An instruction that does what the library's does, within limits."""
    step = _OWN.get(operation.name, _Unpickler.dispatch[ord(operation.code)])

    def run(machine: _Machine) -> None:
        machine.operations += 1
        if machine.operations > MOST_OPERATIONS:
            raise _Refused(f"has more than {MOST_OPERATIONS} instructions")
        if operation.name in _FORBIDDEN:
            raise _Refused(f"uses pickle's instruction {operation.name}")
        if operation.name in _KEYS:
            _check_keys(machine.stack[_KEYS[operation.name]])
        step(machine)

    return run


_Machine.dispatch = {ord(o.code): _limited(o) for o in pickletools.opcodes if o.proto <= 5}


class _Meaning:
    """Turns what the machine left into plain values."""

    def __init__(self) -> None:
        self.bytes_left = LARGEST_BYTES
        self.done: dict[int, Any] = {}  # what became of each object; a file may hold it several times

    def plain(self, value: Any, depth: int = 0) -> Any:
        """A value with all its notes worked out; part of what `_run` gave, or its `id` would not last."""
        if depth > DEEPEST:
            raise _Refused("is nested too deeply")
        if id(value) not in self.done:
            self.done[id(value)] = self.made(value, depth + 1)
        return self.done[id(value)]

    def made(self, value: Any, depth: int) -> Any:
        match value:
            case dict():
                return {key: self.plain(part, depth) for key, part in value.items()}
            case list() | tuple():
                return type(value)([self.plain(part, depth) for part in value])
            case _Note(values=None) | _Note(kind="torch"):
                return Unread(value.kind)
            case _Note(kind="chumpy", state=None | dict()):
                numbers = self.plain((value.state or {}).get("x"), depth)
                return numbers if isinstance(numbers, np.ndarray) else Unread("chumpy")
            case _Note():
                return self.meant(value.kind, self.plain(value.values, depth), self.plain(value.state, depth))
        return value  # text, bytes, numbers, and sets of them

    def one_object(self, value: Any) -> Any:
        match value:
            case _Note(kind="array", state=(_, () | (1,), _, _, [thing])):
                return self.plain(thing)
        raise _Refused("is an array of objects, and not of exactly one")

    def meant(self, kind: str, values: Any, state: Any) -> Any:
        match kind, values, state:
            case "dtype", (str(code), *_), None | (_, "<" | ">" | "|" | "=", None, None, None, *_):
                if not re.fullmatch(r"[iu][1248]|f[248]|b1|O[48]?", code):
                    raise _Refused("holds arrays of something else than numbers")
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
                _check_keys(items)
                return set(items)
            case "csc" | "csr", _, dict():
                return self.whole_matrix(state, kind)
        raise TypeError

    def array(self, raw: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
        if dtype.hasobject:
            raise _Refused("holds an array of objects")
        raw = raw.encode("latin-1") if type(raw) is str else raw
        self.spend(len(raw))
        return _numbers(raw, dtype, shape, order)

    def spend(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise _Refused(f"holds more than {LARGEST_BYTES >> 20} MB of numbers")

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


_SPELLINGS = {
    "ndarray": "numpy.ndarray",
    "dtype": "numpy.dtype",
    "array": "numpy.core.multiarray._reconstruct",
    "number": "numpy.core.multiarray.scalar",
    "buffer": "numpy.core.numeric._frombuffer",
    "csc": "scipy.sparse.csc.csc_matrix scipy.sparse.csc.csc_array",
    "csr": "scipy.sparse.csr.csr_matrix scipy.sparse.csr.csr_array",
    "bytes": "_codecs.encode builtins.bytes __builtin__.bytes",
    "set": "builtins.set builtins.frozenset __builtin__.set __builtin__.frozenset",
    "dict": "collections.OrderedDict",
    "object": "builtins.object __builtin__.object",
    "new": "copyreg._reconstructor copyreg.__newobj__ copy_reg._reconstructor copy_reg.__newobj__",
    "torch": "torch._utils._rebuild_tensor torch._utils._rebuild_tensor_v2 torch.storage._load_from_bytes",
}
_KINDS = {name: kind for kind, names in _SPELLINGS.items() for name in names.split()}
"""Every name a file may use, apart from chumpy's. A tensor's bytes are a pickle again, which is left alone."""
