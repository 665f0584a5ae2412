"""Tests of head geometry from landmarks: camera fit, face model, completion points."""

import math
from itertools import chain

import pytest
import torch
from made_up_heads import FACE, random_cameras, seen, turned, with_opening
from torch import Tensor

from sdtalk.image import Crop
from sdtalk.tracking.camera_fit import fit_camera, fit_similarity, landmarks_in_crop
from sdtalk.tracking.completion import COMPLETION_PARTS, CompletionTemplate
from sdtalk.tracking.face_model import IRIS_CENTRES, eye_state
from sdtalk.tracking.head_track import COMPLETION_POINTS

TEMPLATE = CompletionTemplate.bundled()


def test_fit_recovers_made_up_cameras_and_meshes() -> None:
    camera = random_cameras(32)
    speaking = torch.zeros(478, 3, dtype=torch.float64)
    speaking[FACE.pose_weights == 0] = 0.03  # what does not count for the pose may be anywhere
    mesh = (FACE.mean_face + speaking * torch.randn(32, 478, 3)).double()
    fitted, fitted_mesh = fit_camera(seen(mesh, camera), FACE.mean_face, FACE.pose_weights)
    torch.testing.assert_close(fitted.rotation, camera.rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(fitted.translation, camera.translation, atol=1e-4, rtol=0)
    torch.testing.assert_close(fitted_mesh, mesh, atol=1e-6, rtol=0)


def test_mesh_projects_to_the_landmarks_whatever_they_are() -> None:
    landmarks = seen(FACE.mean_face.double()[None], random_cameras(8)).float()
    landmarks = landmarks + 10 * torch.randn(8, 478, 3, generator=torch.Generator().manual_seed(1))
    camera, mesh = fit_camera(landmarks, FACE.mean_face, FACE.pose_weights)
    torch.testing.assert_close(camera.project(mesh), landmarks[..., :2], atol=2e-3, rtol=0)
    assert (torch.det(camera.rotation) > 0.999).all()


def test_fit_follows_the_picture_plane() -> None:
    """Turning the picture rolls the camera; frames do not see each other; the mesh stays the same."""
    landmarks = seen(with_opening(1.0).double(), random_cameras(4))
    camera, mesh = fit_camera(landmarks, FACE.mean_face, FACE.pose_weights)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    middle = torch.tensor([256.0, 256.0, 0.0], dtype=torch.float64)
    rolled, rolled_mesh = fit_camera(
        (landmarks - middle) @ quarter.T + middle, FACE.mean_face, FACE.pose_weights
    )
    torch.testing.assert_close(rolled.rotation, quarter @ camera.rotation)
    torch.testing.assert_close(rolled_mesh, mesh, atol=1e-6, rtol=0)
    alone, _ = fit_camera(landmarks[2:3], FACE.mean_face, FACE.pose_weights)
    torch.testing.assert_close(alone.world_to_camera, camera.world_to_camera[2:3])


def test_similarity_agrees_with_scipy() -> None:
    transform = pytest.importorskip("scipy.spatial.transform")
    source = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    target = source + 0.3 * torch.randn(
        30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    weights = torch.linspace(0.1, 1, 30, dtype=torch.float64)
    _, rotation, _ = fit_similarity(source, target[None], weights)
    share = (weights / weights.sum())[:, None]
    a, b = target - (share * target).sum(0), source - (share * source).sum(0)
    expected = transform.Rotation.align_vectors(a, b, weights)[0].as_matrix()
    torch.testing.assert_close(rotation[0], torch.from_numpy(expected))


def test_landmarks_move_into_the_crop_with_pixel_centres_at_a_half() -> None:
    """The first pixel's centre is 0 in the picture and, in a crop of the same scale, 0.5."""
    landmarks = torch.tensor([[[10.0, 20.0, 4.0]]])
    assert landmarks_in_crop(landmarks, Crop(10.0, 20.0, 512.0)).tolist() == [[[0.5, 0.5, 4.0]]]
    assert landmarks_in_crop(landmarks, Crop(10.0, 20.0, 256.0)).tolist() == [[[1.0, 1.0, 8.0]]]


def test_average_face_is_symmetric_and_in_its_place() -> None:
    face, mirror = FACE.mean_face, FACE.mirror
    torch.testing.assert_close(face[mirror] * torch.tensor([-1.0, 1.0, 1.0]), face)
    assert (mirror[mirror] == torch.arange(478)).all()
    right, left = face[list(IRIS_CENTRES)]
    torch.testing.assert_close((left - right), torch.tensor([0.315, 0.0, 0.0]), atol=1e-5, rtol=0)
    assert face[1, 2] > face[33, 2] > face[234, 2], "the nose is in front, the ears behind"
    assert face[10, 1] > face[1, 1] > face[152, 1], "the forehead is above, the chin below"


def test_surface_is_oriented_and_closed() -> None:
    a, b, c = FACE.mean_face[FACE.triangles].unbind(1)
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).float().mean() > 0.97
    triangles = torch.cat([FACE.triangles, FACE.mouth_triangles])
    assert len(triangles) == 898
    edges = [(t[i], t[(i + 1) % 3]) for t in triangles.tolist() for i in range(3)]
    assert len(set(edges)) == len(edges), "neighbours run along their common edge in opposite directions"
    rim = set(edges) - {(j, i) for i, j in edges}
    assert len(rim) == 36, "the only border is the outline of the face"


def test_mouth_code_reads_what_the_modes_write() -> None:
    assert FACE.mouth_opening(FACE.canonical_face[None]).item() == pytest.approx(0.35, abs=1e-4)
    code = torch.randn(6, 5, generator=torch.Generator().manual_seed(4))
    written = FACE.mouth_code(FACE.mean_face + FACE.mouth_displacement(code))
    mean = FACE.mouth_code(FACE.mean_face[None])
    torch.testing.assert_close(written - mean, code, atol=1e-3, rtol=0)
    modes = torch.cat([FACE.opening_mode[None], FACE.mouth_modes])
    torch.testing.assert_close(
        modes[:, FACE.mirror] * torch.tensor([-1.0, 1.0, 1.0]), modes, atol=1e-4, rtol=0
    )


def test_eye_state_does_not_change_with_pose_and_falls_in_a_blink() -> None:
    mesh = FACE.mean_face[None].clone()
    turned_mesh = mesh @ turned(torch.tensor([30.0]), torch.tensor([10.0]), torch.tensor([5.0])).mT
    torch.testing.assert_close(eye_state(turned_mesh), eye_state(mesh), atol=1e-5, rtol=0)
    mesh[:, [160, 158]] = mesh[:, [144, 153]]
    blinking = eye_state(mesh)[0]
    assert blinking[:2].tolist() == [0, 0] and (blinking[2:] > 0.02).all()


def test_completion_parts_cover_all_points_once() -> None:
    parts = list(COMPLETION_PARTS.values())
    assert sorted(chain(*(range(p.start, p.stop) for p in parts))) == list(range(COMPLETION_POINTS))
    assert TEMPLATE.weights.sum(1).sub(1).abs().max() < 1e-5, "points follow a head that is moved as a whole"


def surface_depth(mesh: Tensor, points: Tensor) -> Tensor:
    """z of the closed face surface in front of points, looking along z; slow and obvious."""
    a, b, c = mesh[torch.cat([FACE.triangles, FACE.mouth_triangles])].unbind(1)
    depth = torch.full((len(points),), -math.inf)
    for corners in zip(a, b, c, strict=True):
        matrix = torch.cat([torch.stack(corners)[:, :2].T, torch.ones(1, 3)])
        if torch.det(matrix).abs() < 1e-9:
            continue
        shares = torch.linalg.solve(matrix, torch.cat([points[:, :2], torch.ones(len(points), 1)], dim=1).T)
        z = shares.T @ torch.stack([corner[2] for corner in corners])
        depth = torch.where((shares >= -1e-5).all(0), torch.maximum(depth, z), depth)
    return depth


@pytest.mark.parametrize("seed", range(3))
def test_the_inside_of_a_closed_mouth_is_inside(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(1, 5, generator=generator)
    code[:, 0] = 0
    mesh = with_opening(0.0) + FACE.mouth_displacement(code)
    mesh = mesh * (1 + 0.06 * torch.randn(3, generator=generator))  # a wider, longer or flatter face
    inner = slice(COMPLETION_PARTS["upper_teeth"].start, COMPLETION_PARTS["oral_cavity"].stop)
    points = TEMPLATE.place(mesh)[0, inner]
    assert (surface_depth(mesh[0], points) - points[:, 2]).min() > 0.004, "nearer than 0.8 mm to the skin"


def test_lips_and_lids_lie_on_the_mesh_and_eyeballs_behind_it() -> None:
    mesh = with_opening(0.6)
    points = TEMPLATE.place(mesh)[0]
    for part in ("lips", "right_lids", "left_lids"):
        found = points[COMPLETION_PARTS[part]]
        assert torch.cdist(found, mesh[0]).amin(1).max() < 0.03
    right, left = points[COMPLETION_PARTS["right_eyeball"]], points[COMPLETION_PARTS["left_eyeball"]]
    assert right[:, 2].max() < mesh[0, IRIS_CENTRES[0], 2] and left[:, 2].max() < mesh[0, IRIS_CENTRES[1], 2]
    mirrored = right.mean(0) * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, left.mean(0), atol=0.002, rtol=0)


def test_upper_teeth_stay_and_lower_teeth_follow_the_jaw() -> None:
    closed, wide = TEMPLATE.place(torch.cat([with_opening(0.0), with_opening(1.0)]))
    moved = (wide - closed)[:, 1]
    assert moved[COMPLETION_PARTS["upper_teeth"]].abs().max() < 0.006
    assert -0.06 < moved[COMPLETION_PARTS["lower_teeth"]].mean() < -0.015
