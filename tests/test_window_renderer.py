"""Tests of the window renderer: the moved photo, its maps, the painters, and how windows get into frames."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sdtalk.camera import FACING, FRAME_SIZE, Camera
from sdtalk.motion.face_motion import moved_face
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.moved_photo import (
    affine_photo,
    affine_photo_reference,
    moved_photo,
    moved_photo_reference,
    polygon_distance,
    polygon_distance_reference,
)
from sdtalk.rendering.window_geometry import WindowGeometry
from sdtalk.rendering.window_inputs import number_count, plane_count, window_inputs
from sdtalk.rendering.window_painter import WindowPainter
from sdtalk.rendering.window_renderer import EYE_WIDTH, MOUTH_WIDTH, PhotoFace, WindowRenderer
from sdtalk.tracking.face_model import UPPER_INNER_LIP, FaceModel, eye_state

FACE = FaceModel.bundled()
SHUT = torch.tensor([[-0.03, -0.03, 0.0, -0.03, -0.03, 0.0]])


def smooth_picture(seed: int = 0) -> Tensor:
    coarse = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (FRAME_SIZE, FRAME_SIZE), mode="bicubic").clamp(0, 1)


def facing(shift: float = 0.0) -> Camera:
    return Camera.from_pose(FACING[None], torch.tensor([[shift, 0.0, 9.5]]))


def opened(amount: float) -> Tensor:
    return moved_face(FACE.mean_face[None], torch.tensor([[amount, 0.0, 0.0, 0.0, 0.0]]), torch.zeros(1, 6))


def geometry_of(window: FaceWindow, mesh: Tensor, camera: Camera | None = None) -> WindowGeometry:
    camera = camera or facing()
    rest, moved = camera.project(FACE.mean_face[None]), camera.project(mesh)
    photo_xy = facing().project(FACE.mean_face[None])
    heights = -camera.to_camera_space(mesh)[..., 2]
    corner = (moved[:, list(window.outline)].mean(1) - window.size / 2).round()
    return WindowGeometry(smooth_picture(), photo_xy, rest, moved, heights).within(corner)


def trained() -> WindowRenderer:
    torch.manual_seed(0)
    renderer = WindowRenderer()
    for painter in (renderer.mouth, renderer.eyes):
        torch.nn.init.normal_(painter.out.weight, std=0.05)
    return renderer


def photo_face() -> PhotoFace:
    mesh = FACE.mean_face[None]
    return PhotoFace(smooth_picture(), mesh, facing().project(mesh))


def render(
    renderer: WindowRenderer, mesh: Tensor, camera: Camera | None = None, seed: int = 1
) -> tuple[Tensor, Tensor]:
    alpha = torch.full((len(mesh), 1, FRAME_SIZE, FRAME_SIZE), 0.5)
    colours = 0.5 * smooth_picture(seed).expand(len(mesh), -1, -1, -1)
    return renderer(photo_face(), mesh, camera or facing(), colours, alpha)


@pytest.mark.parametrize("window", [MOUTH, RIGHT_EYE], ids=["mouth", "eye"])
def test_the_compiled_kernels_draw_what_plain_pytorch_draws(window: FaceWindow) -> None:
    g = geometry_of(window, moved_face(FACE.mean_face[None], torch.tensor([[0.6, 1.0, 0, 0, 0]]), SHUT))
    triangles = torch.cat([FACE.triangles, FACE.mouth_triangles])
    arguments = (g.photo, g.photo_xy, g.moved_xy, g.heights, triangles, window.size)
    for ours, theirs in zip(moved_photo(*arguments), moved_photo_reference(*arguments), strict=True):
        assert (
            (ours - theirs).abs() > 1e-4
        ).float().mean() < 1e-3  # a pixel on an edge may fall to either side
    ring = g.moved_xy[:, list(window.opening)]
    plain = torch.nn.functional.interpolate(
        polygon_distance_reference(ring, window.size)[:, None], scale_factor=2.0, mode="bilinear"
    )
    torch.testing.assert_close(polygon_distance(ring, window.size), plain, atol=1e-4, rtol=0)


def test_affine_photos_are_those_of_plain_pytorch() -> None:
    photos = torch.cat([smooth_picture(0), smooth_picture(1)])[..., 100:160, 50:130]
    maps = torch.tensor([[1.0, 0.2, -3.5], [-0.2, 1.1, 4.0]]).repeat(4, 1, 1) + 0.1 * torch.randn(4, 2, 3)
    found, plain = affine_photo(photos, maps, 64), affine_photo_reference(photos, maps, 64)
    torch.testing.assert_close(found, plain, atol=2e-4, rtol=0)
    # each photo is that of as many windows in a row
    again = affine_photo(photos.repeat_interleave(2, 0), maps, 64)
    assert torch.equal(found, again)


def test_the_distance_to_a_square_is_the_distance_to_a_square() -> None:
    square = torch.tensor([[[20.0, 20.0], [60.0, 20.0], [60.0, 60.0], [20.0, 60.0]]])
    distance = polygon_distance_reference(square, 80)[0]
    at = torch.arange(40) * 2.0 + 1
    beyond = torch.stack(torch.meshgrid((at - 40).abs() - 20, (at - 40).abs() - 20, indexing="ij"))
    wanted = beyond.clamp_min(0).norm(dim=0) + beyond.amax(0).clamp_max(0)
    torch.testing.assert_close(distance, wanted, atol=1e-4, rtol=0)


def test_in_the_photos_own_state_windows_are_the_photo() -> None:
    """However the painters are trained."""
    colours, alpha = render(trained(), FACE.mean_face[None])
    painted = (alpha > 0.99999)[0, 0]
    assert painted.sum() > 5000
    torch.testing.assert_close(colours[0, :, painted], smooth_picture()[0, :, painted], atol=1e-4, rtol=0)


def test_outside_the_windows_frames_stay_as_they_were() -> None:
    before = 0.5 * smooth_picture(1)
    colours, alpha = render(trained(), opened(0.7))
    xy = facing().project(opened(0.7))[0, :468]
    far = torch.ones(FRAME_SIZE, FRAME_SIZE, dtype=torch.bool)
    for points, window in (
        (MOUTH.outline, MOUTH),
        (RIGHT_EYE.outline, RIGHT_EYE),
        (FACE.mirror[list(RIGHT_EYE.outline)].tolist(), RIGHT_EYE),
    ):
        x, y = (xy[list(points)].mean(0) - window.size / 2).round().int().tolist()
        far[y : y + window.size, x : x + window.size] = False
    assert torch.equal(colours[0, :, far], before[0, :, far]) and (alpha[0, 0, far] == 0.5).all()
    assert not torch.equal(colours, before)


def test_a_face_in_the_mirror_is_painted_in_the_mirror() -> None:
    """Eyes only: the mouth's painter need not be symmetric."""
    renderer = trained()
    torch.nn.init.zeros_(renderer.mouth.out.weight)
    flip = torch.tensor([-1.0, 1.0, 1.0])
    right_shut = moved_face(FACE.mean_face[None], torch.zeros(1, 5), SHUT * torch.tensor([1, 1, 1, 0, 0, 0]))
    left_shut = right_shut[:, FACE.mirror] * flip
    photo = photo_face()
    mirrored = replace(photo, image=photo.image.flip(-1))
    empty = torch.zeros(1, 3, FRAME_SIZE, FRAME_SIZE), torch.zeros(1, 1, FRAME_SIZE, FRAME_SIZE)
    one, _ = renderer(photo, right_shut, facing(), *empty)
    other, _ = renderer(mirrored, left_shut, facing(), *empty)
    torch.testing.assert_close(one, other.flip(-1), atol=2e-3, rtol=0)


def test_frames_together_are_each_alone_also_beyond_the_border() -> None:
    meshes = torch.cat([opened(0.1), opened(0.8)])
    camera = Camera.from_pose(FACING.repeat(2, 1, 1), torch.tensor([[0.0, 0.0, 9.5], [0.75, 0.2, 9.5]]))
    renderer = trained()
    colours, alpha = render(renderer, meshes, camera)
    assert (alpha[1] > 0.999).any()  # half of the face is still in the frame
    for i in range(2):
        one = slice(i, i + 1)
        alone = render(renderer, meshes[one], camera[one])
        torch.testing.assert_close(colours[one], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(alpha[one], alone[1], atol=1e-6, rtol=0)


def test_the_lips_move_and_the_upper_teeth_stay() -> None:
    """Inside of opening lips the base is the photo's inside, as rigid as the skull is."""
    photo_open, wide = opened(0.5), geometry_of(MOUTH, opened(0.9))
    corner = (facing().project(opened(0.9))[:, list(MOUTH.outline)].mean(1) - MOUTH.size / 2).round()
    g = replace(
        wide, photo_xy=facing().project(photo_open), rest_xy=facing().project(photo_open) - corner[:, None]
    )
    inputs = window_inputs(MOUTH, g)
    lip = g.rest_xy[0, UPPER_INNER_LIP[4:7]].mean(0)
    x, y = (lip + torch.tensor([0.0, 4.0])).int().tolist()  # below the upper lip, where teeth are
    left, top = corner[0].int().tolist()
    real = smooth_picture()[0, :, top + y, left + x]
    assert (inputs.base[0, :, y, x] - real).abs().max() < 0.03


def test_an_untrained_painter_leaves_the_base_and_a_frame_costs_less_than_three_gflop() -> None:
    for window in (MOUTH, RIGHT_EYE):
        inputs = window_inputs(window, geometry_of(window, opened(0.7)))
        correction = WindowPainter(window, 8)(inputs.planes, inputs.numbers)
        assert torch.equal(inputs.painted(correction), inputs.base)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        for window, width, count in ((MOUTH, MOUTH_WIDTH, 1), (RIGHT_EYE, EYE_WIDTH, 2)):
            planes = torch.empty(count, plane_count(window), window.size, window.size)
            WindowPainter(window, width)(planes, torch.empty(count, number_count(window)))
    assert counter.get_total_flops() < 3e9


def test_gradients_pass_through_to_what_was_rasterised_and_to_the_painters() -> None:
    renderer = trained()
    colours = smooth_picture(1).requires_grad_()
    painted, _ = renderer(
        photo_face(), opened(0.7), facing(), colours, torch.ones(1, 1, FRAME_SIZE, FRAME_SIZE)
    )
    painted.square().sum().backward()
    assert colours.grad is not None and (colours.grad != 0).float().mean() > 0.9
    for painter in (renderer.mouth, renderer.eyes):
        gradient = painter.out.weight.grad
        assert gradient is not None and torch.isfinite(gradient).all()
    assert renderer.mouth.out.weight.grad.any()  # type: ignore[union-attr]


def test_the_moved_face_has_the_state_that_was_asked_for() -> None:
    code = torch.tensor([[0.4, 1.0, -0.5, 0.3, 0.2]])
    moved = moved_face(FACE.mean_face[None], code, SHUT)
    measured = FACE.mouth_code(torch.cat([FACE.mean_face[None], moved]))
    torch.testing.assert_close(measured[1:] - measured[:1], code, atol=0.05, rtol=0.05)
    eyes = eye_state(torch.cat([FACE.mean_face[None], moved]))
    change = (eyes[1] - eyes[0])[[0, 1, 3, 4]]
    assert (change / -0.03 - 1).abs().max() < 0.4  # outer and inner gap share one mode
    assert change[0] == pytest.approx(change[2].item(), abs=2e-3)  # both eyes alike
    gaze = torch.tensor([[[0.02, 0.0, 0.0], [0.0, 0.01, 0.0]]])
    looked = moved_face(FACE.mean_face[None], torch.zeros(1, 5), torch.zeros(1, 6), gaze)
    torch.testing.assert_close(looked[0, 470] - FACE.mean_face[470], gaze[0, 0])
    torch.testing.assert_close(looked[0, 475] - FACE.mean_face[475], gaze[0, 1])


def test_geometry_mirrored_twice_is_itself() -> None:
    g = geometry_of(MOUTH, opened(0.3))
    twice = g.mirrored(MOUTH.size).mirrored(MOUTH.size)
    for field in fields(g):
        torch.testing.assert_close(getattr(twice, field.name), getattr(g, field.name), atol=1e-3, rtol=0)
