"""Tests of the safe pickle reader: numbers come back as written, and nothing that a file names is ever run."""

import copyreg
import io
import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from made_up_flame import Ch, npy_of_object, python2_pickle

from sdtalk.errors import InputError
from sdtalk.weights import pickle_machine, unpickle
from sdtalk.weights.unpickle import Unread, read_npy, read_pickle

DRAW = np.random.default_rng(0)
GRID = DRAW.normal(size=(3, 4, 5))
SPARSE = DRAW.normal(size=(4, 6)) * DRAW.integers(0, 2, (4, 6))
VALUES = {
    "float64": GRID,
    "float32": GRID.astype(np.float32),
    "fortran": np.asfortranarray(GRID[0]),
    "transposed": GRID.transpose(1, 2, 0),
    "big-endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "uint32": np.array([0, 2**32 - 1], np.uint32),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3)),
    "scalar array": np.array(2.5),
    "containers": [1, -2.5, None, True, (1, (2, ())), {"a": {"b": []}}, {1, 2}, -(10**30)],
    "strings": ["é", b"\xff\x00", "", b"", "line\n'quote\""],
    "ordered": OrderedDict([("b", 1), ("a", 2)]),
    "csc": scipy.sparse.csc_matrix(SPARSE),
    "csr": scipy.sparse.csr_matrix(SPARSE),
    "csr array": scipy.sparse.csr_array(SPARSE),
}


def same(read: Any, written: Any) -> bool:
    if scipy.sparse.issparse(written):
        written = written.toarray()
    if isinstance(written, np.ndarray):
        return isinstance(read, np.ndarray) and read.dtype == written.dtype and np.array_equal(read, written)
    if isinstance(written, dict):
        return list(read) == list(written) and all(same(read[key], written[key]) for key in written)
    if isinstance(written, list | tuple):
        return type(read) is type(written) and len(read) == len(written) and all(map(same, read, written))
    return type(read) is type(written) and read == written


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", VALUES)
def test_values_come_back(name: str, protocol: int) -> None:
    shared = {"value": VALUES[name], "again": VALUES[name]}
    assert same(read_pickle(pickle.dumps(shared, protocol=protocol), "file"), shared)


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2_come_back(protocol: int) -> None:
    value = {
        "text": "lbs",
        "bytes": b"\xff\n'",
        "grid": GRID,
        "matrix": VALUES["csc"],
        "number": np.float64(1.5),
    }
    read = read_pickle(python2_pickle(value, protocol), "file")
    assert same(read, value | {"bytes": "\xff\n'", "number": 1.5})


@pytest.mark.parametrize("protocol", [0, 2])
def test_of_chumpy_only_its_numbers_are_read(protocol: int) -> None:
    read = read_pickle(python2_pickle({"x": Ch(GRID), "other": Ch("no numbers")}, protocol), "file")
    assert same(read["x"], GRID)
    assert read["other"] == Unread("chumpy")


def test_tensors_are_passed_over() -> None:
    read = read_pickle(pickle.dumps({"tensor": torch.zeros(3), "grid": GRID}, protocol=4), "file")
    assert read["tensor"] == Unread("torch") and same(read["grid"], GRID)


@pytest.mark.parametrize("value", [GRID, GRID.astype(">f4"), np.asfortranarray(GRID[0]), np.arange(4)])
def test_npy_files_come_back(value: np.ndarray) -> None:
    stream = io.BytesIO()
    np.save(stream, value)
    assert same(read_npy(stream.getvalue(), "file"), value)


def test_the_object_of_an_npy_file_comes_back() -> None:
    value = {"grid": GRID, "tensor": torch.zeros(2)}
    assert same(read_npy(npy_of_object(value), "file"), {"grid": GRID, "tensor": Unread("torch")})


class Calls:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *values: Any) -> None:
        self.call = (function, values)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_command_is_refused_by_name_and_not_run(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    attack = pickle.dumps(Calls(os.system, f"touch {marker}"), protocol=protocol)
    for read, content in (
        (read_pickle, attack),
        (read_npy, npy_of_object(Calls(os.system, f"touch {marker}"))),
    ):
        with pytest.raises(
            InputError, match=rf"^its file: it wants to run ({os.name}|nt)\.system, .*Do not use it"
        ):
            read(content, "its file")
    assert not marker.exists()
    pickle.loads(attack)
    assert marker.exists(), "the attack is a real one"


@pytest.mark.parametrize(
    "name",
    """os.system posix.system subprocess.Popen builtins.eval builtins.exec builtins.getattr builtins.setattr
    __builtin__.apply builtins.__import__ builtins.open builtins.type builtins.map pickle.loads _pickle.loads
    numpy.load numpy.fromfile numpy.memmap numpy.save numpy._core.multiarray.fromfile numpy.f2py.diagnose.run
    numpy.testing._private.utils.runstring functools.partial operator.attrgetter types.FunctionType torch.load
    torch.hub.load torch.serialization.load copyreg.__newobj_ex__ copyreg.add_extension scipy.sparse.load_npz
    scipy.sparse._csc.__import__ collections.namedtuple _codecs.lookup codecs.open
    sdtalk.weights.pickle_machine.Note""".split(),
)
def test_every_other_name_is_refused(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    by_line = f"c{module}\n{attribute}\n.".encode()
    by_stack = (
        b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, attribute)) + b"\x93."
    )
    for content in (by_line, by_stack):
        with pytest.raises(InputError, match=f"it wants to run {name}, "):
            read_pickle(content, "file")


DTYPE = b"cnumpy\ndtype\n(S'f8'\ntR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"


@pytest.mark.parametrize(
    "content",
    {
        "another class's object": b"ccopy_reg\n_reconstructor\n(cnumpy\ndtype\nc__builtin__\nobject\nNtR.",
        "a new object of a function": b"ccopy_reg\n_reconstructor\n(tR.",
        "calling a marker": b"c__builtin__\nobject\n(tR.",
        "calling a string": b"S'os'\n(tR.",
        "attributes of a name": b"cnumpy\ndtype\n}S'make'\nI1\nsb.",
        "attributes of a list": b"](S'x'\nI1\ndb.",
        "attributes through slots": b"cchumpy.ch\nCh\n(tR(N(S'x'\nI1\ndtb.",
        "the class of a name": b"cnumpy\ndtype\n(N(S'__class__'\nI1\ndtb.",
        "the values of a name": b"cnumpy\ndtype\n(N(S'values'\n(I1\ntdtb.",
        "an item of a name": b"cnumpy\ndtype\nS'kind'\nS'array'\ns.",
        "an item appended to a name": b"cnumpy\ndtype\nI1\na.",
        "an item added to a name": b"\x80\x04cnumpy\ndtype\n(K\x01\x90.",
        "attributes of a dict": b"ccollections\nOrderedDict\n(tR(S'x'\nI1\ndb.",
        "a new object of a string": b"S'os'\n)\x81.",
        "a new object of a list": b"])\x81.",
        "a call of a call": DTYPE + b")R.",
        "a codec": b"c_codecs\nencode\n(S'6162'\nS'hex'\ntR.",
        "an array of records": DTYPE + b"(I3\nS'<'\nN(S'a'\nt(dNI-1\nI-1\nI0\ntb.",
        "an array of bytes": b"cnumpy\ndtype\n(S'V8'\ntR.",
        "an array of another class": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        "a nested key": b"}((I1\ntI1\ntI2\ns.",
        "a nested key among others": b"}(S'a'\nI1\n(I1\ntI2\nu.",
        "a nested key of a dict at once": b"((I1\ntI1\nd.",
        "a nested item of a set": b"\x80\x04\x8f((I1\nt\x90.",
        "a nested item of a set at once": b"\x80\x04((I1\nt\x91.",
        "a nested item of a set by call": b"c__builtin__\nset\n(((I1\ntltR.",
        "a negative shape": ARRAY + b"(I1\n(I-1\nI-1\nt" + DTYPE + b"I00\nS'12345678'\ntb.",
        "a shape of truths": ARRAY + b"(I1\n(I01\nt" + DTYPE + b"I00\nS'12345678'\ntb.",
        "a shape that is a list": ARRAY + b"(I1\n(I1\nl" + DTYPE + b"I00\nS'12345678'\ntb.",
        "numbers of a list": ARRAY + b"(I1\n(I0\nt" + DTYPE + b"I00\n(ltb.",
        "a dtype that is text": ARRAY + b"(I1\n(I1\ntS'f8'\nI00\nS'12345678'\ntb.",
        "axes that are not there": BUFFER + b"(S'12345678'\n" + DTYPE + b"(I1\ntS'K'\n(I5\nttR.",
        "an array never filled": b"]cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntRb.",
        "a number of an object": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntR(lp0\nI1\natR.",
        "nothing on the stack": b"R.",
        "no mark": b"t.",
        "an unknown instruction": b"\xff.",
        "no end": b"I1\n",
        "nothing": b"",
        "another file": b"\x89PNG\r\n\x1a\n",
        "a web page": b"<!DOCTYPE html><html></html>",
    }.items(),
    ids=lambda item: item[0],
)
def test_what_makes_no_sense_is_refused(content: tuple[str, bytes]) -> None:
    with pytest.raises(InputError, match="^file: it "):
        read_pickle(content[1], "file")


@pytest.mark.parametrize(
    "content, name",
    [
        (b"Pname\n.", "PERSID"),
        (b"I1\nQ.", "BINPERSID"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cnumpy\ndtype\no.", "OBJ"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x00.", "EXT2"),
        (b"\x84\x01\x00\x00\x00.", "EXT4"),
        (b"cnumpy\ndtype\n)}\x92.", "NEWOBJ_EX"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"C\x01a\x98.", "READONLY_BUFFER"),
    ],
)
def test_instructions_that_leave_the_file_are_refused(content: bytes, name: str) -> None:
    with pytest.raises(InputError, match=f"uses pickle's instruction {name}"):
        read_pickle(content, "file")


def test_a_function_that_python_keeps_at_hand_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes extension codes it has met before from a table, without asking which names are allowed."""
    monkeypatch.setitem(copyreg._extension_cache, 1, os.system)
    command = f"(S'touch {tmp_path / 'ran'}'\ntR.".encode()
    for code in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        with pytest.raises(InputError, match="uses pickle's instruction EXT"):
            read_pickle(code + command, "file")
    assert not list(tmp_path.iterdir())


def objects(*items: Any) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


@pytest.mark.parametrize("value", [objects(1), objects(1, 2), objects(objects(1)), np.array(["text"])])
def test_arrays_of_objects_within_others_are_refused(value: np.ndarray) -> None:
    for read, content in ((read_pickle, pickle.dumps([value])), (read_npy, npy_of_object({"inner": value}))):
        with pytest.raises(InputError, match="it holds (an array of objects|arrays of something else)"):
            read(content, "file")
    with pytest.raises(InputError, match="^file: it "):
        read_pickle(pickle.dumps(value), "file")


def test_npy_files_of_records_or_of_several_objects_are_refused() -> None:
    for value in (np.zeros(3, [("a", "f8")]), np.array(["text"]), objects(1, 2)):
        stream = io.BytesIO()
        np.save(stream, value, allow_pickle=True)
        with pytest.raises(InputError, match="^file: it "):
            read_npy(stream.getvalue(), "file")


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(GRID, protocol=2).replace(b"K\x03K\x04K\x05\x87", b"K\x03K\x04K\x06\x87"),
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(L999999999999L\nt"
        + DTYPE
        + b"I00\nS''\ntb.",
        b"\x8e" + (1 << 60).to_bytes(8, "little") + b".",
        b"\x96" + (1 << 60).to_bytes(8, "little") + b".",
        b"I1\nr\xff\xff\xff\xff0j\xff\xff\xff\xffR.",
        b"]" * 40 + b"a" * 39 + b".",
        b"N" + b"\x85" * 200_000 + b".",
        b"}N" + b"\x85" * 200_000 + b"Ns.",
        b"cnumpy\ndtype\n" * 100_000 + b"N" + b"\x85R" * 100_000 + b".",
        b"]q\x00h\x00a.",
        b"L" + b"9" * 100_000 + b"L\n.",
    ],
    ids=[
        "size",
        "declared array",
        "declared bytes",
        "declared bytearray",
        "memo",
        "depth",
        "depth of tuples",
        "depth of a key",
        "depth of calls",
        "cycle",
        "digits",
    ],
)
def test_bombs_are_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="^file: it "):
        read_pickle(content, "file")


WRAPPING = np.array([0, 2**63 - 1, -2, 0, 0, 0, len(scipy.sparse.csc_matrix(SPARSE).data)])
"""Ends whose differences, as 64-bit numbers, are all positive up to the third, and add up as they should."""


def matrix(**changes: Any) -> bytes:
    sparse = scipy.sparse.csc_matrix(SPARSE)
    vars(sparse).update(changes)
    return pickle.dumps(sparse)


@pytest.mark.parametrize(
    "changes",
    [
        {"_shape": (4, 10**12)},
        {"_shape": (4, 6.0)},
        {"_shape": (-4, -6)},
        {"_shape": (3, 6)},
        {"indices": np.full(len(scipy.sparse.csc_matrix(SPARSE).data), -1)},
        {"indices": np.zeros(3)},
        {"indptr": np.array([0, 9, 3, 3, 3, 3, 3])},
        {"indptr": np.zeros((7, 1), int)},
        {"indptr": WRAPPING},
        {"data": "numbers"},
    ],
    ids=str,
)
def test_sparse_matrices_that_lie_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="it is damaged"):
        read_pickle(matrix(**changes), "file")


def test_a_small_file_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "LARGEST_BYTES", 100_000)
    wide = scipy.sparse.csc_matrix((1, 20_000))
    numbers = pickle.dumps(wide)
    assert len(read_pickle(pickle.dumps(np.zeros(10_000)), "file")) == 10_000
    for content in (
        pickle.dumps(scipy.sparse.csr_matrix((20_000, 1))),
        numbers,
        b"(" + b"I1\n" * 40_000 + b"t.",
    ):
        with pytest.raises(InputError, match="it (is larger|holds more) than"):
            read_pickle(content, "file")
    many_sets = b"(" + b"I1\n" * 500 + b"lp0\n0(" + b"c__builtin__\nset\n(g0\ntR" * 3 + b"l."
    with pytest.raises(InputError, match="it holds more than"):
        read_pickle(many_sets, "file")


def test_a_file_has_not_too_many_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_machine, "MOST_OPERATIONS", 100)
    assert read_pickle(b"N0" * 49 + b"N.", "file") is None
    with pytest.raises(InputError, match="more than 100 instructions"):
        read_pickle(b"N0" * 50 + b"N.", "file")


def test_what_is_held_many_times_is_read_once() -> None:
    value: Any = [GRID]
    for _ in range(25):
        value = [value, value]
    read = read_pickle(pickle.dumps(value), "file")
    assert read[0] is read[1] and read[0][0] is read[1][1]


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_damage_is_told_and_nothing_else_happens() -> None:
    """Every cut, and random bytes in random places: a value or one error, never another."""
    draw = random.Random(0)
    for whole in (python2_pickle(VALUES, 0), python2_pickle(VALUES, 2), pickle.dumps(VALUES, protocol=5)):
        for cut in range(0, len(whole) - 1, 37):
            with pytest.raises(InputError):
                read_pickle(whole[:cut], "file")
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                broken[draw.randrange(len(broken))] = draw.randrange(256)
            try:
                read_pickle(bytes(broken), "file")
            except InputError:
                pass


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy's, where a header looks like one of Python 2
def test_damaged_headers_are_told() -> None:
    draw = random.Random(0)
    stream = io.BytesIO()
    np.save(stream, GRID)
    for _ in range(1000):
        broken = bytearray(draw.choice([stream.getvalue(), npy_of_object(GRID)]))
        for _ in range(draw.randint(1, 3)):
            broken[draw.randrange(128)] = draw.choice(b"()[]{}'\"\n,:<>fFV0123456789LTrueO\x00\xff ")
        try:
            read_npy(bytes(broken), "file")
        except InputError:
            pass
