"""Tests of the paper's lifting plane and Gaussian heads: the published numbers (fixtures a and d), and ours."""

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled, with_rule_weights

from sdtalk.camera import Camera
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.completion_branch import CompletionBranch
from sdtalk.reconstruction.direction import direction_code
from sdtalk.reconstruction.visible_branch import VisibleBranch

CORNERS = [0, 1, 295, 296, 296 * 295, 296 * 296 - 1]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_lifting_plane_is_the_published_one(index: int) -> None:
    fixture = np.load(FIXTURES / "a_planes.npz")
    camera = Camera.from_pytorch3d(torch.from_numpy(parity_rule.cameras()[index : index + 1]))
    small = camera.lifting_plane(5, to_border=True)[0]
    torch.testing.assert_close(
        small, torch.from_numpy(fixture[f"cam{index}_size5_points"]), atol=1e-5, rtol=0
    )
    plane = camera.lifting_plane(296, to_border=True)[0]
    assert_sampled(plane, fixture, f"cam{index}_size296_points", atol=1e-5)
    corners = torch.from_numpy(fixture[f"cam{index}_size296_corners"])
    torch.testing.assert_close(plane[CORNERS], corners, atol=1e-5, rtol=0)
    direction = torch.from_numpy(fixture[f"cam{index}_size296_dir"])
    torch.testing.assert_close(-camera.plane_normal[0], direction, atol=1e-6, rtol=0)
    assert np.array_equal(direction, fixture[f"cam{index}_size5_dir"]), "whatever the size of the plane"
    code = torch.from_numpy(fixture[f"cam{index}_harmonic"])
    torch.testing.assert_close(direction_code(-camera.plane_normal)[0], code, atol=1e-5, rtol=0)


def camera_along(direction: torch.Tensor) -> Camera:
    """A camera that looks in a direction (its third axis), whatever the others."""
    helper = torch.tensor([0.3, 1.0, 0.2]).expand_as(direction)
    right = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=-1)
    down = torch.linalg.cross(direction, right)
    rotation = torch.stack([right, down, direction], dim=1)
    return Camera.from_pose(rotation, torch.tensor([[0.0, 0.0, 9.0]]).expand(len(direction), 3))


def compare(ours: Gaussians, fixture: np.lib.npyio.NpzFile, name: str) -> None:
    """Against the whole outputs of a published head; ten times the noise floor."""
    found = {
        "colors": (ours.features, 7e-6),
        "opacities": (ours.opacities[..., None], 1.3e-6),
        "scales": (ours.scales, 7e-8),
        "rotations": (ours.quats, 2.3e-5),
    }
    for key, (values, atol) in found.items():
        expected = torch.from_numpy(fixture[f"{name}_{key}"])
        torch.testing.assert_close(values, expected, atol=atol, rtol=0, msg=lambda m, k=key: f"{k}: {m}")


@torch.no_grad()
def test_the_heads_of_both_layers_are_the_published_ones() -> None:
    fixture = np.load(FIXTURES / "d_generators.npz")
    branch = VisibleBranch(256, 32, 128, 3, priors=False, sigmoid_on_columns=True)
    with_rule_weights(branch, "reconstructor.visible_branch.")
    local = torch.from_numpy(parity_rule.normal("in/d/feat", (2, 256, 24, 20)))
    directions = torch.from_numpy(fixture["dirs"])
    plane = torch.zeros(2, 480, 3)
    layers = branch(local, plane, camera_along(directions))
    for ours, name, sign in ((layers.back, "gs_generator_l0", 1), (layers.front, "gs_generator_l1", -1)):
        compare(ours, fixture, name)
        height = (ours.means * directions[:, None]).sum(-1, keepdim=True)
        torch.testing.assert_close(height, sign * torch.from_numpy(fixture[f"{name}_positions"]))


@torch.no_grad()
def test_the_head_of_the_completion_points_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = np.load(FIXTURES / "d_generators.npz")
    branch = CompletionBranch(5023, 256, 768, 32, 128, priors=False, quats_over_points=True)
    with_rule_weights(branch, "reconstructor.completion_branch.")
    inputs = torch.from_numpy(parity_rule.normal("in/d/linear", (2, 300, 1024)))
    monkeypatch.setattr(branch, "_inputs", lambda code: inputs)
    points = torch.zeros(2, 300, 3)
    gaussians = branch(torch.zeros(2, 768), points, torch.from_numpy(fixture["dirs"]))
    compare(gaussians, fixture, "gs_generator_g")


@torch.no_grad()
def test_without_the_published_slips_gaussians_are_valid() -> None:
    torch.manual_seed(0)
    branch = VisibleBranch(8, 6, 16, 3, priors=False)
    camera = camera_along(torch.nn.functional.normalize(torch.randn(1, 3), dim=-1))
    layers = branch(torch.randn(1, 8, 5, 5) * 9, camera.lifting_plane(5), camera)
    completion = CompletionBranch(50, 8, 4, 6, 16, priors=False)
    points = torch.randn(1, 20, 3)
    rows = torch.arange(10, 30)
    chosen = completion(torch.randn(1, 4), points, -camera.plane_normal, rows)
    assert torch.equal(chosen.means, points)
    for gaussians in (layers.back, layers.front, chosen):
        torch.testing.assert_close(gaussians.quats.norm(dim=-1), torch.ones_like(gaussians.opacities))
        assert (gaussians.scales > 0).all() and (gaussians.opacities - 0.5).abs().max() <= 0.5
        assert (gaussians.features[..., :3] - 0.5).abs().max() <= 0.5
    heights = camera.to_camera_space(layers.front.means)[..., 2]
    assert (heights < 9.0).all(), "the front layer lies on the camera's side of the plane"


@torch.no_grad()
def test_rows_choose_learned_vectors() -> None:
    torch.manual_seed(0)
    branch = CompletionBranch(9, 4, 4, 6, 8, priors=False)
    code, direction = torch.randn(1, 4), torch.tensor([[0.0, 0.0, -1.0]])
    everything = branch(code, torch.zeros(1, 9, 3), direction)
    some = branch(code, torch.zeros(1, 2, 3), direction, torch.tensor([7, 1]))
    assert torch.equal(some.features, everything.features[:, [7, 1]])
