"""Tests of fitting FLAME to landmarks: known heads are recovered despite noise, outliers and gaps."""

from dataclasses import fields, replace

import pytest
import torch
from face_like_flame import face_like_flame, random_heads
from made_up_flame import made_up_flame
from made_up_heads import turned
from torch import Tensor
from torch.func import jacrev, vmap

from sdtalk.camera import Camera
from sdtalk.flame import fit as flame_fit
from sdtalk.flame.fit import FlameFit, fit_flame, fit_flame_video
from sdtalk.flame.landmarks import FlameLandmarks
from sdtalk.flame.layer import FlameModel, FlameParameters
from sdtalk.tracking.landmarks68 import FIRST_MESH_LANDMARK, MESH_NUMBERS, all_landmarks

MODEL = face_like_flame()


def cameras(count: int, seed: int) -> Camera:
    """Yaw up to 35 degrees, pitch and roll up to 20, any place in the picture."""
    random = torch.rand(6, count, generator=seeded(seed)) * 2 - 1
    rotation = turned(35 * random[0], 20 * random[1], 20 * random[2])
    place = torch.stack([0.2 * random[3], 0.2 * random[4], 9.5 + 1.5 * random[5]], dim=1)
    return Camera.from_pose(rotation, place)


def rendered(heads: FlameParameters, camera: Camera, model: FlameModel = MODEL) -> Tensor:
    return camera.project(model.landmarks(model.vertices(heads)))


def error_px(fit: FlameFit, true_px: Tensor) -> Tensor:
    """Mean distance to the landmarks as they really are, a picture."""
    return (rendered(fit.parameters, fit.camera) - true_px).norm(dim=2).mean(1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noisy(landmarks_px: Tensor, seed: int) -> Tensor:
    return landmarks_px + 2 * torch.randn(landmarks_px.shape, generator=seeded(seed))


HEADS, CAMERAS = random_heads(24, seed=1), cameras(24, seed=2)
SEEN = rendered(HEADS, CAMERAS)


# ---- landmarks without the rest of the model


@pytest.mark.parametrize("model", [MODEL, made_up_flame()], ids=["like a face", "random"])
def test_landmarks_alone_lie_where_the_whole_model_has_them(model: FlameModel) -> None:
    alone = FlameLandmarks.of(model, 300, 100)
    code = torch.cat([HEADS.shape, HEADS.expression], dim=1).double()
    angles = torch.cat([HEADS.jaw, HEADS.eyes], dim=1).unflatten(1, (3, 3)).double()
    expected = model.landmarks(model.vertices(HEADS)).double()
    torch.testing.assert_close(alone.place(code, angles), expected, atol=2e-6, rtol=0)
    person = alone.with_shape(code[3, :300])
    torch.testing.assert_close(person.place(code[3:4, 300:], angles[3:4])[0], expected[3], atol=2e-6, rtol=0)


def test_derivatives_of_landmarks_are_autograds() -> None:
    alone = FlameLandmarks.of(made_up_flame(), 5, 4)
    code = torch.randn(3, 9, generator=seeded(11), dtype=torch.float64)
    angles = 0.3 * torch.randn(3, 3, 3, generator=seeded(12), dtype=torch.float64)
    angles[0] = 0

    def placed(one_code: Tensor, one_angles: Tensor) -> Tensor:
        return alone.place(one_code[None], one_angles[None])[0]

    by_code, by_angle = vmap(jacrev(placed, argnums=(0, 1)))(code, angles)
    points, found_by_code, found_by_angle = alone.derivatives(code, angles)
    torch.testing.assert_close(points, alone.place(code, angles))
    torch.testing.assert_close(found_by_code, by_code)
    torch.testing.assert_close(found_by_angle, by_angle.flatten(3))


# ---- single pictures


def test_known_heads_are_recovered() -> None:
    fit = fit_flame(SEEN, MODEL)
    errors = error_px(fit, SEEN)
    assert errors.mean() < 0.5 and errors.max() < 0.7
    torch.testing.assert_close(fit.landmarks, MODEL.landmarks(MODEL.vertices(fit.parameters)))
    torch.testing.assert_close(fit.error_px, errors, atol=1e-3, rtol=0)
    turn = fit.camera.rotation.mT @ CAMERAS.rotation
    degrees = ((turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(max=1).acos().rad2deg()
    assert degrees.mean() < 1.5 and degrees.max() < 4
    assert (fit.parameters.jaw - HEADS.jaw)[:, 0].abs().mean() < 0.01
    assert (fit.parameters.eyes - HEADS.eyes).abs().mean() < 0.02
    assert (fit.camera.translation - CAMERAS.translation)[:, 2].abs().mean() < 0.1
    face = slice(0, 478)
    off = (MODEL.vertices(fit.parameters) - MODEL.vertices(HEADS))[:, face].norm(dim=2)
    assert off.mean() < 0.01, "2 mm, in places without landmarks, too"
    assert not fit.parameters.rotation.any() and not fit.parameters.neck.any()


def test_an_average_head_has_no_coefficients() -> None:
    average = FlameParameters.zeros(3, MODEL)
    camera = cameras(3, seed=3)
    fit = fit_flame(rendered(average, camera), MODEL)
    for field in fields(average):
        assert getattr(fit.parameters, field.name).abs().max() < 1e-4, field.name
    torch.testing.assert_close(fit.camera.world_to_camera, camera.world_to_camera, atol=1e-3, rtol=0)


def test_fit_averages_over_noise() -> None:
    """Landmarks that are 2 px off in x and y (2.5 px on average) give a head that is closer to the truth."""
    assert error_px(fit_flame(noisy(SEEN, 13), MODEL), SEEN).mean() < 1.75
    assert error_px(fit_flame(noisy(SEEN, 13), MODEL, noise_px=2.0), SEEN).mean() < 1.6


def test_missing_landmarks_and_outliers_are_borne() -> None:
    chance = torch.rand(SEEN.shape[:2], generator=seeded(14))
    gappy, wild = noisy(SEEN, 15), noisy(SEEN, 16)
    gappy[chance < 0.1] = torch.nan
    wild[chance < 0.05] += 60.0
    assert error_px(fit_flame(gappy, MODEL), SEEN).mean() < 2.0
    assert error_px(fit_flame(wild, MODEL), SEEN).mean() < 2.0
    half = SEEN[:1].clone()
    half[0, ::7, 0] = torch.nan
    assert error_px(fit_flame(half, MODEL), SEEN[:1]) < 1.0, "a landmark without x is a missing landmark"


def test_without_pupils_eyes_look_ahead() -> None:
    fit = fit_flame(SEEN[:, :68], MODEL)
    assert (rendered(fit.parameters, fit.camera) - SEEN)[:, :68].norm(dim=2).mean() < 0.5
    assert fit.parameters.eyes.abs().max() < 1e-3 < HEADS.eyes.abs().max()


def test_a_model_may_have_its_landmarks_in_any_order() -> None:
    numbers = torch.randperm(70, generator=seeded(17))[:60]
    few = FlameModel(
        **{f.name: getattr(MODEL, f.name) for f in fields(MODEL) if not f.name.startswith("landmark")},
        landmark_triangles=MODEL.landmark_triangles[numbers],
        landmark_weights=MODEL.landmark_weights[numbers],
        landmark_numbers=numbers,
    )
    fit = fit_flame(SEEN, few)
    assert (rendered(fit.parameters, fit.camera, few) - SEEN[:, numbers]).norm(dim=2).mean() < 0.5


def test_pictures_do_not_mix_and_their_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_flame(SEEN[:5], MODEL)
    alone = fit_flame(SEEN[2:3], MODEL)
    monkeypatch.setattr(flame_fit, "CHUNK", 2)
    chunked = fit_flame(SEEN[:5], MODEL)
    small = fit_flame(SEEN[:5] / 2, MODEL, size=256)
    for other, picture in ((alone, slice(2, 3)), (chunked, slice(0, 5)), (small, slice(0, 5))):
        torch.testing.assert_close(
            rendered(other.parameters, other.camera.resized(512)),
            rendered(whole.parameters, whole.camera)[picture],
            atol=0.02,
            rtol=0,
        )
    torch.testing.assert_close(small.error_px, whole.error_px / 2, atol=0.01, rtol=0)
    assert small.camera.width == 256 and small.camera.intrinsics[0, 0, 0] == 1536


def test_too_few_landmarks_are_an_error() -> None:
    blind = SEEN[:2].clone()
    blind[1, 5:] = torch.nan
    with pytest.raises(ValueError, match="a picture has 5 landmarks, at least 12 are needed"):
        fit_flame(blind, MODEL)


# ---- videos


def test_frames_of_a_video_share_the_shape() -> None:
    heads, camera = random_heads(150, seed=7, people=1), cameras(150, seed=8)
    seen = rendered(heads, camera)
    fit = fit_flame_video(seen, MODEL)
    assert (fit.parameters.shape == fit.parameters.shape[0]).all()
    assert error_px(fit, seen).mean() < 0.5
    torch.testing.assert_close(fit.error_px, error_px(fit, seen), atol=1e-3, rtol=0)
    assert (fit.parameters.jaw - heads.jaw)[:, 0].abs().mean() < 0.01
    # Many views of one head tell more of it than one view does.
    off = (MODEL.vertices(fit.parameters[:30]) - MODEL.vertices(heads[:30]))[:, :478].norm(dim=2).mean()
    single = fit_flame(seen[:30], MODEL).parameters
    assert off < 0.8 * (MODEL.vertices(single) - MODEL.vertices(heads[:30]))[:, :478].norm(dim=2).mean()


def test_noisy_gappy_videos_are_borne() -> None:
    heads, camera = random_heads(60, seed=9, people=1), cameras(60, seed=10)
    seen = rendered(heads, camera)
    measured = noisy(seen, 18)
    measured[torch.rand(seen.shape[:2], generator=seeded(19)) < 0.1] = torch.nan
    assert error_px(fit_flame_video(measured, MODEL), seen).mean() < 2.0


def test_a_video_may_have_one_frame() -> None:
    assert error_px(fit_flame_video(SEEN[:1], MODEL), SEEN[:1]) < 0.7


def test_landmarks_may_be_points_of_the_face_mesh() -> None:
    """An embedding of mesh points fits as that of the same points under the numbers of the 68 does."""
    of_68 = replace(
        MODEL,
        landmark_triangles=MODEL.landmark_triangles[17:68],
        landmark_weights=MODEL.landmark_weights[17:68],
        landmark_numbers=MODEL.landmark_numbers[17:68],
    )
    of_mesh = replace(of_68, landmark_numbers=FIRST_MESH_LANDMARK + torch.tensor(MESH_NUMBERS[17:]))
    mesh_px = torch.full((4, 478, 2), torch.nan)
    mesh_px[:, MESH_NUMBERS] = SEEN[:4, :68]
    by_68, by_mesh = fit_flame(SEEN[:4], of_68), fit_flame(all_landmarks(mesh_px), of_mesh)
    torch.testing.assert_close(by_mesh.camera.world_to_camera, by_68.camera.world_to_camera)
    torch.testing.assert_close(by_mesh.parameters.expression, by_68.parameters.expression)
    with pytest.raises(ValueError, match="0 landmarks"):
        fit_flame(SEEN[:4], of_mesh)
