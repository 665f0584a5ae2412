"""Test model: a made-up FLAME of the real one's size (the licensed one may not be shipped), by the fixtures' rule.

Also in the forms in which FLAME's and its users' sites give the real one: pickles of Python 2 with chumpy's arrays and
scipy's sparse matrices (2020), pickles of protocol 5 (2023 Open), archives, arrays of one object, static embeddings.
"""

import io
import pickle
import re
import sys
import types
import zipfile
import zlib
from functools import cache
from typing import Any

import numpy as np
import parity_rule
import scipy.sparse
import torch

from sdtalk.flame.layer import COMPLETION_MASKS, FlameModel

VERTICES, TRIANGLES = 5023, 9976


def _rows_sum_to_1(values: np.ndarray) -> np.ndarray:
    return values / values.sum(-1, keepdims=True)


def _integers(name: str, high: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(name.encode())).integers(0, high, shape)


@cache
def arrays() -> dict[str, np.ndarray]:
    """The arrays that reference fixture l was computed with, by the names that FLAME's files use."""
    return {
        "v_template": parity_rule.normal("flame/v_template", (VERTICES, 3), 0.08),
        "shapedirs": parity_rule.normal("flame/shapedirs", (VERTICES, 3, 400), 0.001),
        "posedirs": parity_rule.normal("flame/posedirs", (VERTICES, 3, 36), 0.002),
        "J_regressor": _rows_sum_to_1(parity_rule.uniform("flame/J", (5, VERTICES))),
        "weights": _rows_sum_to_1(parity_rule.uniform("flame/weights", (VERTICES, 5)) ** 4),
        "f": _integers("flame/f", VERTICES, (TRIANGLES, 3)),
        "full_lmk_faces_idx": _integers("flame/lmk_faces", TRIANGLES, (1, 70)),
        "full_lmk_bary_coords": _rows_sum_to_1(parity_rule.uniform("flame/bary", (1, 70, 3), 0.1, 1)),
    }


@cache
def made_up_flame() -> FlameModel:
    """The whole made-up model: 300 + 100 coefficients, 70 landmarks, 1,920 completion vertices."""
    values = {name: torch.from_numpy(array) for name, array in arrays().items()}
    masks = parity_rule.fake_flame_masks()
    return FlameModel(
        template=values["v_template"],
        shape_basis=values["shapedirs"][..., :300].contiguous(),
        expression_basis=values["shapedirs"][..., 300:].contiguous(),
        pose_basis=values["posedirs"],
        joint_regressor=values["J_regressor"],
        skinning_weights=values["weights"],
        triangles=values["f"],
        landmark_triangles=values["full_lmk_faces_idx"][0],
        landmark_weights=values["full_lmk_bary_coords"][0],
        landmark_numbers=torch.arange(70),
        completion_rows=torch.cat([torch.from_numpy(masks[name]) for name in COMPLETION_MASKS]),
    )


def site_model() -> dict[str, Any]:
    """What the model's pickle holds."""
    names = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    parents = np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32)
    rest = {
        "f": arrays()["f"].astype(np.uint32),
        "kintree_table": parents,
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }
    return {name: arrays()[name] for name in names} | rest


def site_masks() -> dict[str, Any]:
    return parity_rule.fake_flame_masks() | {"neck": np.arange(40), "scalp": np.arange(40, 90)}


def site_landmarks(count: int = 70) -> dict[str, Any]:
    """What DECA's landmark embedding holds; the contour that depends on the pose is made of PyTorch's tensors."""
    return {
        "full_lmk_faces_idx": arrays()["full_lmk_faces_idx"][:, :count],
        "full_lmk_bary_coords": arrays()["full_lmk_bary_coords"][:, :count],
        "static_lmk_faces_idx": arrays()["full_lmk_faces_idx"][0, 17:68],
        "dynamic_lmk_faces_idx": torch.zeros(79, 17, dtype=torch.int64),
        "dynamic_lmk_bary_coords": torch.zeros(79, 17, 3),
    }


def static_landmarks() -> dict[str, Any]:
    """What RingNet's static embedding holds: all but the contour."""
    return {
        "lmk_face_idx": arrays()["full_lmk_faces_idx"][0, 17:68].astype(np.uint32),
        "lmk_b_coords": arrays()["full_lmk_bary_coords"][0, 17:68].astype(np.float64),
    }


def mesh_landmarks(count: int = 105) -> dict[str, np.ndarray]:
    """The embedding that FLAME's own site gives: points of MediaPipe's face mesh; as many as there."""
    whole = arrays()
    rows = np.arange(count) % 68
    return {
        "lmk_face_idx": whole["full_lmk_faces_idx"][0, rows].astype(np.uint32),
        "lmk_b_coords": whole["full_lmk_bary_coords"][0, rows].astype(np.float64),
        "landmark_indices": (np.arange(count) * 4).astype(np.uint32),
    }


class Ch:
    """Pickles as chumpy's array does: the number array `x` among the notes of a computation."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self._itr, self._status = x, None, "new"
        self._dirty_vars = {"x"}
        self._depends_on_deps = {"r": {"deps": set(), "value": None, "out_of_date": True}}


Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"


class _Python2Pickler(pickle._Pickler):
    """Writes all strings as Python 2 did."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, value: str | bytes) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        if self.proto:
            self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        else:
            self.write(pickle.STRING + repr(raw)[1:].encode() + b"\n")
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def python2_pickle(value: Any, protocol: int = 2) -> bytes:
    """A pickle as Python 2 with the numpy, scipy and chumpy of its time wrote it."""
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    module.Ch = Ch
    stream = io.BytesIO()
    sys.modules |= {"chumpy": package, "chumpy.ch": module}
    try:
        _Python2Pickler(stream, protocol).dump(value)
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]
    old = stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
    return re.sub(rb"cscipy\.sparse\._(cs[rc])\n", rb"cscipy.sparse.\1\n", old)


def flame_2020() -> bytes:
    """generic_model.pkl: chumpy's arrays, a sparse regressor, Python 2."""
    model = site_model()
    model["shapedirs"] = Ch(model["shapedirs"].astype(np.float64))
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"].astype(np.float64))
    return python2_pickle(model)


def flame_2023_open() -> bytes:
    """flame2023_Open.pkl: protocol 5 and a sparse regressor."""
    model = site_model() | {"supr_expression_metadata": {"n_expr": 100, "expr_components": "last_100"}}
    model["J_regressor"] = scipy.sparse.csc_matrix(model["J_regressor"])
    return pickle.dumps(model, protocol=5)


def npy_of_object(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value, dtype=object), allow_pickle=True)
    return stream.getvalue()


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in files.items():
            target.writestr(name, content)
    return stream.getvalue()
