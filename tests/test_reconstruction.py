"""Tests of reconstruction from a portrait to Gaussians: drawn mesh, priors, activations, reconstructor."""

from dataclasses import replace

import pytest
import torch
from made_up_heads import FACE, seen, turned, with_opening
from torch import Tensor

from sdtalk.camera import FACING, Camera
from sdtalk.config import SDTalkConfig
from sdtalk.gaussians import Gaussians
from sdtalk.reconstruction.activations import (
    GaussianPrior,
    free_gaussians,
    gaussians_from,
    lifted_offset,
    raw_channels,
)
from sdtalk.reconstruction.completion_branch import part_priors
from sdtalk.reconstruction.layer_prior import BACK_SIGMA, CELL_SIGMA, LayerPrior, LayerPriors, layer_priors
from sdtalk.reconstruction.mesh_raster import distance_to, draw_mesh, fill_outwards
from sdtalk.reconstruction.prior import NAPE_END, NAPE_TOP, head_weight, lifting_rays, plane_prior
from sdtalk.reconstruction.reconstructor import Reconstructor, foreground
from sdtalk.reconstruction.surface import identity_quats, surface_frames
from sdtalk.reconstruction.visible_branch import LEAST_THICKNESS, VisibleBranch
from sdtalk.rendering.rasteriser import rasterise
from sdtalk.tracking.completion import COMPLETION_PARTS, CompletionTemplate
from sdtalk.tracking.face_model import eye_state
from sdtalk.tracking.head_track import HeadTrack

SIZE = 64


def front_camera() -> Camera:
    return Camera.from_pose(FACING[None], torch.tensor([[0.0, 0.0, 9.5]]))


def track_of(mesh: Tensor, camera: Camera) -> HeadTrack:
    return HeadTrack(camera, mesh, CompletionTemplate.bundled().place(mesh), eye_state(mesh))


def test_a_drawn_triangle_interpolates_its_corners_and_the_higher_one_wins() -> None:
    positions = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]).repeat(2, 1)
    heights = torch.tensor([0.0, 0.0, 0.0, 1.0, -1.0, -1.0])
    values = torch.cat([positions[:3], positions[3:] + 100])
    drawn = draw_mesh(positions, heights, values, torch.tensor([[0, 1, 2], [3, 4, 5]]), 8)
    torch.testing.assert_close(drawn.values[:, 5, 1], torch.tensor([1.5, 5.5]))  # the first is higher here
    torch.testing.assert_close(drawn.values[:, 0, 0], torch.tensor([100.5, 100.5]))  # and the second here
    assert drawn.triangle[7, 7] == -1 and (drawn.values[:, 7, 7] == 0).all()


def test_a_degenerate_triangle_draws_nothing() -> None:
    line = torch.tensor([[1.0, 1.0], [4.0, 4.0], [6.0, 6.0]])
    assert (draw_mesh(line, torch.zeros(3), line, torch.tensor([[0, 1, 2]]), 8).triangle == -1).all()


def test_distance_is_that_of_brute_force() -> None:
    mask = torch.zeros(40, 40, dtype=torch.bool)
    mask[10:14, 20:30] = True
    cells = torch.stack(torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij"), -1)
    brute = torch.cdist(cells.reshape(-1, 2), cells[mask]).amin(1).reshape(40, 40)
    assert (distance_to(mask) - brute).abs().max() < 2.5 and (distance_to(mask)[mask] == 0).all()


def test_filling_keeps_what_is_known_and_stays_in_its_range() -> None:
    values, known = torch.rand(2, 33, 33), torch.rand(33, 33) > 0.9
    filled = fill_outwards(values, known)
    assert torch.equal(filled[:, known], values[:, known])
    assert filled.min() >= values[:, known].min() - 1e-5 and filled.max() <= values[:, known].max() + 1e-5


def test_lifting_along_rays_keeps_a_point_on_its_pixel() -> None:
    camera = Camera.from_pose(turned(*torch.tensor([[20.0], [5.0], [3.0]])), torch.tensor([[0.1, 0.0, 9.0]]))
    plane = camera.lifting_plane(8)
    lifted = plane + 0.4 * lifting_rays(camera, plane)
    torch.testing.assert_close(camera.project(lifted), camera.project(plane), atol=2e-2, rtol=0)
    heights = (lifted * camera.plane_normal[:, None]).sum(-1)
    torch.testing.assert_close(heights, torch.full((1, 64), 0.4), atol=1e-4, rtol=0)


def test_the_prior_puts_the_plane_on_the_mesh() -> None:
    mesh, camera = with_opening(0.5), front_camera()
    prior = plane_prior(camera, mesh, FACE, 128)
    plane = camera.lifting_plane(128)
    lifted = (plane + lifting_rays(camera, plane) * prior.offset.reshape(1, -1, 1))[0]
    skin = mesh[0, [4, 50, 280, 10, 152]]  # nose tip, cheeks, forehead, chin
    assert torch.cdist(skin, lifted).amin(1).max() < 0.02


def test_the_prior_sees_every_face_on_the_canonical_one() -> None:
    camera = front_camera()
    prior = plane_prior(camera, with_opening(0.0), FACE, 256)
    cells = (camera.project(with_opening(0.0))[0, [4, 50, 280]] / 2).long()
    found = prior.canonical[:, cells[:, 1], cells[:, 0]].T
    torch.testing.assert_close(found, FACE.canonical_face[[4, 50, 280]], atol=0.03, rtol=0)


def test_what_shows_between_lips_and_lids_does_not_move_with_the_face() -> None:
    mesh, camera = with_opening(1.0), front_camera()
    prior = plane_prior(camera, mesh, FACE, 256)
    mouth = (camera.project(mesh)[0, [13, 14]].mean(0) / 2).long()
    cheek = (camera.project(mesh)[0, 50] / 2).long()
    assert prior.support[0, mouth[1], mouth[0]] == 0 and prior.support[0, cheek[1], cheek[0]] == 1
    assert prior.support[0, 0, 0] == 0 and (prior.back_offset < prior.offset).all()


def test_head_weight_falls_from_chin_to_shoulders() -> None:
    mesh = FACE.mean_face
    heights = torch.linspace(float(mesh[10, 1]), float(mesh[152, 1]) - 1.0, 50)
    weight = head_weight(torch.stack([torch.zeros(50), heights, torch.zeros(50)], 1), mesh)
    assert weight[0] == 1 and weight[-1] == 0 and (weight.diff() <= 1e-6).all()


def test_raw_zeros_give_the_prior() -> None:
    prior = GaussianPrior(
        torch.nn.functional.normalize(torch.randn(1, 9, 4), dim=-1),
        torch.rand(1, 9, 3) + 0.01,
        torch.rand(1, 9) * 0.9 + 0.05,
        torch.rand(1, 9, 3),
        torch.randn(1, 9, 3),
    )
    means = torch.randn(1, 9, 3)
    gaussians = gaussians_from(means, torch.zeros(1, 9, raw_channels(12)), prior)
    assert torch.equal(gaussians.means, means)
    torch.testing.assert_close(gaussians.scales, prior.scales)
    torch.testing.assert_close(gaussians.opacities, prior.opacities)
    torch.testing.assert_close(gaussians.features[..., :6], torch.cat([prior.colours, prior.source], -1))
    torch.testing.assert_close(gaussians.quats, prior.quats)
    assert gaussians.features.shape[-1] == 12
    assert torch.equal(lifted_offset(torch.zeros(4), torch.arange(4.0)), torch.arange(4.0))


@pytest.mark.parametrize("priors", [True, False])
@pytest.mark.parametrize("size", [0.5, 30.0])
def test_any_raw_values_give_valid_gaussians(size: float, priors: bool) -> None:
    quats = torch.nn.functional.normalize(torch.randn(1, 200, 4), dim=-1)
    prior = GaussianPrior(quats, *(torch.rand(1, 200, *n) for n in ((3,), (), (3,), (3,))))
    means, raw = torch.rand(1, 200, 3), torch.randn(1, 200, raw_channels(12)) * size
    gaussians = gaussians_from(means, raw, prior) if priors else free_gaussians(means, raw)
    torch.testing.assert_close(gaussians.quats.norm(dim=-1), torch.ones(1, 200))
    assert (gaussians.scales >= 0).all() and 0 <= gaussians.opacities.min() and gaussians.opacities.max() <= 1
    assert 0 <= gaussians.features[..., :3].min() and gaussians.features[..., :3].max() <= 1


def test_every_completion_point_has_a_prior() -> None:
    scales, _, tint, from_photo = part_priors(1920)
    assert (scales > 0).all() and (tint[~from_photo] > 0).all()
    assert (
        not from_photo[COMPLETION_PARTS["upper_teeth"]].any() and from_photo[COMPLETION_PARTS["lips"]].all()
    )


def tiny_reconstructor() -> Reconstructor:
    torch.manual_seed(0)
    config = SDTalkConfig(
        encoder_width=8, local_channels=8, global_width=8, plane_size=SIZE, template_width=8
    )
    return Reconstructor(replace(config, feature_channels=8))


def with_a_learned_back(std: float) -> Reconstructor:
    """Its hidden layer is anything."""
    reconstructor = tiny_reconstructor()
    with torch.no_grad():
        for parameter in reconstructor.visible_branch.back.parameters():
            parameter.normal_(std=std)
    return reconstructor


def test_an_untrained_reconstruction_shows_the_photo_in_place() -> None:
    camera, mesh = front_camera(), with_opening(0.2)
    image = torch.rand(1, 3, 512, 512)
    head = tiny_reconstructor()(image, torch.ones(1, 1, 512, 512), track_of(mesh, camera))
    front = head.visible.means[:, SIZE * SIZE :]
    expected = camera.project(camera.lifting_plane(SIZE))
    torch.testing.assert_close(camera.project(front), expected, atol=0.05, rtol=0)
    colours = torch.nn.functional.interpolate(image, size=(SIZE, SIZE), mode="bilinear", antialias=True)
    got = head.visible.features[0, SIZE * SIZE :, :3].T.reshape(3, SIZE, SIZE)
    torch.testing.assert_close(got, colours[0], atol=1e-5, rtol=0)


def test_however_it_has_learned_the_hidden_layer_stays_behind() -> None:
    camera, reconstructor = front_camera(), with_a_learned_back(2.0)
    image = torch.rand(1, 3, 512, 512)
    head = reconstructor(image, torch.ones(1, 1, 512, 512), track_of(with_opening(0.2), camera))
    heights = (head.visible.means @ camera.plane_normal[..., None])[0, :, 0]
    behind, before = heights[: SIZE * SIZE], heights[SIZE * SIZE :]
    assert behind.std() > 0.05  # it has learned something
    assert (before - behind).min() > LEAST_THICKNESS - 1e-4


def test_gaussians_lie_in_the_surface_that_was_learned() -> None:
    camera, reconstructor = front_camera(), tiny_reconstructor()
    with torch.no_grad():
        reconstructor.visible_branch.front.out.weight[0].normal_(std=20.0)  # heights alone
    image = torch.rand(1, 3, 512, 512)
    head = reconstructor(image, torch.ones(1, 1, 512, 512), track_of(with_opening(0.2), camera))
    plane = camera.lifting_plane(SIZE)
    rays, cell = lifting_rays(camera, plane), (plane[0, 1] - plane[0, 0]).norm()
    front = slice(SIZE * SIZE, None)
    height = ((head.visible.means[:, front] - plane) / rays)[0, :, 2].reshape(SIZE, SIZE)
    learned = height - plane_prior(camera, with_opening(0.2), FACE, SIZE).offset[0]
    assert learned.std() > cell  # steeper than any prior
    frames = surface_frames(height.detach(), plane[0], rays[0])
    scales = CELL_SIGMA * cell * frames.stretch
    torch.testing.assert_close(head.visible.scales[0, front], scales, rtol=1e-3, atol=1e-6)
    along = (head.visible.quats[0, front] * frames.quats).sum(-1).abs()
    assert along.min() > 1 - 1e-3


def test_what_lies_behind_a_jaw_does_not_show_before_the_neck_as_the_head_turns() -> None:
    """A jaw eight cells before a neck, both green, and red behind them."""
    camera = front_camera().resized(128)
    plane = camera.lifting_plane(SIZE)
    cell = (plane[0, 1] - plane[0, 0]).norm()
    jaw = (8 * cell * (torch.arange(SIZE) < SIZE / 2)).expand(SIZE, SIZE)
    turn = torch.tensor(0.35)
    yaw = torch.tensor([[turn.cos(), 0, turn.sin()], [0, 1, 0], [-turn.sin(), 0, turn.cos()]])
    aside = Camera.from_pose((FACING @ yaw)[None], camera.translation).resized(128)
    red, green = torch.eye(3)[:2]
    shown = {}
    for lying in (True, False):

        def layer(colour: Tensor, sigma: float, height: Tensor, lying: bool) -> LayerPrior:
            around = GaussianPrior(
                quats=identity_quats(plane),
                scales=torch.full((1, SIZE**2, 3), sigma * float(cell)),
                opacities=torch.full((1, SIZE**2), 0.99),
                colours=colour.expand(1, SIZE**2, 3),
                source=torch.zeros(1, SIZE**2, 3),
            )
            return LayerPrior(lifting_rays(camera, plane), height.reshape(1, -1), around, lying)

        layers = LayerPriors(layer(red, BACK_SIGMA, jaw, False), layer(green, CELL_SIGMA, jaw, lying))
        head = VisibleBranch(4, 8, 4)(torch.zeros(1, 4, SIZE, SIZE), plane, camera, layers)
        picture = rasterise(Gaussians.concatenate([head.back, head.front]), aside)
        shown[lying] = picture.features[0, 0, 32:96, 32:96].max()
    assert shown[True] < 0.2 < shown[False]


def test_a_jaw_before_a_background_goes_on_behind_it() -> None:
    """A green face whose jaw is the outline, red hair, white shoulders."""
    size, camera, mesh = 160, front_camera(), with_opening(0.2)
    prior = plane_prior(camera, mesh, FACE, size)
    face = prior.surround[0] < 0.5
    hair = ~face & (prior.canonical[1] > NAPE_TOP) & (distance_to(face) < 9)
    mask = face | hair | ((prior.head_weight[0] < 0.5) & (prior.canonical[1] < -1))
    colour = torch.ones(3, size, size)
    colour[0][face], colour[2][face | hair], colour[1][hair] = 0.0, 0.0, 0.0
    layers = layer_priors(colour[None], mask[None, None].float(), camera.lifting_plane(size), camera, [prior])
    back = layers.back.gaussians.colours[0].T.reshape(3, size, size)
    jaw = face & (prior.canonical[1] < NAPE_END) & (distance_to(~mask) < 1.5)
    assert jaw.sum() > 20
    assert back[0, jaw].max() < 0.1 and back[1, jaw].min() > 0.9 and back[2, jaw].max() < 0.1


def test_a_grey_photo_has_nothing_coloured_behind_it() -> None:
    camera, reconstructor = front_camera(), with_a_learned_back(0.5)
    coloured = torch.rand(1, 3, 512, 512)
    grey = coloured.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    hues = []
    for image in (grey, coloured):
        head = reconstructor(image, torch.ones(1, 1, 512, 512), track_of(with_opening(0.2), camera))
        back = head.visible.features[0, : SIZE * SIZE, :3]
        hues.append((back.amax(-1) - back.amin(-1)).max())
    assert hues[0] < 1e-5 and hues[1] > 0.1


def test_the_back_of_a_head_has_hair_and_no_face() -> None:
    """Red hair at the outline, a green face with a forehead, blue eyes and mouth, white shoulders."""
    camera, mesh = front_camera(), with_opening(0.5)
    prior = plane_prior(camera, mesh, FACE, SIZE)
    head = (prior.surround[0] < 1) | (distance_to(prior.surround[0] < 1) < 9)
    hair = head & (distance_to(~head) < 6)
    colour, mask = torch.zeros(3, SIZE, SIZE), head | (prior.head_weight[0] < 0.5)
    colour[1][head], colour[2][(prior.support[0] == 0) & (prior.surround[0] == 0)] = 1.0, 1.0
    for channel, value in enumerate((1.0, 0.0, 0.0)):
        colour[channel][hair] = value
    colour[:, ~head] = 1.0
    cells = camera.lifting_plane(SIZE)
    layers = layer_priors(colour[None], mask[None, None].float(), cells, camera, [prior])
    back = layers.back.gaussians.colours[0].T.reshape(3, SIZE, SIZE)
    above = head & (prior.canonical[1] > NAPE_TOP)
    assert above.sum() > 200 and back[0, above].min() > 0.9 and back[1:, above].max() < 0.1
    shoulders = mask & ~head & (distance_to(head) > 3)
    assert shoulders.sum() > 50 and back[:, shoulders].min() > 0.9
    everywhere = layer_priors(colour[None], torch.ones(1, 1, SIZE, SIZE), cells, camera, [prior])
    assert (
        everywhere.back.gaussians.colours.amax(-1).min() > 0.5
    )  # without an outline, what lies around the face


def test_a_batch_is_its_members_one_by_one() -> None:
    reconstructor = tiny_reconstructor()
    cameras = [
        front_camera(),
        Camera.from_pose(turned(*torch.tensor([[15.0], [0.0], [0.0]])), torch.tensor([[0, 0, 9.0]])),
    ]
    tracks = [track_of(with_opening(o), c) for o, c in zip((0.1, 0.8), cameras, strict=True)]
    both = HeadTrack(
        Camera(torch.cat([c.world_to_camera for c in cameras]), torch.cat([c.intrinsics for c in cameras])),
        *(torch.cat([getattr(t, name) for t in tracks]) for name in ("mesh", "completion_points", "eyes")),
    )
    image, mask = torch.rand(2, 3, 512, 512), torch.rand(2, 1, 512, 512)
    together = reconstructor(image, mask, both)
    alone = reconstructor(image[1:], mask[1:], tracks[1])
    torch.testing.assert_close(together.visible.means[1:], alone.visible.means, atol=1e-4, rtol=0)
    torch.testing.assert_close(together.completion.features[1:], alone.completion.features, atol=1e-4, rtol=0)


def test_foreground_keeps_the_person_and_forgets_the_background() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[..., :16] = 1.0
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., :16] = 1.0
    assert (foreground(image, mask) > 0.999).all()


def test_tracking_and_camera_agree() -> None:
    camera, mesh = front_camera(), with_opening(0.3)
    torch.testing.assert_close(seen(mesh, camera)[..., :2], camera.project(mesh))
