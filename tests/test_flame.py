"""Tests of the FLAME layer: the published one's numbers (fixture l), and what holds for any model."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import parity_rule
import pytest
import torch
from made_up_flame import made_up_flame
from published import assert_sampled
from torch import Tensor

from sdtalk.camera import UNIT_M
from sdtalk.flame.layer import FlameModel, FlameParameters, rotation_matrices

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "l_flame_synthetic.npz")


def toy_flame(dtype: torch.dtype = torch.float64) -> FlameModel:
    """Twelve vertices, four and three coefficients."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=draw, dtype=dtype)

    return FlameModel(
        template=normal(12, 3, scale=0.1),
        shape_basis=normal(12, 3, 4, scale=0.01),
        expression_basis=normal(12, 3, 3, scale=0.01),
        pose_basis=normal(12, 3, 36, scale=0.01),
        joint_regressor=normal(5, 12).softmax(1),
        skinning_weights=normal(12, 5).softmax(1),
        triangles=torch.randint(0, 12, (7, 3), generator=draw),
        landmark_triangles=torch.tensor([0, 3, 6]),
        landmark_weights=normal(3, 3).softmax(1),
        landmark_numbers=torch.tensor([17, 40, 66]),
        completion_rows=torch.tensor([5, 2, 9]),
    )


def random_parameters(model: FlameModel, batch: int) -> FlameParameters:
    draw = torch.Generator().manual_seed(1)
    rest = FlameParameters.zeros(batch, model)
    shapes = (getattr(rest, f.name).shape for f in fields(rest))
    return FlameParameters(*(0.3 * torch.randn(s, generator=draw, dtype=rest.jaw.dtype) for s in shapes))


def test_vertices_and_landmarks_are_the_published_ones() -> None:
    model = made_up_flame()
    pose = torch.from_numpy(FIXTURE["pose"])
    parameters = replace(
        FlameParameters.zeros(2, model),
        shape=torch.from_numpy(parity_rule.normal("in/l/shape", (2, 300))),
        expression=torch.from_numpy(parity_rule.normal("in/l/exp", (2, 100))),
        rotation=pose[:, :3],
        jaw=pose[:, 3:],
        eyes=torch.from_numpy(parity_rule.normal("in/l/eye", (2, 6), 0.2)),
    )
    vertices = model.vertices(parameters)
    assert_sampled(vertices, FIXTURE, "vertices", atol=3e-6)
    landmarks = torch.from_numpy(FIXTURE["landmarks70"])
    torch.testing.assert_close(model.landmarks(vertices), landmarks, atol=3e-6, rtol=0)


def test_at_rest_the_head_is_the_template_in_head_space_units() -> None:
    model = toy_flame()
    vertices = model.vertices(FlameParameters.zeros(2, model))
    torch.testing.assert_close(vertices, (model.template / UNIT_M).expand(2, -1, -1))


def test_turning_the_head_is_a_rigid_motion_about_the_root() -> None:
    model = toy_flame()
    still = replace(random_parameters(model, 3), rotation=torch.zeros(3, 3, dtype=torch.float64))
    turned = replace(still, rotation=random_parameters(model, 3).rotation)
    shaped = model.vertices(
        replace(FlameParameters.zeros(3, model), shape=still.shape, expression=still.expression)
    )
    root = (model.joint_regressor @ shaped)[:, :1]
    expected = (model.vertices(still) - root) @ rotation_matrices(turned.rotation).transpose(1, 2) + root
    torch.testing.assert_close(model.vertices(turned), expected)


@pytest.mark.parametrize("joint, name", [(1, "neck"), (2, "jaw"), (3, "left eye"), (4, "right eye")])
def test_a_vertex_of_one_joint_turns_about_it(joint: int, name: str) -> None:
    """Root and, for the others than the neck, the neck are at rest, so only the joint's own turn is seen."""
    owned = torch.zeros(12, 5, dtype=torch.float64)
    owned[:, joint] = 1
    model = replace(
        toy_flame(), skinning_weights=owned, pose_basis=torch.zeros(12, 3, 36, dtype=torch.float64)
    )
    rest, turn = FlameParameters.zeros(1, model), torch.tensor([[0.3, -0.5, 0.2]], dtype=torch.float64)
    changes = {
        "neck": {"neck": turn},
        "jaw": {"jaw": turn},
        "left eye": {"eyes": torch.cat([turn, torch.zeros_like(turn)], dim=1)},
        "right eye": {"eyes": torch.cat([torch.zeros_like(turn), turn], dim=1)},
    }
    place = (model.joint_regressor @ model.template)[joint]
    expected = (model.template - place) @ rotation_matrices(turn)[0].T + place
    torch.testing.assert_close(model.vertices(replace(rest, **changes[name]))[0], expected / UNIT_M)


def test_neck_carries_jaw_and_eyes_along() -> None:
    jaw_only = torch.zeros(12, 5, dtype=torch.float64)
    jaw_only[:, 2] = 1
    model = replace(toy_flame(), pose_basis=torch.zeros(12, 3, 36, dtype=torch.float64))
    parameters = replace(
        FlameParameters.zeros(1, model), neck=torch.tensor([[0.1, 0.7, -0.2]], dtype=torch.float64)
    )
    neck_only = torch.zeros_like(jaw_only)
    neck_only[:, 1] = 1
    by_jaw = replace(model, skinning_weights=jaw_only).vertices(parameters)
    torch.testing.assert_close(by_jaw, replace(model, skinning_weights=neck_only).vertices(parameters))


def test_rotations_are_rotations() -> None:
    vectors = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    matrices = rotation_matrices(vectors)
    hat = torch.linalg.cross(
        vectors[:, None].expand(-1, 3, -1), torch.eye(3, dtype=torch.float64).expand(20, -1, -1)
    )
    torch.testing.assert_close(matrices, torch.linalg.matrix_exp(hat.transpose(1, 2)), atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_float_type_keeps_its_type_and_is_finite_at_rest(dtype: torch.dtype) -> None:
    model = toy_flame(dtype)
    vertices = model.vertices(FlameParameters.zeros(1, model))
    assert vertices.dtype == dtype and vertices.isfinite().all()
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        vertices[0].double(), model.template.double() / UNIT_M, atol=tolerance, rtol=tolerance
    )


def test_derivatives_are_right() -> None:
    model = toy_flame()
    rest = random_parameters(model, 2)
    names = [f.name for f in fields(rest)]

    def positions(*values: Tensor) -> Tensor:
        return model.landmarks(model.vertices(FlameParameters(*values)))

    inputs = tuple(getattr(rest, name).requires_grad_(True) for name in names)
    assert torch.autograd.gradcheck(positions, inputs, atol=1e-6)


def test_derivatives_at_rest_are_those_of_small_rotations() -> None:
    vector = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(rotation_matrices, vector)
    generators = torch.zeros(3, 3, 3, dtype=torch.float64)
    for axis, (row, column) in enumerate([(2, 1), (0, 2), (1, 0)]):
        generators[row, column, axis], generators[column, row, axis] = 1, -1
    torch.testing.assert_close(jacobian, generators, atol=1e-7, rtol=0)


def test_batches_can_be_cut_and_joined() -> None:
    model = toy_flame()
    parameters = random_parameters(model, 5)
    joined = FlameParameters.cat([parameters[:2], parameters[torch.tensor([2, 3])], parameters[4:]])
    assert len(joined) == 5
    torch.testing.assert_close(model.vertices(joined), model.vertices(parameters))


def test_saved_and_loaded_model_is_the_same(tmp_path: Path) -> None:
    model = toy_flame()
    model.save(tmp_path / "flame.safetensors", {"licence": "made up"})
    loaded = FlameModel.load(tmp_path / "flame.safetensors")
    for f in fields(model):
        assert torch.equal(getattr(loaded, f.name), getattr(model, f.name)), f.name
