"""Tests of the lip training: metrics, examples, the fit, its report, and the scripts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_data import packed, write_work
from safetensors.torch import load_file
from script_processes import awaited, start_script

from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME
from training.mini.lips_data import (
    CropSampler,
    Example,
    Listener,
    SpeakerScale,
    TalkingClip,
    coloured_noise,
    load_clips,
    mouth_target,
    withheld_videos,
)
from training.mini.lips_fit import FitSettings, fit_head, read_encoder
from training.mini.lips_metrics import best_lag, closures, correlation, count_closures_hit
from training.mini.lips_report import score
from training.mini.measure_lips import main as measure_lips
from training.mini.train_lips import Heard, calibrate, codes_by, main


def babble(seconds: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A made-up talker: noise whose loudness is the opening of the mouth. Mouth codes and sound."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * 25)
    slow = np.convolve(rng.normal(size=frames + 8), np.hanning(9) / 2, "valid")
    opening = np.clip(0.5 + 0.5 * slow, 0, None).astype(np.float32)
    fine = np.interp(
        np.arange(frames * SAMPLES_PER_FRAME) / SAMPLES_PER_FRAME - 0.5, np.arange(frames), opening
    )
    audio = (0.2 * rng.normal(size=len(fine)) * (0.05 + fine) ** 2).astype(np.float32)
    shape = 0.5 * rng.normal(size=(frames, 4)).astype(np.float32) + rng.normal(size=4).astype(np.float32)
    return torch.from_numpy(np.concatenate([opening[:, None], shape], axis=1)), torch.from_numpy(audio)


def clip(seconds: float, seed: int) -> TalkingClip:
    mouth, audio = babble(seconds, seed)
    return TalkingClip(f"clip{seed}", f"person{seed}", mouth, audio)


def test_correlation_and_lag() -> None:
    real = np.sin(np.arange(80) * 0.7) + np.cos(np.arange(80) * 0.31)
    assert correlation(3 * real + 1, real) == pytest.approx(1)
    assert correlation(np.zeros(80), real) == 0
    late = np.concatenate([np.zeros(3), real[:-3]])  # the sound, so the prediction, comes three frames late
    assert best_lag(late, real) == (3, pytest.approx(1))
    lost = real.copy()
    lost[20:30] = np.nan
    assert best_lag(late, lost) == (3, pytest.approx(1))


def test_closures_are_dips_between_openings() -> None:
    real = np.array([0.0, 0, 0, 1, 1, 0.05, 1, 1, 0.5, 1, 0.1, 0.02, 0.1, 1] + [0] * 20 + [1, 1])
    assert closures(real).tolist() == [5, 11]  # 0.5 is no closure, neither are silences
    assert count_closures_hit(np.zeros(len(real)), real, 0.3)[:2] == (2, 2)
    assert count_closures_hit(np.ones(len(real)), real, 0.3)[:2] == (0, 2)


def test_only_long_clips_with_their_own_sound_are_taken(tmp_path: Path) -> None:
    work = [
        write_work(tmp_path / "work" / name, split, frames, seed=seed, own_speech=own)
        for seed, (name, split, frames, own) in enumerate(
            [
                ("a", "train", 25, True),
                ("b", "train", 25, False),
                ("c", "train", 24, True),
                ("d", "dev", 25, True),
            ]
        )
    ]
    prepared = packed(tmp_path / "set", work)
    (one,), _ = load_clips(prepared, "train")
    assert (one.name, one.person) == ("a", "person-0")
    assert one.mouth.shape == (25, 5) and one.audio.shape == (16_000,)
    assert [clip.name for clip in load_clips(prepared, "dev")[0]] == ["d"]


def test_a_set_without_talkers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed(tmp_path / "set", [write_work(tmp_path / "work" / "a", frames=2)])
    assert main(["--clips", str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err


def test_what_must_not_be_learned_from_is_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    entries = [{"file": f"clips/{name}.mp4", "rights": name} for name in ("clear", "nc", "unclear")]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([*entries, {"file": "of_old.mp4"}]))
    assert withheld_videos([manifest], ["clear"]) == {"nc.mp4", "unclear.mp4"}
    assert withheld_videos([manifest], ["clear", "nc"]) == {"unclear.mp4"}
    work = [write_work(tmp_path / "work" / name, frames=25, seed=i) for i, name in enumerate("ab")]
    prepared = packed(tmp_path / "set", work)
    used, held = load_clips(prepared, "train", {"made_up.mp4"})
    assert not used and len(held) == 2
    manifest.write_text("no list")
    options = [
        "--clips",
        str(tmp_path / "set"),
        "--manifest",
        str(manifest),
        "--output",
        str(tmp_path / "out"),
    ]
    assert main(options) == 2
    assert "manifest.json: it is no manifest" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


def test_examples_keep_sound_and_mouth_together(listener: Listener) -> None:
    one = clip(6.0, 0)
    examples = listener.examples(one)
    scale = SpeakerScale.of(one.mouth)
    for example in examples:
        assert example.rows.shape == (2 * example.frames + 15, 512) and example.target.shape == (150, 6)
        torch.testing.assert_close(example.target[:, :5] * scale.amplitude + scale.mean, one.mouth)
    whole, live = (example.rows[200].float() for example in examples)
    assert torch.corrcoef(torch.stack([whole, live]))[0, 1] > 0.5


def test_lost_faces_are_not_learned() -> None:
    one = clip(4.0, 0)
    one.mouth[30:40] = torch.nan
    target, valid = mouth_target(one)
    assert not valid[30:40].any() and valid[:30].all() and target.isfinite().all()


def test_the_mouth_rests_in_quiet_sounds(listener: Listener) -> None:
    rest = SpeakerScale.of(clip(4.0, 0).mouth).rest
    examples = listener.quiet_examples(rest, np.random.default_rng(0), seconds=1)
    assert len(examples) == 18
    assert all(torch.equal(e.target[:, :5], rest.expand(25, -1)) and e.target[:, 5].all() for e in examples)
    loud = coloured_noise(1, 0.0, np.random.default_rng(0))
    assert loud.shape == (SAMPLE_RATE_HZ,) and loud.std() == pytest.approx(0.05, rel=0.01)


def random_example(frames: int) -> Example:
    """Features whose first channel is the opening, at every frame's middle."""
    target = torch.randn(frames, 6).clamp(0, 1)
    rows = torch.randn(2 * frames + 15, 512)
    rows[8 : 8 + 2 * frames : 2, 0] = target[:, 0]
    return Example(rows.half(), target, torch.ones(frames))


def test_crops_are_pieces_of_examples() -> None:
    groups, quiet = [[random_example(150)], [random_example(30)]], [random_example(50)]
    quiet[0].target[:] = 9
    rows, target, valid = CropSampler(groups, np.random.default_rng(0), quiet).draw(64)
    assert rows.shape == (64, 115, 512) and target.shape == (64, 50, 6)
    assert set(valid.sum(1).int().tolist()) == {50, 30}
    still = (target[:, 0, 0] == 9).sum()
    assert 0 < still < 20
    speaking = (target[:, 0, 0] != 9)[:, None] & valid.bool()
    torch.testing.assert_close(rows[:, 8:108:2, 0][speaking], target[..., 0][speaking], atol=1e-3, rtol=0)


def test_training_learns_finds_lags_and_sets_the_spread(listener: Listener) -> None:
    clips = [clip(3.0, seed) for seed in range(4)]
    groups = [listener.examples(c) for c in clips[:3]]
    head = fit_head(groups, [], FitSettings(steps=20))
    heard = Heard([clips[3], clips[3].shifted(-3)], listener)
    heard.realigned([head, head])
    assert heard.clips[0] is clips[3]
    torch.testing.assert_close(
        heard.clips[1].audio[: 2 * SAMPLE_RATE_HZ], clips[3].audio[: 2 * SAMPLE_RATE_HZ]
    )
    alone = Heard(clips[3:], listener)
    calibrate(alone, [head])
    code = codes_by(head, alone.groups[0][0])
    assert correlation(code[:, 0].numpy(), clips[3].mouth[:, 0].numpy()) > 0.5
    assert code[:, 0].std() / clips[3].mouth[:, 0].std() == pytest.approx(1, abs=0.1)


def test_scores_of_a_perfect_a_late_and_a_still_mouth() -> None:
    one = clip(6.0, 0)
    perfect = score(one, one.mouth)
    assert perfect.lag == 0 and perfect.opening_r > 0.999 and perfect.width_r > 0.97
    assert perfect.hits == perfect.closures and perfect.spread == pytest.approx(1, abs=0.02)
    late = score(one, torch.cat([one.mouth[:1].expand(2, -1), one.mouth[:-2]]))
    assert late.lag == 2 and late.opening_r > 0.99
    still = score(one, torch.zeros_like(one.mouth))
    assert still.opening_r == 0 and still.spread == 0


def test_the_script_runs_and_repeats(tmp_path: Path) -> None:
    splits = ["train"] * 3 + ["dev"]
    clips = [write_work(tmp_path / "work" / f"clip{n}", s, 50, seed=n) for n, s in enumerate(splits)]
    packed(tmp_path / "set", clips)
    options = ["--clips", str(tmp_path / "set"), "--steps", "2", "--quiet-seconds", "1"]
    words, printed = [*options, "--output", str(tmp_path / "a")], tmp_path / "printed"
    told = awaited(start_script(printed, "training.mini.train_lips", *words), printed)
    assert "cross-validation" in told and "dev, live chunks" in told
    assert main([*options, "--output", str(tmp_path / "b")]) == 0
    one, other = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    read_encoder(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"something else")
    with pytest.raises(InputError, match="no audio encoder can be read"):
        read_encoder(tmp_path / "b")


def test_ears_are_measured_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed(tmp_path / "set", [write_work(tmp_path / "work" / "a", "dev", 50)])
    assert measure_lips(["--clips", str(tmp_path / "set"), "--models", "mini"]) == 0
    said = capsys.readouterr().out
    assert "mini on all" in said and "opening r" in said and "digital silence: opening" in said
