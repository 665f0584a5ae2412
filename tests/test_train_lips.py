"""Tests of the lip training: metrics, visemes, synthetic speech, augmentation, and the script."""

import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_data import packed, write_work
from safetensors.torch import load_file
from training.mini.synthetic_speech import Utterance, targets
from training.mini.visemes import NAMES, VISEMES, viseme_of_arpabet, viseme_of_ipa

from sdtalk.motion.audio_encoder import AudioEncoder
from sdtalk.speech.audio import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, padded_mels
from training.mini import synthetic_speech
from training.mini.lips_data import (
    CropSampler,
    SpeakerScale,
    TalkingClip,
    augment_audio,
    augmented_examples,
    load_clips,
    mouth_example,
)
from training.mini.lips_fit import FitSettings, finetune
from training.mini.lips_metrics import best_lag, closures, correlation, count_closures_hit
from training.mini.train_lips import calibrate, main, realign_audio

ROOT = Path(__file__).parent.parent
needs_flite = pytest.mark.skipif(not shutil.which("flite"), reason="the program flite is not installed")
needs_espeak = pytest.mark.skipif(not find_library("espeak-ng"), reason="libespeak-ng is not installed")


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


def test_visemes_cover_every_sound() -> None:
    assert len(NAMES) == 15 and NAMES[0] == "sil"
    assert [viseme_of_ipa(p) for p in ("p", "tʃ", "ɔ̃", "aɪ", "", "ts", "w")] == ["PP", "CH", "oh", "aa", "sil", "DD", "ou"]  # fmt: skip  # noqa: E501
    assert [viseme_of_arpabet(p) for p in ("pau", "m", "iy", "sh")] == ["sil", "PP", "ih", "CH"]
    assert VISEMES["PP"].closure == 1 and VISEMES["aa"].opening == max(v.opening for v in VISEMES.values())


def test_targets_follow_phoneme_times() -> None:
    said = Utterance(
        np.zeros(SAMPLE_RATE_HZ, np.float32), [("sil", 0), ("aa", 0.2), ("PP", 0.5), ("ou", 0.6)]
    )
    classes, curves = targets(said)
    assert classes.shape == (25,) and curves.shape == (25, 3)
    assert [NAMES[c] for c in classes[[0, 4, 5, 11, 13, 16]]] == ["sil", "sil", "aa", "aa", "PP", "ou"]
    assert curves[:, 0].argmax() in (7, 8, 9)
    assert curves[13, 2] > 0.9 and curves[9, 2] < 0.01 and curves[20, 1] > 0.9


@needs_flite
def test_flite_tells_when_it_says_what() -> None:
    said = synthetic_speech.say_with_flite("mama papa", "slt", 1.0, 180)
    names = [name for name, _ in said.visemes]
    assert names.count("PP") == 4 and names[0] == "sil"
    assert said.visemes[-1][1] < len(said.samples) / SAMPLE_RATE_HZ
    loud = [
        np.abs(said.samples[int(s * SAMPLE_RATE_HZ) :][:1600]).mean() for n, s in said.visemes if n == "aa"
    ]
    assert min(loud) > 5 * np.abs(said.samples[:800]).mean()


@needs_espeak
def test_espeak_tells_when_it_says_what() -> None:
    said = synthetic_speech.Espeak().say("papa mama", "de+f3", 150, 50, 50)
    assert [name for name, _ in said.visemes].count("PP") == 4
    starts = [start for _, start in said.visemes]
    assert starts == sorted(starts) and 0.5 < len(said.samples) / SAMPLE_RATE_HZ < 3


@needs_flite
@needs_espeak
def test_synthetic_speech_is_the_same_by_seed() -> None:
    one, other = (list(synthetic_speech.utterances(0.2, seed=3)) for _ in range(2))
    assert len(one) == len(other) and all(a.visemes == b.visemes for a, b in zip(one, other, strict=True))


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
    (one,) = load_clips(prepared, "train")
    assert (one.name, one.person) == ("a", "person-0")
    assert one.mouth.shape == (25, 5) and one.audio.shape == (16_000,)
    assert [clip.name for clip in load_clips(prepared, "dev")] == ["d"]


def test_a_set_without_talkers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed(tmp_path / "set", [write_work(tmp_path / "work" / "a", frames=2)])
    assert main(["--clips", str(tmp_path / "set"), "--output", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--synthetic", "--pretrained"])
def test_files_that_are_no_such_are_told(option: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    packed(tmp_path / "set", [write_work(tmp_path / "work" / "a", frames=25)])
    (tmp_path / "other").write_bytes(b"something else")
    options = ["--clips", str(tmp_path / "set"), option, str(tmp_path / "other")]
    assert main([*options, "--output", str(tmp_path / "out")]) == 2
    assert "other: no " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_examples_keep_sound_and_mouth_together_at_any_speed() -> None:
    one = clip(6.0, 0)
    for example in augmented_examples(one, 6, np.random.default_rng(0)):
        assert example.mels.shape == (4 * example.frames + 33, 80) and example.target.shape[1] == 6
        loud = example.mels[18 : 18 + 4 * example.frames : 4].float().mean(1)
        assert correlation(loud.numpy(), example.target[:, 0].numpy()) > 0.75
    plain = augmented_examples(one, 0, np.random.default_rng(0))[0]
    scale = SpeakerScale.of(one.mouth)
    torch.testing.assert_close(plain.target[:, :5] * scale.amplitude + scale.mean, one.mouth)


def test_lost_faces_are_not_learned() -> None:
    one = clip(4.0, 0)
    one.mouth[30:40] = torch.nan
    example = mouth_example(one, one.audio.numpy(), 1.0)
    assert not example.valid[30:40].any() and example.valid[:30].all() and example.target.isfinite().all()


def test_crops_are_pieces_of_examples() -> None:
    example = augmented_examples(clip(6.0, 0), 0, np.random.default_rng(0))[0]
    short = augmented_examples(clip(1.2, 1), 0, np.random.default_rng(0))[0]
    mels, target, valid = CropSampler([[example], [short]], np.random.default_rng(0)).draw(32)
    assert mels.shape == (32, 233, 80) and target.shape == (32, 50, 6)
    counts = set(valid.sum(1).int().tolist())
    assert counts == {50, 30}
    assert padded_mels(torch.zeros(10, 80), 50).shape == mels.shape[1:]


def test_disturbing_keeps_length_and_speech() -> None:
    samples = babble(2.0, 0)[1].numpy()
    for seed in range(12):
        other = augment_audio(samples, np.random.default_rng(seed))
        assert other.shape == samples.shape and np.isfinite(other).all()
        assert np.corrcoef(np.abs(other), np.abs(samples))[0, 1] > 0.3


def test_training_learns_finds_lags_and_sets_the_spread() -> None:
    clips = [clip(5.0, seed) for seed in range(6)]
    groups = [augmented_examples(c, 1, np.random.default_rng(0)) for c in clips[:5]]
    encoder = finetune(AudioEncoder(), groups, [], FitSettings(steps=30))
    held = [clips[5], clips[5].shifted(-3)]
    moved = realign_audio(held, [encoder, encoder])
    assert moved[0] is held[0]
    torch.testing.assert_close(moved[1].audio[: 4 * SAMPLE_RATE_HZ], held[0].audio[: 4 * SAMPLE_RATE_HZ])
    calibrate(held[:1], [encoder])
    with torch.no_grad():
        code = encoder.forward_clip(augmented_examples(held[0], 0, np.random.default_rng(0))[0].mels.float())
    assert correlation(code[:, 0].numpy(), held[0].mouth[:, 0].numpy()) > 0.5
    assert code[:, 0].std() / held[0].mouth[:, 0].std() == pytest.approx(0.95, abs=0.1)


def test_the_script_runs_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    splits = ["train"] * 6 + ["dev"]
    clips = [write_work(tmp_path / "work" / f"clip{n}", s, 62, seed=n) for n, s in enumerate(splits)]
    packed(tmp_path / "set", clips)
    rng = np.random.default_rng(0)
    frames = np.array([60, 40, 80])
    np.savez(
        tmp_path / "synthetic.npz",
        samples=(3000 * rng.normal(size=frames.sum() * SAMPLES_PER_FRAME)).astype(np.int16),
        classes=rng.integers(0, 15, frames.sum()).astype(np.uint8),
        curves=rng.random((frames.sum(), 3)).astype(np.float16),
        frames=frames,
    )
    options = ["--synthetic", str(tmp_path / "synthetic.npz")]
    options += ["--pretrained", str(tmp_path / "start.safetensors")]
    options += [
        "--clips",
        str(tmp_path / "set"),
        "--steps",
        "2",
        "--pretrain-steps",
        "3",
        "--versions",
        "1",
    ]
    command = [
        sys.executable,
        "-m",
        "training.mini.train_lips",
        *options,
        "--output",
        str(tmp_path / "a.safetensors"),
    ]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "dev, still in silence" in first.stdout and "synthetic, unseen sentences" in first.stdout
    assert main([*options, "--output", str(tmp_path / "b.safetensors")]) == 0
    assert "unseen sentences" not in capsys.readouterr().out  # pre-training is kept
    one, other = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    AudioEncoder().load_state_dict(one)
