"""Tests of surface frames: how Gaussians lie in a lifted surface, and that it stays closed when it turns."""

import torch
import torch.nn.functional as F

from sdtalk.camera import FACING, Camera
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.prior import lifting_rays
from sdtalk.reconstruction.surface import (
    MAX_STRETCH,
    SurfaceFrames,
    identity_quats,
    quat_product,
    quats_of,
    surface_frames,
    upright_stretch,
)
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.rendering.reference import covariances, rotation_matrices

SIZE = 40
CAMERA = Camera.from_pose(FACING[None], torch.tensor([[0.0, 0.0, 9.5]])).resized(160)
PLANE = CAMERA.lifting_plane(SIZE)[0]
RAYS = lifting_rays(CAMERA, PLANE[None])[0]
CELL = (PLANE[1] - PLANE[0]).norm()


def random_quats(count: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 4, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_quats_and_matrices_are_the_same_rotations() -> None:
    quats = torch.cat([random_quats(200), torch.eye(4)])  # half turns as well
    torch.testing.assert_close(
        rotation_matrices(quats_of(rotation_matrices(quats))), rotation_matrices(quats)
    )
    a, b = random_quats(100), random_quats(200)[100:]
    product = rotation_matrices(quat_product(a, b))
    torch.testing.assert_close(product, rotation_matrices(a) @ rotation_matrices(b), atol=1e-5, rtol=0)


def test_a_level_surface_gets_the_frame_of_the_plane() -> None:
    frames = surface_frames(torch.full((SIZE, SIZE), 0.3), PLANE, RAYS)
    assert (frames.stretch == 1).all()
    across = rotation_matrices(frames.quats)[..., 0]
    torch.testing.assert_close(
        across, F.normalize(PLANE[1] - PLANE[0], dim=0).expand_as(across), atol=1e-5, rtol=0
    )


def test_frames_lie_in_a_slope() -> None:
    """x along its steepest line, y level, and as long as the way along it."""
    x, y = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy")
    offset = CELL * (2.0 * (x - SIZE / 2) + 1.5 * (y - SIZE / 2))
    frames = surface_frames(offset, PLANE, RAYS)
    lifted = (PLANE + RAYS * offset.reshape(-1, 1)).reshape(SIZE, SIZE, 3)
    axes = rotation_matrices(frames.quats).reshape(SIZE, SIZE, 3, 3)[5:-5, 5:-5]
    right, down = (F.normalize(lifted.roll(-1, d) - lifted, dim=-1)[5:-5, 5:-5] for d in (1, 0))
    for edge in (right, down):  # edges of the surface have no part out of it
        assert ((edge * axes[..., 2]).sum(-1)).abs().max() < 0.1
    assert (frames.stretch[:, 0] - (1 + 2.5**2) ** 0.5).abs().reshape(SIZE, SIZE)[5:-5, 5:-5].max() < 0.1


def test_edges_are_no_surfaces() -> None:
    offset = torch.zeros(SIZE, SIZE)
    offset[:, SIZE // 2 :] = 1.0
    assert surface_frames(offset, PLANE, RAYS).stretch.max() < MAX_STRETCH + 1.5


def test_a_steep_surface_stays_closed_and_unstriped_when_it_turns() -> None:
    """Opposite to upright Gaussians: what the stripes came from."""
    offset = ((torch.arange(SIZE) - SIZE / 2) * CELL * 2.5).expand(SIZE, SIZE)
    upright = SurfaceFrames(identity_quats(PLANE[None])[0], upright_stretch(offset, PLANE))
    both = {"lying": surface_frames(offset, PLANE, RAYS), "upright": upright}
    sigma = 0.55 * CELL
    means = PLANE + RAYS * offset.reshape(-1, 1)
    turn = torch.tensor(0.45)
    yaw = torch.tensor([[turn.cos(), 0, turn.sin()], [0, 1, 0], [-turn.sin(), 0, turn.cos()]])
    camera = Camera.from_pose((FACING @ yaw)[None], torch.tensor([[0.0, 0.0, 9.5]])).resized(160)
    grey = torch.ones(1, len(means), 3)
    ripples = {}
    for name, frames in both.items():
        opacities = torch.full((1, len(means)), 0.98)
        gaussians = Gaussians(means[None], frames.quats[None], sigma * frames.stretch[None], opacities, grey)
        alpha = rasterise(gaussians, camera).alpha[0, 0]
        inside = alpha[60:100, 60:100]
        ripples[name] = float(inside.max() - inside.min())
    assert ripples["lying"] < 0.5 * ripples["upright"]


def test_what_the_photo_sees_of_a_gaussian_is_not_changed_by_its_frame() -> None:
    """Along the ray a Gaussian may be as long as it likes: straight ahead it is as wide as its cell."""
    facing = (PLANE.norm(dim=-1) < 0.05).nonzero()[0, 0]
    x, y = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy")
    frames = surface_frames(CELL * (1.5 * x - 0.5 * y), PLANE, RAYS)
    scales = frames.stretch * torch.tensor([1.0, 1.0, 0.01])
    covariance = covariances(frames.quats, scales)[facing]
    torch.testing.assert_close(covariance[:2, :2], torch.eye(2), atol=0.1, rtol=0)
