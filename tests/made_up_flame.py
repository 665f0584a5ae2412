"""A made-up FLAME model of the real one's size (the licensed one may not be shipped), by the rule of the fixtures."""

import zlib
from functools import cache

import numpy as np
import parity_rule
import torch

from sdtalk.tracking.flame import COMPLETION_MASKS, FlameModel

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
