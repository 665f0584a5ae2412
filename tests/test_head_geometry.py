"""From landmarks to the head: camera fit, face model, completion points, smoothing, framing."""

import math
from itertools import chain

import pytest
import torch
from torch import Tensor

from sdtalk.camera import FACING, FOCAL_PX, Camera
from sdtalk.errors import InputError
from sdtalk.image import Crop
from sdtalk.tracking.camera_fit import fit_camera, fit_similarity, landmarks_in_crop
from sdtalk.tracking.completion import COMPLETION_PARTS, CompletionTemplate
from sdtalk.tracking.face_model import IRIS_CENTRES, FaceModel, eye_state
from sdtalk.tracking.framing import LEAST_ROOM, ROOM, choose_crop
from sdtalk.tracking.head_track import COMPLETION_POINTS
from sdtalk.tracking.smoothing import LONGEST_GAP, fill_gaps, smooth, smooth_mesh, smooth_track

FACE = FaceModel.bundled()
TEMPLATE = CompletionTemplate.bundled()


def turned(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Rotations head space -> camera space of a head turned by angles in degrees."""
    rotations = []
    for axis, degrees in zip(((0, 2), (1, 2), (0, 1)), (yaw, pitch, roll), strict=True):
        cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
        rotation = torch.eye(3, dtype=degrees.dtype).repeat(len(degrees), 1, 1)
        i, j = axis
        rotation[:, i, i], rotation[:, j, j], rotation[:, i, j], rotation[:, j, i] = cos, cos, -sin, sin
        rotations.append(rotation)
    return FACING.to(yaw.dtype) @ rotations[0] @ rotations[1] @ rotations[2]


def random_cameras(count: int, seed: int = 0) -> Camera:
    generator = torch.Generator().manual_seed(seed)
    random = torch.rand(6, count, generator=generator, dtype=torch.float64) * 2 - 1
    rotation = turned(40 * random[0], 25 * random[1], 30 * random[2])
    translation = torch.stack([0.3 * random[3], 0.3 * random[4], 10.5 + 3.5 * random[5]], dim=1)
    return Camera.from_pose(rotation, translation)


def seen(mesh: Tensor, camera: Camera) -> Tensor:
    """Landmarks as the mesh network gives them: z in px of the scale at the head, 0 at its origin."""
    mesh = mesh.expand(len(camera), -1, -1)
    depth = camera.to_camera_space(mesh)[..., 2:] / camera.translation[:, None, 2:]
    return torch.cat([camera.project(mesh), FOCAL_PX * (depth - 1)], dim=-1)


def with_opening(opening: float) -> Tensor:
    change = opening - FACE.mouth_opening(FACE.mean_face[None])[0]
    return (FACE.mean_face + change * FACE.opening_mode)[None]


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


def test_smoothing_keeps_blinks_and_closures() -> None:
    frames = torch.arange(60)
    mesh = with_opening(0.8).repeat(60, 1, 1)
    mesh[frames == 20] = with_opening(0.0)  # a /p/ of one frame
    lids = mesh[:, [160, 158]] - mesh[:, [144, 153]]
    mesh[40:43, [160, 158]] -= lids[40:43]  # a blink of three
    smoothed = smooth_mesh(mesh, FACE)
    assert FACE.mouth_opening(smoothed)[20] < 0.1
    assert (eye_state(smoothed)[41, :2] < 0.01 * eye_state(smoothed)[0, :2]).all()
    assert (eye_state(smoothed)[[38, 45], :2] > 0.98 * eye_state(smoothed)[0, :2]).all()


def test_smoothing_quiets_noise_and_leaves_slow_motion() -> None:
    time = torch.arange(100) / 25
    nod = turned(10 * torch.sin(3 * time), 5 * torch.cos(2 * time), 0 * time)
    place = torch.stack([0.1 * torch.sin(2 * time), 0 * time, torch.full_like(time, 10.0)], dim=1)
    true = Camera.from_pose(nod, place)
    landmarks = seen(FACE.mean_face[None], true)
    noise = torch.randn(100, 478, 3, generator=torch.Generator().manual_seed(5))
    fitted, mesh = fit_camera(landmarks + 2 * noise, FACE.mean_face, FACE.pose_weights)
    camera, smoothed = smooth_track(fitted, mesh, FACE)
    inner = slice(5, -5)  # at the ends the average is over one side only
    assert (camera.rotation - nod)[inner].abs().max() < 0.02
    nose_and_forehead = [10, 151, 9, 168, 6, 197, 195]
    error, error_before = ((m - FACE.mean_face)[:, nose_and_forehead].std() for m in (smoothed, mesh))
    assert error < 0.5 * error_before
    torch.testing.assert_close(
        camera.rotation @ camera.rotation.mT, torch.eye(3).repeat(100, 1, 1), atol=1e-5, rtol=0
    )


def test_smooth_agrees_with_scipy_inside_and_keeps_constants() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    values = torch.randn(50, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    expected = torch.from_numpy(ndimage.gaussian_filter1d(values.numpy(), 1.2, axis=0, radius=9))
    torch.testing.assert_close(smooth(values, 1.2)[9:-9], expected[9:-9])
    torch.testing.assert_close(smooth(torch.ones(3, 2), 2.0), torch.ones(3, 2))
    torch.testing.assert_close(smooth(values[:1], 2.0), values[:1])


def test_short_gaps_are_bridged_and_long_ones_named() -> None:
    landmarks = torch.arange(40.0)[:, None, None].repeat(1, 5, 3)
    gappy = landmarks.clone()
    gappy[10 : 10 + LONGEST_GAP] = torch.nan
    gappy[:2] = torch.nan
    gappy[-1] = torch.nan
    filled = fill_gaps(gappy, "a.mp4")
    torch.testing.assert_close(filled[2:-1], landmarks[2:-1])
    assert (filled[:2] == 2).all() and (filled[-1] == 38).all()
    gappy[10 : 11 + LONGEST_GAP] = torch.nan
    with pytest.raises(InputError, match=r"a.mp4: from 0.4 s on, no face was found for 0.5 s"):
        fill_gaps(gappy, "a.mp4")
    with pytest.raises(InputError, match="no face was found in this video"):
        fill_gaps(torch.full((3, 5, 3), torch.nan), "a.mp4")


def box(left: float, top: float, side: float) -> Tensor:
    return torch.tensor([[[left, top, 0.0], [left + side, top + side, 0.0]]]) - 0.5


def test_crop_has_room_and_stays_inside_where_it_can() -> None:
    free = choose_crop(box(500, 400, 100), 1200, 1000)
    assert free.side == pytest.approx(ROOM * 100) and free.left == pytest.approx(550 - 105)
    shifted = choose_crop(box(10, 20, 100), 1200, 1000)
    assert (shifted.left, shifted.top, shifted.side) == (0, 0, pytest.approx(ROOM * 100))
    tightened = choose_crop(box(150, 100, 100), 400, 200)
    assert (tightened.side, tightened.top) == (200, 0)
    beyond = choose_crop(box(20, 20, 100), 160, 140)
    assert beyond.side == pytest.approx(LEAST_ROOM * 100)
    assert beyond.left <= 0 and beyond.left + beyond.side >= 160, "all of the picture is used"


def test_crop_holds_all_a_moving_face_passes_through() -> None:
    path = torch.cat([box(100, 100, 100), box(400, 150, 100)])
    crop = choose_crop(path, 1920, 1080)
    assert crop.left < 90 and crop.left + crop.side > 510
