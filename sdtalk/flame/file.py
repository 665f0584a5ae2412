"""FLAME files: from the publisher's files to the asset kept here, checked, with a note of its licence."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.flame.archive import ON_MESH, Piece, pieces_in
from sdtalk.flame.check import (
    EXPRESSIONS,
    LANDMARK_NUMBERS,
    SHAPES,
    TRIANGLES,
    VERTICES,
    checked_flame,
)
from sdtalk.flame.layer import COMPLETION_MASKS, PARENTS, FlameModel
from sdtalk.tracking.head_track import COMPLETION_POINTS, MESH_POINTS
from sdtalk.tracking.landmarks68 import FIRST_MESH_LANDMARK
from sdtalk.weights.assets import data_folder, optional_asset, replaced_asset

SITE = "https://flame.is.tue.mpg.de"
FILE, NOTE = "flame.safetensors", "LICENCE-NOTE.txt"

_MISSING = {
    "model": (
        "the head model",
        f"Register at {SITE} (free) and download FLAME 2023 Open (flame2023_Open.pkl, licence CC-BY-4.0) or "
        "FLAME 2020 (generic_model.pkl, Max Planck licence for non-commercial research).",
    ),
    "masks": (
        "the vertex masks",
        f"Register at {SITE} (free) and download 'FLAME Vertex Masks' (FLAME_masks.pkl; see the "
        "site for its licence).",
    ),
    "landmarks": (
        "the landmark embedding",
        f"Download 'FLAME Mediapipe Landmark Embedding' from {SITE} (mediapipe_landmark_embedding.npz); or take "
        "landmark_embedding.npy from the folder data of https://github.com/yfeng95/DECA. See their licences.",
    ),
}
"""What a FLAME asset is made of, and where it is found."""


def read_flame(files: Sequence[Path]) -> FlameModel:
    """Read the head model, the vertex masks and the landmark embedding, given in any order.

    Landmarks may be given in two ways, the 68 usual ones and points of the MediaPipe mesh; both then count.

    Args:
        files: As downloaded: pickles, .npy and .npz files, or archives with them; names do not matter.

    Returns:
        The model with 300 coefficients of shape and 100 of expression, float32 on the CPU.

    Raises:
        InputError: A file cannot be read, is none of these or names code to run; one of the three is missing or
            there twice; or numbers do not fit FLAME.
    """
    pieces: dict[str, Piece] = {}
    for piece in (piece for path in files for piece in pieces_in(path)):
        if piece.kind in pieces:
            what = _MISSING[piece.kind.removeprefix(ON_MESH)][0]
            problem = f"it holds {what}, as {pieces[piece.kind].source} does"
            raise InputError(piece.source, problem, "Give only one of them.")
        pieces[piece.kind] = piece
    embeddings = [pieces[kind] for kind in ("landmarks", f"{ON_MESH}landmarks") if kind in pieces]
    for kind, (what, remedy) in _MISSING.items():
        if kind not in pieces and not (kind == "landmarks" and embeddings):
            raise InputError("FLAME", f"the files lack {what}", remedy)
    tensors = _model(pieces["model"])
    landmarks = [_landmarks(piece) for piece in embeddings]
    tensors |= {name: torch.cat([rows[name] for rows in landmarks]) for name in landmarks[0]}
    tensors["completion_rows"] = _completion_rows(pieces["masks"])
    sources = " with ".join(piece.source for piece in (pieces["model"], *embeddings))
    return checked_flame(tensors, sources, "Download them again.")


def add_flame(files: Sequence[Path]) -> Path:
    """Read FLAME's files and store the model in the user's data folder, in the place of an older one.

    Args:
        files: As for `read_flame`.

    Returns:
        The stored file; beside it a note on the licence.

    Raises:
        InputError: As `read_flame`, or the data folder cannot be written; an older model is still there.
    """
    model = read_flame(files)
    sources = [{"file": path.name, "sha256": _sha256(path)} for path in files]
    note = _licence_note(sources)
    with replaced_asset("flame") as draft:
        model.save(draft / FILE, {"sources": json.dumps(sources), "licence": note})
        (draft / NOTE).write_text(note, encoding="utf-8")
    return data_folder() / "flame" / FILE


def load_flame() -> FlameModel:
    """The model that was added to this machine, on the CPU.

    Raises:
        InputError: None was added, or it is damaged.
    """
    path = optional_asset("flame")
    remedy = "Add it again: `sdtalk assets add flame FILE...`."
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), "it is damaged", remedy) from error
    return checked_flame(tensors, str(path), remedy)


def _array(piece: Piece, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """One of a piece's arrays.

    Raises:
        InputError: It is missing, no array of numbers, or of another shape.
    """
    value = piece.values.get(name)
    remedy = "Download it again."
    if not isinstance(value, np.ndarray):
        what = "is missing" if value is None else "is no array of numbers"
        raise InputError(piece.source, f"its {name} {what}", remedy)
    if shape is not None and value.shape != shape:
        raise InputError(piece.source, f"its {name} has the shape {value.shape} instead of {shape}", remedy)
    return value


def _rows(piece: Piece, name: str, shape: tuple[int, ...] | None, below: int) -> Tensor:
    """An array of row numbers, each in 0 ... below - 1."""
    value = _array(piece, name, shape)
    if value.dtype.kind not in "iu" or (value.size and not 0 <= value.min() <= value.max() < below):
        raise InputError(
            piece.source, f"its {name} are no numbers from 0 to {below - 1}", "Download it again."
        )
    return torch.from_numpy(value.astype(np.int64))


def _model(piece: Piece) -> dict[str, Tensor]:
    shapes = {
        "v_template": (VERTICES, 3),
        "shapedirs": (VERTICES, 3, SHAPES + EXPRESSIONS),
        "posedirs": (VERTICES, 3, 9 * (len(PARENTS) - 1)),
        "J_regressor": (len(PARENTS), VERTICES),
        "weights": (VERTICES, len(PARENTS)),
    }
    values = {
        name: torch.from_numpy(_array(piece, name, shape).astype(np.float32))
        for name, shape in shapes.items()
    }
    parents = _array(piece, "kintree_table", (2, len(PARENTS)))[0, 1:]
    if parents.tolist() != list(PARENTS[1:]):
        raise InputError(piece.source, "its joints do not hang together as FLAME's do", "Give FLAME's model.")
    return {
        "template": values["v_template"],
        "shape_basis": values["shapedirs"][..., :SHAPES].contiguous(),
        "expression_basis": values["shapedirs"][..., SHAPES:].contiguous(),
        "pose_basis": values["posedirs"],
        "joint_regressor": values["J_regressor"],
        "skinning_weights": values["weights"],
        "triangles": _rows(piece, "f", (TRIANGLES, 3), VERTICES),
    }


def _landmarks(piece: Piece) -> dict[str, Tensor]:
    full = "full_lmk_faces_idx" in piece.values
    names = ("full_lmk_faces_idx", "full_lmk_bary_coords") if full else ("lmk_face_idx", "lmk_b_coords")
    triangles = _rows(piece, names[0], None, TRIANGLES).flatten()
    count = len(triangles)
    if piece.kind.startswith(ON_MESH):
        numbers = FIRST_MESH_LANDMARK + _rows(piece, "landmark_indices", (count,), MESH_POINTS)
    elif count in LANDMARK_NUMBERS:
        numbers = torch.tensor(LANDMARK_NUMBERS[count])
    else:
        problem = f"it holds {count} landmarks, not 51, 68 or 70 of the usual ones"
        raise InputError(piece.source, problem, _MISSING["landmarks"][1])
    weights = _array(piece, names[1])
    if weights.size != 3 * count:
        raise InputError(piece.source, f"its {names[1]} has the shape {weights.shape}", "Download it again.")
    return {
        "landmark_triangles": triangles,
        "landmark_weights": torch.from_numpy(weights.astype(np.float32)).reshape(count, 3),
        "landmark_numbers": numbers,
    }


def _completion_rows(piece: Piece) -> Tensor:
    parts = [_rows(piece, name, None, VERTICES) for name in COMPLETION_MASKS]
    counts = [len(part.flatten()) for part in parts]
    if sum(counts) != COMPLETION_POINTS:
        listed = ", ".join(f"{name} {count}" for name, count in zip(COMPLETION_MASKS, counts, strict=True))
        problem = f"its masks have {sum(counts)} vertices ({listed}) instead of {COMPLETION_POINTS}"
        raise InputError(piece.source, problem, "Give the masks of FLAME 2020, which FLAME 2023 shares.")
    if any(len(part.unique()) != count for part, count in zip(parts, counts, strict=True)):
        raise InputError(piece.source, "one of its masks names a vertex twice", "Download it again.")
    return torch.cat([part.flatten() for part in parts])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _licence_note(sources: list[dict[str, str]]) -> str:
    listed = "\n".join(f"  {source['file']}  SHA-256 {source['sha256']}" for source in sources)
    return f"""{FILE} holds the FLAME head model in another format. It is not part of SDTalk and not under its licence.

It was made from
{listed}

What may be done with it is said by the licences that were agreed to when these files were downloaded:
FLAME 2020 is under the Max Planck licence for non-commercial research, FLAME 2023 Open under CC-BY-4.0 ({SITE}).
Do not pass it on unless its licence allows it. Source: T. Li, T. Bolkart, M. J. Black, H. Li, J. Romero: Learning a
model of facial shape and expression from 4D scans. ACM Transactions on Graphics 36(6), 2017.
"""
