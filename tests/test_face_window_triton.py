"""Tests of the window renderer on a GPU: its Triton kernels, windows at places no host knows, and no waiting.

Without a GPU the kernels run interpreted, on CPU tensors; with one, compiled.
"""

import os
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not for every system")

from test_window_renderer import FACE, SHUT, geometry_of, opened, photo_face, smooth_picture, trained

from sdtalk.camera import FACING, FRAME_SIZE, Camera
from sdtalk.motion.face_motion import moved_face
from sdtalk.rendering import unseen_mouth, window_geometry, window_inputs
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.moved_photo import (
    affine_photo_reference,
    moved_photo_reference,
    polygon_distance_reference,
)
from sdtalk.rendering.triton import face_window, window_painting
from sdtalk.rendering.window_geometry import WindowGeometry, solved_by_cofactors
from sdtalk.rendering.window_inputs import correction_count
from sdtalk.rendering.window_renderer import MOUTH_CUT, PhotoFace, WindowRenderer
from sdtalk.rendering.window_squares import WindowSquares, cut_on_host

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRIANGLES = torch.cat([FACE.triangles, FACE.mouth_triangles])
STATE = moved_face(FACE.mean_face[None], torch.tensor([[0.6, 1.0, 0, 0, 0]]), SHUT)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="asks what a CUDA device does")


def both(name: str, reference, *arguments) -> tuple[list[Tensor], list[Tensor]]:
    """What a kernel draws, and what plain PyTorch does."""
    there = [x.to(DEVICE) if isinstance(x, Tensor) else x for x in arguments]
    found, plain = getattr(face_window, name)(*there), reference(*arguments)
    if isinstance(found, Tensor):
        found, plain = (found,), (plain,)
    return [x.cpu() for x in found], list(plain)


@pytest.fixture
def large_tiles(monkeypatch) -> None:
    """Interpreted, a program takes as long for many pixels and triangles as for few."""
    if DEVICE == "cpu":
        monkeypatch.setattr(face_window, "TILE_WIDTH", 32)
        monkeypatch.setattr(face_window, "TILE_HEIGHT", 32)
        monkeypatch.setattr(face_window, "CHUNK", 128)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [MOUTH, RIGHT_EYE], ids=["mouth", "eye"])
def test_a_face_is_drawn_as_plain_pytorch_draws_it(window: FaceWindow, large_tiles) -> None:
    """Where two triangles share an edge both count, and where they show the same it does not matter which one wins."""
    g = geometry_of(window, STATE)
    shift = torch.tensor([[[30.5, 20.0]]])  # two windows, the second one partly without a mesh
    xy, photo_xy = torch.cat([g.moved_xy, g.moved_xy * 0.4 + shift]), g.photo_xy.repeat(2, 1, 1)
    arguments = (g.photo, photo_xy, xy, g.heights.repeat(2, 1), TRIANGLES, 64)
    (drawn, shown), (plain, plainly) = both("moved_photo", moved_photo_reference, *arguments)
    assert 0.2 < plainly[1].mean() < 0.9
    # a pixel that lies on the face's own rim, by the tolerance of an edge, may fall to either side: not one does here
    assert torch.equal(shown, plainly)
    torch.testing.assert_close(drawn, plain, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_the_highest_triangle_wins_also_among_many_and_at_the_borders_of_tiles() -> None:
    """Random triangles over each other, as many as no chunk holds, thin ones and points, tiles as they are."""
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(2, 60, 2, generator=generator) * 50 - 5
    triangles = torch.randint(60, (45, 3), generator=generator)
    triangles[3, 1] = triangles[3, 0]  # a line shows nothing
    heights = torch.randn(2, 60, generator=generator)
    photos = torch.rand(2, 3, 24, 20, generator=generator)
    photo_xy = torch.rand(2, 60, 2, generator=generator) * 30 - 5  # also beyond the photo's border
    arguments = (photos, photo_xy, xy, heights, triangles, 40)
    (drawn, shown), (plain, plainly) = both("moved_photo", moved_photo_reference, *arguments)
    assert plainly.mean() > 0.8 and torch.equal(shown, plainly)
    torch.testing.assert_close(drawn, plain, atol=1e-4, rtol=0)


@pytest.mark.gpu
def test_of_triangles_of_the_same_height_the_first_one_shows_and_no_mesh_shows_nothing() -> None:
    xy = torch.tensor([[[-1.0, -1.0], [40.0, -1.0], [-1.0, 40.0]]]).repeat(1, 2, 1)
    photo_xy = torch.tensor([[[2.0, 2.0]] * 3 + [[12.0, 2.0]] * 3])
    photo = torch.zeros(1, 3, 4, 16)
    photo[..., 8:] = 1.0
    for first, second in ((0, 3), (3, 0)):
        triangles = torch.arange(3) + torch.tensor([[first], [second]])
        drawn, shown = both(
            "moved_photo", moved_photo_reference, photo, photo_xy, xy, torch.zeros(1, 6), triangles, 16
        )[0]
        assert shown.all()
        torch.testing.assert_close(drawn, torch.full_like(drawn, float(first == 3)))
    away = both(
        "moved_photo", moved_photo_reference, photo, photo_xy, xy + 100, torch.zeros(1, 6), triangles, 16
    )[0]
    assert not away[0].any() and not away[1].any()


@pytest.mark.gpu
def test_affine_photos_are_those_of_plain_pytorch() -> None:
    photos = torch.cat([smooth_picture(0), smooth_picture(1)])[..., 100:160, 50:130]
    turn = torch.tensor([[1.0, 0.2, -3.5], [-0.2, 1.1, 4.0]]).repeat(4, 1, 1)
    maps = turn + 0.1 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    found, plain = both("affine_photo", affine_photo_reference, photos, maps, 36)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)
    far = both(
        "affine_photo", affine_photo_reference, photos, maps + torch.tensor([[0, 0, 1e12], [0, 0, -1e12]]), 4
    )
    torch.testing.assert_close(*far, atol=1e-4, rtol=0)  # the border's colours, however far away


@pytest.mark.gpu
def test_distances_to_polygons_are_those_of_plain_pytorch() -> None:
    g = geometry_of(MOUTH, STATE)
    rings = g.moved_xy[:, list(MOUTH.opening)].repeat(2, 1, 1)
    rings[1] = rings[1, torch.randperm(20, generator=torch.Generator().manual_seed(0))]  # crosses itself
    found, plain = both("polygon_distance", polygon_distance_reference, rings, MOUTH.size)
    assert (plain[0] < 0).any(dim=(1, 2)).all()
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=0)


def scene(count: int = 3) -> tuple[PhotoFace, Tensor, Camera, Tensor]:
    """Faces in frames, also beyond their borders, and one whose eyes' windows overlap."""
    places = torch.tensor([[0.0, 0.0, 9.5], [0.75, 0.2, 9.5], [-0.8, -0.5, 14.0]])[:count]
    camera = Camera.from_pose(FACING.repeat(count, 1, 1), places)
    mesh = torch.cat([opened(0.1), opened(0.8), STATE])[:count]
    picture = torch.rand(count, 4, FRAME_SIZE, FRAME_SIZE, generator=torch.Generator().manual_seed(0))
    return photo_face(), mesh, camera, picture


def moved(photo: PhotoFace, device: str) -> PhotoFace:
    return PhotoFace(photo.image.to(device), photo.mesh.to(device), photo.xy.to(device))


@pytest.mark.parametrize("gradients", [False, True])
def test_windows_at_places_that_no_host_knows_are_painted_as_by_a_host(gradients: bool) -> None:
    renderer, (photo, mesh, camera, picture) = trained(), scene()
    painted = []
    for on_host in (True, False):
        here = picture.clone()
        with torch.set_grad_enabled(gradients):
            renderer.paint(photo, mesh, camera, here, on_host=on_host)
        painted.append(here.detach())
    assert ((painted[0] - picture).abs() > 0.1).float().mean(dim=(1, 2, 3)).gt(0.01).all()
    torch.testing.assert_close(*painted, atol=1e-6, rtol=0)


@pytest.mark.gpu
def test_gradients_are_those_of_windows_painted_by_a_host(monkeypatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    renderer, (photo, mesh, camera, picture) = trained(), scene()
    weight = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))
    found = []
    for device, on_host in (("cpu", True), (DEVICE, False)):
        leaf = picture.to(device, copy=True).requires_grad_()
        here, painters = leaf * 1, renderer.to(device)
        painters.paint(moved(photo, device), mesh.to(device), camera.to(device), here, on_host=on_host)
        wanted = [leaf, painters.mouth.out.weight, painters.eyes.stem.weight]
        gradients = torch.autograd.grad((here * weight.to(device)).sum(), wanted)
        found.append([gradient.cpu() for gradient in gradients])
    for one, other in zip(*found, strict=True):
        assert 0 < one.norm() and (one - other).norm() < (1e-5 if DEVICE == "cpu" else 1e-3) * one.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("window", [MOUTH, RIGHT_EYE], ids=["mouth", "eye"])
def test_the_painting_kernel_paints_what_plain_pytorch_paints(window: FaceWindow, monkeypatch) -> None:
    """Two frames; of eyes also their mirror images, whose windows overlap, partly beyond the border."""
    if DEVICE == "cpu":
        monkeypatch.setattr(window_painting, "PIXELS", 4096)
    both_eyes = window is RIGHT_EYE
    geometry = geometry_of(window, opened(0.9) + STATE - FACE.mean_face)
    for _ in range(2 if both_eyes else 1):
        geometry = geometry.followed_by(geometry)
    generator = torch.Generator().manual_seed(0)
    count, size = len(geometry.moved_xy), window.size
    inputs = window_inputs.window_inputs(window, geometry)
    correction = torch.randn(count, correction_count(window), size, size, generator=generator)
    opaque = torch.rand(count, 1, size, size, generator=generator)
    inputs = replace(inputs, colourful=torch.rand(count, 1, 1, 1, generator=generator))
    corners = torch.tensor([[10.0, -30.0], [-25.0, 20.0], [20.0, 5.0], [1e9, 7.0]])[:count]
    picture = torch.rand(2, 4, 120, 150, generator=generator)
    painted, wanted = torch.cat([inputs.painted(correction), opaque], 1), picture.clone()
    for mirrored, corner, part, mask in zip(
        (False, True), corners.split(2), painted.split(2), inputs.mask.split(2), strict=False
    ):
        WindowSquares.at(corner, size, 120, 150, mirrored).paint(wanted, part, mask)
    there = {
        f.name: value.to(DEVICE) for f in fields(inputs) if (value := getattr(inputs, f.name)) is not None
    }
    found = picture.to(DEVICE, copy=True)
    arguments = [x.to(DEVICE) for x in (correction, opaque, corners)]
    window_painting.paint(replace(inputs, **there), *arguments, found)
    assert ((wanted - picture).abs() > 0.1).float().mean() > 0.05
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("left, top", [(3, 5), (-20, 10), (70, -7), (500, 500), (-500, 3)])
def test_a_square_is_cut_as_by_a_host_and_painted_back_where_it_was(left: int, top: int) -> None:
    pictures = torch.rand(1, 4, 60, 90, generator=torch.Generator().manual_seed(0))
    corner = torch.tensor([[float(left), float(top)]])
    square = WindowSquares.at(corner, 32, 60, 90)
    wanted = cut_on_host(pictures[0], left, top, 32)
    assert torch.equal(square.cut(pictures)[0], wanted)
    mirrored = WindowSquares.at(corner, 32, 60, 90, mirrored=True)
    assert torch.equal(mirrored.cut(pictures.flip(-1))[0], wanted)
    again = torch.zeros_like(pictures)
    square.paint(again, square.cut(pictures), torch.ones(1, 1, 32, 32))
    assert torch.equal(cut_on_host(again[0], left, top, 32), wanted) and again.sum() == pytest.approx(
        float(wanted.sum())
    )


@pytest.mark.parametrize("side", [100, MOUTH_CUT, 600])
def test_a_photo_is_cut_as_by_a_host(side: int) -> None:
    photo, points = photo_face(), torch.tensor(MOUTH.outline)
    photo = replace(
        photo, xy=photo.xy - torch.tensor([0.0, 250.0])
    )  # its square would reach beyond the border
    for one, other in zip(photo.cut(points, side, True), photo.cut(points, side, False), strict=True):
        assert torch.equal(one, other)


def test_a_matrix_of_two_rows_is_solved_without_asking_it_for_an_inverse() -> None:
    points = torch.randn(50, 20, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([40.0, 4.0])
    matrix, right = points.mT @ points, points.mT @ points.flip(2)
    solved = solved_by_cofactors(matrix.double(), right.double())
    torch.testing.assert_close(solved, torch.linalg.solve(matrix.double(), right.double()))
    torch.testing.assert_close(solved_by_cofactors(matrix, right), solved.float(), atol=1e-4, rtol=1e-3)
    line = points * torch.tensor([1.0, 0.0])  # a face seen from its side, to the last bit
    assert solved_by_cofactors(line.mT @ line, right).isfinite().all()


class Calls(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.add(function.overloadpacket._qualified_op_name)
        return function(*arguments, **(options or {}))


WAITING = {
    "aten::_local_scalar_dense",  # item, tolist, a tensor as a condition
    "aten::nonzero",
    "aten::lift_fresh",  # a list of the host's as a tensor
    "aten::_linalg_check_errors",
    "aten::linalg_solve",
    "aten::masked_select",
    "aten::_unique2",
}


def test_no_host_waits_for_windows(monkeypatch) -> None:
    """On a device that has no numbers at all: who asks for one fails, and who copies a list there is seen."""

    def drawn(photo, photo_xy, xy, heights, triangles, size):
        assert {x.device.type for x in (photo, photo_xy, xy, heights, triangles)} == {"meta"}
        return photo.new_empty(len(xy), 3, size, size), photo.new_empty(len(xy), 1, size, size)

    for module in (window_inputs, unseen_mouth):
        monkeypatch.setattr(module, "moved_photo", drawn)
    monkeypatch.setattr(window_inputs, "polygon_distance", lambda x, size: x.new_empty(len(x), 1, size, size))
    monkeypatch.setattr(
        window_geometry, "affine_photo", lambda x, maps, size: x.new_empty(len(maps), 3, size, size)
    )
    photo, mesh, camera, picture = scene()
    arguments = moved(photo, "meta"), mesh.to("meta"), camera.to("meta"), picture.to("meta")
    renderer = WindowRenderer().to("meta", torch.bfloat16)
    with torch.no_grad():
        renderer.paint(*arguments)  # constants are made at the first call
        with Calls() as calls:
            renderer.paint(*arguments)
    assert "aten::scatter_add_" in calls.names and "aten::convolution" in calls.names
    assert not calls.names & WAITING


def test_waiting_would_be_seen() -> None:
    with Calls() as calls:
        WindowGeometry(
            *(torch.rand(1, *s) for s in ((3, 8, 8), (478, 2), (478, 2), (478, 2), (478,)))
        ).moved_xy[:, [1, 2]]
        torch.ones(1).item()
    assert {"aten::lift_fresh", "aten::_local_scalar_dense"} <= calls.names


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@torch.no_grad()
def test_frames_are_painted_on_cuda_as_on_a_cpu_and_the_host_does_not_wait(precision: torch.dtype) -> None:
    renderer, (photo, mesh, camera, picture) = trained().to(precision), scene()
    wanted, found = picture.clone(), picture.cuda()
    renderer.paint(photo, mesh, camera, wanted)
    arguments = moved(photo, "cuda"), mesh.cuda(), camera.to("cuda")
    renderer.cuda().paint(*arguments, picture.cuda())  # compiles, and makes constants
    torch.cuda.set_sync_debug_mode("error")
    try:
        renderer.paint(*arguments, found)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    off = (found.cpu() - wanted).abs()
    # convolutions compute in TF32 there; a pixel on the rim of a face may fall to either side
    assert off.mean() < 1e-4 and (off > 0.03).float().mean() < 1e-4


@pytest.mark.gpu
@on_a_gpu
@torch.no_grad()
def test_painting_can_be_captured_and_played_again_for_other_frames() -> None:
    """What a CUDA graph can hold asks the host for nothing."""
    renderer, (photo, mesh, camera, picture) = trained().cuda(), scene()
    photo, camera, mesh, picture = moved(photo, "cuda"), camera.to("cuda"), mesh.cuda(), picture.cuda()
    other = mesh.roll(1, 0)
    wanted = picture.clone()
    renderer.paint(photo, other, camera, wanted)
    held_mesh, held = mesh.clone(), picture.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        renderer.paint(photo, held_mesh, camera, held.clone())
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        renderer.paint(photo, held_mesh, camera, held)
    held_mesh.copy_(other)
    held.copy_(picture)
    graph.replay()
    torch.testing.assert_close(held, wanted, atol=1e-4, rtol=0)
