"""Pickle machine: runs a pickle as the program it is, and looks no name up that it asks for.

A pickle is a program for a small stack machine, and may call whatever it names. Here the standard library's machine
runs it, but a name stands for a note of what was asked for, and calling it only writes one. What the notes mean is
worked out afterwards, in `sdtalk.weights.unpickle`.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

MOST_OPERATIONS = 1_000_000
"""No file may have more instructions (FLAME's files have some thousands)."""


class Refused(Exception):
    """The file asks for something it may not have; the text completes "it ..."."""


class Note:
    """What a file asks for: a kind of object, the values to make it from once it is called, its state after that.

    It has no place for other attributes, so no file can give it any.
    """

    __slots__ = ("kind", "values", "state")

    def __init__(self, kind: str, values: tuple[Any, ...] | None = None) -> None:
        self.kind, self.values = kind, values
        self.state: Any = None

    def __call__(self, *values: Any) -> Any:
        """A note of the call; only an empty dict is made at once, since instructions fill it."""
        if self.kind == "new":  # an object of the class in values[0]
            return values[0]()
        return {} if self.kind == "dict" and not values else Note(self.kind, values)


_Unpickler: Any = pickle._Unpickler  # the one in Python, whose instructions can be replaced one by one


class _Machine(_Unpickler):
    """The standard library's machine; the table of its instructions is below."""

    operations = 0

    def find_class(self, module: str, name: str) -> Note:
        full = f"{module}.{name}"
        kind = _KINDS.get(full.replace("._c", ".c"))  # numpy._core was numpy.core, scipy.sparse._csc was .csc
        if kind is None and module.partition(".")[0] != "chumpy":
            shown = "".join(c if c.isprintable() else "?" for c in full)[:80]
            raise Refused(f"wants to run {shown}, and a file of numbers runs nothing")
        return Note(kind or "chumpy")

    def build(self) -> None:
        """Give a note its state; the library would set attributes of anything."""
        state, note = self.stack.pop(), self.stack[-1]
        if type(note) is not Note or note.values is None:
            raise TypeError
        note.state = state

    def bytearray8(self) -> None:
        """The library takes the memory that the file asks for before it looks how much there is."""
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))


def run_pickle(content: bytes) -> Any:
    """What a pickle leaves on the stack: plain values and notes.

    Raises:
        Refused: It names what it may not, or has too many instructions.
        Exception: It is damaged; what the library raises then is not promised.
    """
    if not content.endswith(pickle.STOP):  # first, or half a name at the end would be taken for another name
        raise EOFError
    return _Machine(io.BytesIO(content), encoding="latin-1").load()


# NEWOBJ asks for an object as REDUCE does, from a class and values, and gets the same note.
_OWN = {"NEWOBJ": _Unpickler.load_reduce, "BUILD": _Machine.build, "BYTEARRAY8": _Machine.bytearray8}
_FORBIDDEN = "PERSID BINPERSID INST OBJ EXT1 EXT2 EXT4 NEWOBJ_EX NEXT_BUFFER READONLY_BUFFER".split()
_PAIRS, _ALL = slice(None, None, 2), slice(None)
_KEYS = {"DICT": _PAIRS, "SETITEMS": _PAIRS, "SETITEM": slice(-2, -1), "ADDITEMS": _ALL, "FROZENSET": _ALL}
"""Where on the stack the keys are that an instruction hashes."""


def check_keys(keys: list[Any]) -> None:
    """Hashing nested tuples could take for ever, or more of the process's stack than there is."""
    if any(type(key) not in (str, bytes, int, float, bool, type(None)) for key in keys):
        raise TypeError


def _limited(operation: pickletools.OpcodeInfo) -> Callable[[_Machine], None]:
    """An instruction that does what the library's does, within limits."""
    step = _OWN.get(operation.name, _Unpickler.dispatch[ord(operation.code)])

    def run(machine: _Machine) -> None:
        machine.operations += 1
        if machine.operations > MOST_OPERATIONS:
            raise Refused(f"has more than {MOST_OPERATIONS} instructions")
        if operation.name in _FORBIDDEN:
            raise Refused(f"uses pickle's instruction {operation.name}")
        if operation.name in _KEYS:
            check_keys(machine.stack[_KEYS[operation.name]])
        step(machine)

    return run


_Machine.dispatch = {ord(o.code): _limited(o) for o in pickletools.opcodes if o.proto <= 5}


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
