"""FLAME checks: whether a model's numbers can be FLAME's, wherever they come from."""

import torch
from torch import Tensor

from sdtalk.errors import InputError
from sdtalk.flame.fit import LEAST_LANDMARKS
from sdtalk.flame.layer import PARENTS, FlameModel
from sdtalk.tracking.head_track import COMPLETION_POINTS, MESH_POINTS
from sdtalk.tracking.landmarks68 import FIRST_MESH_LANDMARK

VERTICES, TRIANGLES, SHAPES, EXPRESSIONS = 5023, 9976, 300, 100

LANDMARK_NUMBERS = {51: range(17, 68), 68: range(68), 70: range(70)}
"""Which of the 68 landmarks and two pupils an embedding of so many holds; 51: all but the contour."""

_LARGEST_VALUES = {
    "template": 1.0,
    "shape_basis": 1.0,
    "expression_basis": 1.0,
    "pose_basis": 5.0,
    "joint_regressor": 100.0,
    "skinning_weights": 1.01,
    "landmark_weights": 2.0,
}
"""Metres, or shares: larger ones are not FLAME's, or in another unit."""


def checked_flame(tensors: dict[str, Tensor], subject: str, remedy: str) -> FlameModel:
    """The model, if its numbers can be FLAME's.

    Raises:
        InputError: A tensor is missing or foreign, or has the wrong shape, type or values.
    """
    if problem := _shape_problem(tensors) or _value_problem(tensors):
        raise InputError(subject, problem, remedy)
    return FlameModel(**tensors)


def _shape_problem(tensors: dict[str, Tensor]) -> str:
    count = len(tensors.get("landmark_numbers", ()))
    shapes: dict[str, tuple[int, ...]] = {
        "template": (VERTICES, 3),
        "shape_basis": (VERTICES, 3, SHAPES),
        "expression_basis": (VERTICES, 3, EXPRESSIONS),
        "pose_basis": (VERTICES, 3, 9 * (len(PARENTS) - 1)),
        "joint_regressor": (len(PARENTS), VERTICES),
        "skinning_weights": (VERTICES, len(PARENTS)),
        "triangles": (TRIANGLES, 3),
        "landmark_triangles": (count,),
        "landmark_weights": (count, 3),
        "landmark_numbers": (count,),
        "completion_rows": (COMPLETION_POINTS,),
    }
    if tensors.keys() != shapes.keys() or count < LEAST_LANDMARKS:
        return "it does not hold the parts of a FLAME model"
    for name, shape in shapes.items():
        kind = torch.float32 if name in _LARGEST_VALUES else torch.int64
        if tuple(tensors[name].shape) != shape or tensors[name].dtype != kind:
            return (
                f"its {name} is {tensors[name].dtype} {tuple(tensors[name].shape)} instead of {kind} {shape}"
            )
    return ""


def _value_problem(tensors: dict[str, Tensor]) -> str:
    for name, largest in _LARGEST_VALUES.items():
        if not torch.isfinite(tensors[name]).all():
            return f"its {name} holds values that are not numbers"
        if tensors[name].abs().max() > largest:
            return f"its {name} holds {tensors[name].abs().max():.3g}, over {largest:g}: not in metres, or not FLAME's"
    limits = {
        "triangles": VERTICES,
        "landmark_triangles": TRIANGLES,
        "landmark_numbers": FIRST_MESH_LANDMARK + MESH_POINTS,
        "completion_rows": VERTICES,
    }
    for name, limit in limits.items():
        if tensors[name].min() < 0 or tensors[name].max() >= limit:
            return f"its {name} are no numbers from 0 to {limit - 1}"
    for name in ("skinning_weights", "landmark_weights"):
        if (tensors[name].sum(1) - 1).abs().max() > 1e-2:
            return f"its {name} do not add up to 1"
    low, high = tensors["template"].amin(0), tensors["template"].amax(0)
    joints = tensors["joint_regressor"] @ tensors["template"]
    if (high - low).max() < 0.1:
        return "its head is smaller than 10 cm, so it is not in metres"
    if (joints < low - 0.1).any() or (joints > high + 0.1).any():
        return "its joints lie outside its head"
    return ""
