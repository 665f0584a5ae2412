"""Tests of the window painter's training: crops, pairs, losses, steps, the report, and the scripts."""

import json
from contextlib import closing
from dataclasses import fields
from itertools import combinations, islice
from pathlib import Path

import pytest
import torch
from made_up_data import make_prepared
from safetensors.torch import load_file

from sdtalk.checkpoint import load_model
from sdtalk.rendering.face_windows import MOUTH, RIGHT_EYE, FaceWindow
from sdtalk.rendering.window_inputs import window_inputs
from training.data.dataset import PreparedDataset, clip_frames
from training.mini import assemble_checkpoint, train_painter
from training.mini.painter_batches import batches
from training.mini.painter_data import FaceCrops, PairSampler, chosen_frames, load_crops
from training.mini.painter_fit import CRITIC_ALONE, PainterRun, PainterSettings
from training.mini.painter_losses import (
    Critic,
    FeatureLoss,
    critic_loss,
    evenness_loss,
    patch_weight,
    pixel_losses,
    pixel_weight,
    shade_loss,
)
from training.mini.painter_report import report_pairs, score_windows, summary


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return make_prepared(tmp_path_factory.mktemp("painter") / "set", splits=("train", "dev"))


@pytest.fixture(scope="module")
def crops(prepared: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> list[FaceCrops]:
    return load_crops(prepared, "train", tmp_path_factory.mktemp("crops"))


def test_crops_are_the_frames_pixels_and_are_cut_once(prepared: PreparedDataset, tmp_path: Path) -> None:
    crops = load_crops(prepared, "train", tmp_path)
    entry = prepared.index.of("train")[0]
    for number, picture, _ in clip_frames(prepared, entry):
        for cut, corner in (
            (crops[0].mouth[number], crops[0].mouth_corner[number]),
            (crops[0].eyes[number, 1], crops[0].eyes_corner[number, 1]),
        ):
            x, y = corner.int().tolist()
            height, width, _ = cut.shape
            wanted = (picture[:, y : y + height, x : x + width] * 255).round().byte().permute(1, 2, 0)
            assert torch.equal(cut, wanted)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = load_crops(prepared, "train", tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    assert torch.equal(again[1].mesh, crops[1].mesh)
    assert load_crops(prepared, "train", tmp_path, withheld={"made_up.mp4"}) == []


def test_widest_mouths_and_shut_eyes_are_chosen(prepared: PreparedDataset) -> None:
    clip = prepared.clip(prepared.index.of("train")[0])
    chosen = chosen_frames(clip, 6)
    gaps = clip.eyes[:, [0, 1, 3, 4]].mean(1)
    assert {
        0,
        clip.entry.frames - 1,
        int(gaps.argmin()),
        *(int(f(clip.mouth[:, 0])) for f in (torch.argmin, torch.argmax)),
    } <= set(chosen)


@pytest.mark.parametrize("window", [MOUTH, RIGHT_EYE], ids=["mouth", "eyes"])
def test_a_frame_paired_with_itself_is_its_own_base(crops: list[FaceCrops], window: FaceWindow) -> None:
    sampler = PairSampler(crops, window, seed=0, augment=False)
    pairs = sampler.pairs([(0, 2, 2), (1, 5, 5)])
    inputs = window_inputs(window, pairs.geometry)
    assert not inputs.freedom.any() and inputs.mask.sum() > 1000
    assert ((inputs.base - pairs.target).abs() * inputs.mask).max() < 2e-3


@pytest.mark.parametrize("window", [MOUTH, RIGHT_EYE], ids=["mouth", "eyes"])
def test_pairs_are_a_function_of_the_seed_and_augmentation_keeps_them_aligned(
    crops: list[FaceCrops], window: FaceWindow
) -> None:
    first, again, other = (PairSampler(crops, window, seed).draw(4) for seed in (3, 3, 4))
    assert torch.equal(first.target, again.target) and not torch.equal(first.target, other.target)
    for field in fields(first.geometry):
        assert torch.equal(getattr(first.geometry, field.name), getattr(again.geometry, field.name))
    sampler = PairSampler(crops, window, 0)
    for _ in range(6):  # shifted, mirrored, relit: a frame is still its own base
        pairs = sampler.pairs([(0, 3, 3)])
        inputs = window_inputs(window, pairs.geometry)
        assert ((inputs.base - pairs.target).abs() * inputs.mask).max() < 5e-3


def test_pixel_losses_are_weighted_means() -> None:
    target = torch.rand(1, 3, 8, 8)
    weight = torch.ones(1, 1, 8, 8)
    assert all(loss == 0 for loss in pixel_losses(target, target, weight))
    brighter, edges = pixel_losses(target + 0.1, target, weight)
    assert brighter == pytest.approx(0.1, abs=1e-6) and edges == pytest.approx(0, abs=1e-5)
    wrong = target.clone()
    wrong[..., 4:] += 0.2
    weight[..., 4:] = 3
    assert pixel_losses(wrong, target, weight)[0] == pytest.approx(0.15, abs=1e-6)
    inside = pixel_weight(weight.new_full((1, 1, 1, 2), 0.5), torch.tensor([[[[-30.0, 30.0]]]]))
    torch.testing.assert_close(inside, torch.tensor([[[[2.0, 0.5]]]]), atol=1e-4, rtol=0)


def test_light_is_even_where_the_photo_is_silent() -> None:
    silent = torch.zeros(1, 1, 64, 64)
    silent[..., 16:48, 16:48] = 1
    light = torch.full((1, 5, 64, 64), 0.3)
    light[..., :8, :] = 9.0  # elsewhere it may be what it likes
    assert evenness_loss(light, silent) == pytest.approx(0, abs=1e-5)
    banded = torch.full((1, 5, 64, 64), 0.3)
    banded[..., 24:40, :] = -0.3
    assert evenness_loss(banded, silent) > 0.15


def test_where_the_photo_is_silent_light_and_shade_count_and_detail_does_not() -> None:
    target, weight = torch.full((1, 3, 64, 64), 0.4), torch.ones(1, 1, 64, 64)
    silent = torch.zeros(1, 1, 64, 64)
    silent[..., 16:48, 16:48] = 1
    stripes = target.clone()
    stripes[..., ::2] += 0.2
    stripes[..., 1::2] -= 0.2
    assert shade_loss(stripes, target, silent, weight) == pytest.approx(0, abs=1e-6)
    teeth = target.clone()  # bands higher than the old bound of 8 px
    teeth[..., 16:32, :] += 0.2
    teeth[..., 32:48, :] -= 0.2
    assert shade_loss(teeth, target, silent, weight) < 0.7 * 0.2 * silent.mean()
    outside = torch.where(silent.bool(), target, target + 0.5)
    assert shade_loss(outside, target, silent, weight) == pytest.approx(0, abs=1e-6)
    darker = shade_loss(target - 0.1, target, silent, weight)
    assert darker == pytest.approx(0.1 * float(silent.mean()), rel=0.1)


def test_feature_loss_sees_differences_and_its_gradients_are_bounded() -> None:
    loss, black = FeatureLoss(), torch.zeros(1, 3, 64, 64)
    picture = torch.rand(1, 3, 64, 64)
    assert loss(picture, picture) == 0 and loss(picture, picture.flip(-1)) > 0.05
    black.requires_grad_()
    loss(black, picture).backward()
    assert torch.isfinite(black.grad).all() and black.grad.norm() < 10  # type: ignore[union-attr]


def test_a_critic_learns_to_tell_blurred_from_sharp() -> None:
    torch.manual_seed(0)
    critic = Critic(8)
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    distances = torch.zeros(4, 2, 64, 64)
    for _ in range(40):
        sharp = torch.rand(4, 3, 64, 64)
        scores = [critic(p, distances) for p in (sharp, torch.nn.functional.avg_pool2d(sharp, 3, 1, 1))]
        loss = critic_loss(*scores, patch_weight(torch.ones(4, 1, 64, 64), scores[0]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5


def test_steps_lower_the_loss_and_the_critic_begins_alone(crops: list[FaceCrops]) -> None:
    settings = PainterSettings(steps=60, critic_from=25)
    run = PainterRun("mouth", settings)
    pairs = PairSampler(crops, MOUTH, 0).draw(2)
    inputs = window_inputs(MOUTH, pairs.geometry)
    losses = [run.learn(inputs, pairs.target) for _ in range(25)]
    assert losses[-1]["pixels"] < 0.8 * losses[0]["pixels"] and losses[-1]["moved"] > 0
    before = [p.clone() for p in run.painter.parameters()]
    alone = run.learn(inputs, pairs.target)
    assert alone["critic"] > 0 and all(map(torch.equal, before, run.painter.parameters()))
    run.step = settings.critic_from + CRITIC_ALONE + 10
    assert "fooled" in run.learn(inputs, pairs.target)
    assert not all(map(torch.equal, before, run.painter.parameters()))


def test_processes_draw_different_batches_and_the_same_again(crops: list[FaceCrops]) -> None:
    def first(count: int) -> list[torch.Tensor]:
        with closing(batches("eyes", crops, seed=1, count=1, workers=2)) as stream:  # type: ignore[type-var]
            return [target for _, target in islice(stream, count)]

    once, again = first(3), first(3)
    assert all(map(torch.equal, once, again))
    assert not any(torch.equal(a, b) for a, b in combinations(once, 2))


def test_a_run_ends_when_its_time_is_over_and_its_rate_has_fallen_by_then(
    prepared: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "eyes",
        "--clips",
        str(prepared.store.source),
        "--crops",
        str(tmp_path / "crops"),
        "--start",
        "mini",
    ]
    command += ["--output", str(tmp_path), "--batch", "1", "--steps", "100000", "--max-seconds", "0.5"]
    assert train_painter.main(command) == 0
    step = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [line["step"] for line in lines if "dev_psnr" in line]
    assert 0 < step < 1000 and scores == [0, step]  # measured as it came, and as it went
    assert "step 0, " in capsys.readouterr().out
    run = PainterRun("eyes", PainterSettings(steps=100_000, max_seconds=10))
    run.elapsed = 9.0
    assert run._progress() == 0.9
    run.step = 95_000
    assert run._progress() == 0.95


def test_a_painter_may_begin_where_a_model_stands(crops: list[FaceCrops]) -> None:
    bundled = load_model("mini").neural_renderer.eyes
    run = PainterRun("eyes", PainterSettings(), start=bundled)
    wanted = bundled.state_dict()
    for painter in (run.painter, run.average):
        assert all(torch.equal(value, wanted[name]) for name, value in painter.state_dict().items())


def test_a_painter_may_learn_the_silent_part_alone(crops: list[FaceCrops]) -> None:
    """Elsewhere nothing pulls it away from what it painted before, however far that is from the frame."""
    bundled = load_model("mini").neural_renderer.mouth
    pairs = PairSampler(crops, MOUTH, 0).draw(2)
    inputs = window_inputs(MOUTH, pairs.geometry)
    assert inputs.silent.sum() > 100
    losses = {}
    for alone in (False, True):
        run = PainterRun("mouth", PainterSettings(only_silent=alone), start=bundled)
        losses[alone] = run.learn(inputs, pairs.target)
    assert losses[True]["edges"] < 1e-6 < losses[False]["edges"]
    assert 0 < losses[True]["pixels"] < losses[False]["pixels"]  # light and shade of the silent part


def test_the_report_of_perfect_windows_is_perfect(crops: list[FaceCrops]) -> None:
    checks = report_pairs(crops, MOUTH, sources=2, targets=3)
    assert len(checks) == len(crops) and all(torch.isfinite(c.states).all() for c in checks)
    perfect = score_windows(MOUTH, checks[0], lambda _: checks[0].target)
    base = score_windows(MOUTH, checks[0], lambda inputs: inputs.base)
    assert all((s.psnr, s.sharpness) == (100.0, 1.0) and s.ssim == pytest.approx(1.0) for s in perfect)
    assert all(s.psnr < 60 for s in base) and "dB" in summary(base + perfect)
    changes = checks[0].states.diff(dim=1)[:, 0]
    assert [s.change for s in base] == pytest.approx(changes.tolist(), abs=1e-6)


def test_the_script_trains_goes_on_and_its_painters_get_into_a_checkpoint(
    prepared: PreparedDataset, tmp_path: Path
) -> None:
    command = [
        "--clips",
        str(prepared.store.source),
        "--crops",
        str(tmp_path / "crops"),
        "--batch",
        "2",
        "--every",
        "1",
    ]
    for name in ("mouth", "eyes"):
        train_painter.main([name, *command, "--output", str(tmp_path / name), "--steps", "1"])
    first = load_file(tmp_path / "mouth" / "painter.safetensors")
    assert train_painter.main(["mouth", *command, "--output", str(tmp_path / "mouth"), "--steps", "2"]) == 0
    second = load_file(tmp_path / "mouth" / "painter.safetensors")
    assert first.keys() == second.keys() and any(not torch.equal(first[k], second[k]) for k in first)
    assert torch.load(tmp_path / "mouth" / "checkpoint.pt", weights_only=True)["step"] == 2
    painters = [f"--{name}={tmp_path / name / 'painter.safetensors'}" for name in ("mouth", "eyes")]
    assert assemble_checkpoint.main([str(tmp_path / "model"), "--start", "mini", *painters]) == 0
    model = load_model(tmp_path / "model")
    mouth = model.neural_renderer.mouth.state_dict()
    assert all(torch.equal(mouth[k], v) for k, v in second.items())
    bundled = load_model("mini")
    assert torch.equal(next(model.coarse_field.parameters()), next(bundled.coarse_field.parameters()))


def test_what_cannot_be_used_is_told(
    prepared: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"file": "made_up.mp4", "rights": "unclear"}]))
    command = [
        "eyes",
        "--clips",
        str(prepared.store.source),
        "--crops",
        str(tmp_path / "crops"),
        "--output",
        str(tmp_path / "out"),
    ]
    assert train_painter.main([*command, "--manifest", str(manifest)]) == 2
    assert "no clip to learn from" in capsys.readouterr().err
    assert train_painter.main([*command, "--only-silent"]) == 2
    assert "nothing to stay with" in capsys.readouterr().err
    assert (
        train_painter.main(["eyes", "--clips", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")])
        == 2
    )
    (tmp_path / "painter.safetensors").write_bytes(b"damaged")
    assert (
        assemble_checkpoint.main([str(tmp_path / "model"), "--mouth", str(tmp_path / "painter.safetensors")])
        == 2
    )
    assert "no painter can be read" in capsys.readouterr().err and not (tmp_path / "model").exists()
