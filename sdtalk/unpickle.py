"""A reader for pickles of numbers that runs nothing they name.

A pickle is a program for a small stack machine, and Python's own machine calls whatever functions the file asks for.
The machine here knows arrays, plain containers, and records of scipy's sparse matrices and chumpy's arrays; it never
looks a name up, so there is nothing to abuse. A file that names anything else is refused.
"""

import codecs
import io
import math
import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import Any, NoReturn

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
    """What stands in the place of a value that is not read, because only its own library could compute it."""

    kind: str


_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    SyntaxError,
    TokenError,
    RecursionError,
)
"""What reading a damaged file can raise; the last three come from the header of a .npy file, a Python literal."""


class _Refused(Exception):
    """The file asks for something it may not have; the text completes "it ..."."""


@dataclass(eq=False)
class _Global:
    """A name in the file; `make` is what we do for it where the file calls it, on arguments we check."""

    name: str
    make: Callable[["_Machine", tuple[Any, ...]], Any] | None = None


@dataclass(eq=False)
class _Dtype:
    code: str
    order: str = "="

    def numpy(self) -> np.dtype:
        return np.dtype(self.code if self.code in ("b1", "O8") else self.order + self.code)


@dataclass(eq=False)
class _Array:
    """An array whose numbers come in a later instruction, or an object array's one object."""

    numbers: np.ndarray | None = None
    thing: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class _Record:
    """An object of another library: its name and the values it was saved with."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)


def read_pickle(content: bytes, subject: str) -> Any:
    """Read a pickle of numbers, of Python 2 or 3.

    Args:
        content: The file's bytes.
        subject: What to call the file in an error.

    Returns:
        Dicts, lists, tuples, sets, strings, numbers and NumPy arrays; sparse matrices as whole arrays, chumpy's
        arrays as the array they hold, and `Unread` for the rest of chumpy and for tensors of PyTorch.

    Raises:
        InputError: It names anything else, is damaged, or is too large.
    """
    return _guarded(lambda: _Machine(content).result(), content, subject)


def read_npy(content: bytes, subject: str) -> Any:
    """Read a .npy file: its array or, of an object array, the one object it holds, as `read_pickle` does.

    Raises:
        InputError: As for `read_pickle`.
    """
    return _guarded(lambda: _npy(content), content, subject)


def _guarded(read: Callable[[], Any], content: bytes, subject: str) -> Any:
    try:
        if len(content) > LARGEST_BYTES:
            raise _Refused(f"is larger than {LARGEST_BYTES >> 20} MB")
        return read()
    except _Refused as error:
        remedy = "Do not use it; download the file again from the site of its authors."
        raise InputError(subject, f"it {error}", remedy) from None
    except (*_DAMAGE, MemoryError) as error:
        raise InputError(
            subject, "it is damaged or no file of numbers", "Download it again, whole."
        ) from error


def _npy(content: bytes) -> Any:
    stream = io.BytesIO(content)
    header_readers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    shape, fortran, dtype = header_readers[npy_format.read_magic(stream)](stream)
    if dtype.hasobject:
        return _Machine(content[stream.tell() :]).result(one_object=True)
    return _numbers(content[stream.tell() :], dtype, shape, "F" if fortran else "C")


class _Machine:
    """Runs one pickle; each method is an instruction or a group of them."""

    def __init__(self, content: bytes) -> None:
        self.stream = io.BytesIO(content)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}
        self.bytes_left = LARGEST_BYTES
        self.done: dict[int, Any] = {}  # what `plain` has made of each object

    def result(self, one_object: bool = False) -> Any:
        """Run, and turn what is left into plain values; of an object array into those of its object."""
        value = self.run()
        if one_object:
            if type(value) is not _Array or not value.thing:
                _refuse("is an array of objects, and not of exactly one")
            value = value.thing[0]
        return self.plain(value)

    def run(self) -> Any:
        for _ in range(MOST_OPERATIONS):
            operation = _OPERATIONS[self.stream.read(1)]
            if operation.name == "STOP":
                return self.stack.pop()
            step = _STEPS.get(operation.name)
            if step is None:
                _refuse(f"uses pickle's instruction {operation.name}")
            reader = _READERS.get(operation.name, operation.arg and operation.arg.reader)
            step(self, reader(self.stream) if reader else None)
        _refuse(f"has more than {MOST_OPERATIONS} instructions")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def drop_to_mark(self) -> None:
        self.stack = self.below.pop()

    def last(self, count: int) -> list[Any]:
        return [self.stack.pop() for _ in range(count)][::-1]

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.drop_to_mark()

    def extend(self, items: list[Any]) -> None:
        """Put items into the container on top of the stack."""
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is dict:
            target.update(_pairs(items))
        elif type(target) is set:
            target.update(map(_key, items))
        else:
            raise TypeError

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if module.partition(".")[0] == "chumpy":
            self.push(_Global(full, lambda _machine, _values: _Record("chumpy")))
        elif full in _GLOBALS:
            self.push(_Global(full, _GLOBALS[full]))
        else:
            shown = "".join(c if c.isprintable() else "?" for c in full)[:80]
            _refuse(f"wants to run {shown}, and a file of numbers runs nothing")

    def name_from_stack(self) -> None:
        module, name = self.last(2)
        if type(name) is not str or type(module) is not str:
            raise TypeError
        self.name(module, name)

    def call(self) -> None:
        function, values = self.last(2)
        if type(function) is not _Global or type(values) is not tuple or function.make is None:
            raise TypeError
        self.push(function.make(self, values))

    def new_object(self) -> None:
        function, values = self.last(2)
        if type(values) is not tuple:
            raise TypeError
        self.push(_make_record(self, (function, *values)))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _Dtype and type(state) is tuple:
            if any(part is not None for part in state[2:5]):
                _refuse("holds arrays of records")
            target.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]
        elif type(target) is _Array and type(state) is tuple:
            _, shape, dtype, fortran, raw = state
            self.fill(target, raw, dtype, shape, "F" if fortran else "C")
        elif type(target) is _Record and type(state) is dict:
            target.state = state
        else:
            raise TypeError

    def fill(self, array: _Array, raw: Any, dtype: Any, shape: Any, order: str) -> None:
        if type(dtype) is not _Dtype:
            raise TypeError
        if dtype.code == "O8":
            if type(raw) is not list or len(raw) != 1 or shape not in ((), (1,)):
                _refuse("holds an array of objects")
            array.thing = raw
            return
        raw = raw.encode("latin-1") if type(raw) is str else raw
        if type(raw) not in (bytes, bytearray):
            raise TypeError
        self.spend(len(raw))
        array.numbers = _numbers(raw, dtype.numpy(), shape, order)

    def spend(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            _refuse(f"holds more than {LARGEST_BYTES >> 20} MB of numbers")

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Replace the stand-ins in a value; what it holds several times is the same object again."""
        if depth > DEEPEST:
            _refuse("is nested too deeply")
        if id(value) in self.done:
            return self.done[id(value)]
        if type(value) is dict:
            made: Any = {key: self.plain(part, depth + 1) for key, part in value.items()}
        elif type(value) is list:
            made = [self.plain(part, depth + 1) for part in value]
        elif type(value) is tuple:
            made = tuple(self.plain(part, depth + 1) for part in value)
        elif type(value) is _Array:
            if value.thing:
                _refuse("holds an array of objects")
            made = value.numbers
        elif type(value) is _Record:
            made = self.plain_record(value, depth)
        elif type(value) in (_Global, _Dtype):
            made = Unread("a type")
        else:
            made = value
        self.done[id(value)] = made
        return made

    def plain_record(self, record: _Record, depth: int) -> Any:
        if record.name in ("csc", "csr"):
            return self.whole_matrix(self.plain(record.state, depth + 1), record.name)
        numbers = self.plain(record.state.get("x"), depth + 1) if record.name == "chumpy" else None
        return numbers if isinstance(numbers, np.ndarray) else Unread(record.name)

    def whole_matrix(self, state: dict[str, Any], form: str) -> np.ndarray:
        """What scipy's `toarray` gives, with the checks it leaves out."""
        rows, columns = state["_shape"] if "_shape" in state else state["shape"]
        values, minor, ends = (state[name] for name in ("data", "indices", "indptr"))
        if any(type(part) is not np.ndarray or part.ndim != 1 for part in (values, minor, ends)):
            raise TypeError
        if any(type(size) is not int or size < 0 for size in (rows, columns)) or minor.dtype.kind not in "iu":
            raise TypeError
        majors, minors = (columns, rows) if form == "csc" else (rows, columns)
        counts = np.diff(ends.astype(np.int64))
        if len(ends) != majors + 1 or ends[0] != 0 or (counts < 0).any() or ends[-1] != len(values):
            raise ValueError
        if len(minor) != len(values) or ((minor < 0) | (minor >= minors)).any():
            raise ValueError
        self.spend(rows * columns * values.itemsize)
        whole = np.zeros((majors, minors), values.dtype)
        np.add.at(whole, (np.repeat(np.arange(majors), counts), minor), values)
        return whole.T if form == "csc" else whole


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


def _key(value: Any) -> Any:
    """A dict's key or a set's item; hashing nested ones could take for ever."""
    if type(value) not in (str, bytes, int, float, bool, type(None)):
        raise TypeError
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """A dict out of keys and values in turn."""
    return dict(zip(map(_key, items[::2]), items[1::2], strict=True))


_NO_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\(?![\\'\"nrt]|x[0-9a-fA-F]{2})")
"""An escape that Python 2's repr does not write."""


def _read_string(stream: io.BytesIO) -> str:
    """Python 2's text form of a string, which may hold any byte."""
    line = stream.readline()
    if len(line) < 3 or line[:1] not in (b"'", b'"') or line[-2:] != line[:1] + b"\n":
        raise ValueError
    if _NO_ESCAPE.search(line, 1, len(line) - 2):
        raise ValueError
    text, _ = codecs.escape_decode(line[1:-2])  # type: ignore[attr-defined]
    return text.decode("latin-1")


def _read_names(stream: io.BytesIO) -> tuple[str, str]:
    module, name = stream.readline(), stream.readline()
    if not module.endswith(b"\n") or not name.endswith(b"\n"):
        raise ValueError
    return module[:-1].decode(), name[:-1].decode()


_READERS: dict[str, Callable[[io.BytesIO], Any]] = {"STRING": _read_string, "GLOBAL": _read_names}
"""For what pickletools would read as ASCII with escapes."""


def _numbers(raw: bytes | bytearray, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    if type(shape) is not tuple or len(shape) > 8:
        raise TypeError
    if any(type(size) is not int or not 0 <= size <= LARGEST_BYTES for size in shape):
        raise ValueError
    if dtype.kind not in "fiub" or len(raw) != math.prod(shape) * dtype.itemsize:
        raise ValueError
    flat = np.frombuffer(raw, dtype) if raw else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _make_dtype(_: _Machine, values: tuple[Any, ...]) -> _Dtype:
    code = values[0]
    if type(code) is not str or not re.fullmatch(r"[iu][1248]|f[248]|b1|O[48]?", code):
        _refuse("holds arrays of something else than numbers")
    return _Dtype("O8" if code[0] == "O" else code)


def _make_array(_: _Machine, values: tuple[Any, ...]) -> _Array:
    if type(values[0]) is not _Global or values[0].name != "numpy.ndarray":
        raise TypeError
    return _Array()


def _make_number(machine: _Machine, values: tuple[Any, ...]) -> Any:
    dtype, raw = values
    array = _Array()
    machine.fill(array, raw, dtype, (), "C")
    if array.numbers is None:
        raise TypeError
    return array.numbers.item()


def _make_from_buffer(machine: _Machine, values: tuple[Any, ...]) -> _Array:
    raw, dtype, shape, order, *axes = values
    array = _Array()
    machine.fill(array, raw, dtype, shape, order)
    if order == "K" and array.numbers is not None:
        array.numbers = array.numbers.transpose(*axes)
    return array


def _make_bytes(machine: _Machine, values: tuple[Any, ...]) -> bytes:
    text, *encoding = values or (b"",)
    if type(text) is str and encoding in (["latin1"], ["latin-1"]):
        machine.spend(len(text))
        return text.encode("latin-1")
    if type(text) is not bytes or encoding:
        raise TypeError
    return text


def _make_set(machine: _Machine, values: tuple[Any, ...]) -> set:
    return set(map(_key, _items(machine, values)))


def _make_dict(machine: _Machine, values: tuple[Any, ...]) -> dict:
    items = _items(machine, values)
    if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in items):
        raise TypeError
    return {_key(key): value for key, value in items}


def _items(machine: _Machine, values: tuple[Any, ...]) -> list[Any]:
    (items,) = values or ([],)
    if type(items) is not list:
        raise TypeError
    machine.spend(100 * len(items))  # about what a set or a dict takes for each
    return items


def _make_record(machine: _Machine, values: tuple[Any, ...]) -> _Record:
    """A new object of a class in the file; only records of other libraries are made so."""
    made = values[0].make(machine, ()) if type(values[0]) is _Global and values[0].make else None
    if type(made) is not _Record:
        raise TypeError
    return made


def _record_maker(name: str) -> Callable[[_Machine, tuple[Any, ...]], _Record]:
    return lambda _machine, _values: _Record(name)


_BUILTINS, _COPYREG = ("builtins", "__builtin__"), ("copyreg", "copy_reg")

_TENSOR_PARTS = ("_utils._rebuild_tensor", "_utils._rebuild_tensor_v2", "storage._load_from_bytes")
"""What a tensor in a pickle names (DECA's landmark embedding holds two); its bytes are a pickle again, left alone."""

_SPARSE = {
    f"scipy.sparse.{module}.{form}_{kind}": form
    for form in ("csc", "csr")
    for module in (form, f"_{form}")
    for kind in ("matrix", "array")
}

_GLOBALS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any] | None] = {
    "numpy.ndarray": None,
    "numpy.dtype": _make_dtype,
    "_codecs.encode": _make_bytes,
    "collections.OrderedDict": _make_dict,
    **{f"numpy.{core}.multiarray._reconstruct": _make_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _make_number for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _make_from_buffer for core in ("core", "_core")},
    **{f"{module}.{name}": _make_set for module in _BUILTINS for name in ("set", "frozenset")},
    **{f"{module}.{name}": _make_bytes for module in _BUILTINS for name in ("bytes", "bytearray")},
    **{f"{module}.object": None for module in _BUILTINS},
    **{f"{module}.{name}": _make_record for module in _COPYREG for name in ("_reconstructor", "__newobj__")},
    **{name: _record_maker(form) for name, form in _SPARSE.items()},
    **{f"torch.{name}": _record_maker("torch") for name in _TENSOR_PARTS},
}
"""Every name a file may use, apart from chumpy's; None: it is only passed on."""

_OPERATIONS = {operation.code.encode("latin-1"): operation for operation in pickletools.opcodes}

_VALUES = """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"""

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **{name: _Machine.push for name in _VALUES.split()},
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "DICT": lambda machine, _: machine.push(_pairs(machine.since_mark())),
    "FROZENSET": lambda machine, _: machine.push(set(map(_key, machine.since_mark()))),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.extend(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.extend(machine.since_mark()),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.drop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "GET": lambda machine, index: machine.push(machine.memo[index]),
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "GLOBAL": lambda machine, names: machine.name(*names),
    "STACK_GLOBAL": lambda machine, _: machine.name_from_stack(),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.new_object(),
    "BUILD": lambda machine, _: machine.build(),
}
"""Every instruction a file may use; not those that leave the file or make objects in older ways."""
