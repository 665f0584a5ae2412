"""Tests of SyncNet metrics: MFCC, the published layout, scores by hand, and a shift that is found."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdtalk.cli.main import main
from sdtalk.errors import InputError
from training.evaluation.mfcc import mel_triangles, mfcc
from training.evaluation.syncnet import SyncNet, distances, face_crops, scores_from_distances, sync_scores


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = random.standard_normal(samples)
    loudness = np.interp(
        np.arange(samples), np.arange(0, samples, 640), random.random(math.ceil(samples / 640)) ** 2
    )
    return np.round(noise * loudness * 8000)


def window_by_hand(samples: np.ndarray, number: int) -> np.ndarray:
    """One window's coefficients, summed term by term as the package's documentation defines them."""
    emphasised = [samples[0], *(samples[i] - 0.97 * samples[i - 1] for i in range(1, len(samples)))]
    emphasised += [0.0] * 400
    window = np.array(emphasised[number * 160 : number * 160 + 400])
    angles = -2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512
    power = np.abs(np.exp(angles) @ window) ** 2 / 512
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = [math.floor(513 * 700 * (10 ** (top * k / 27 / 2595) - 1) / 16000) for k in range(28)]
    bands = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        rising = sum(power[i] * (i - low) / (middle - low) for i in range(low, middle))
        falling = sum(power[i] * (high - i) / (high - middle) for i in range(middle, high))
        bands.append(math.log(rising + falling))
    found = []
    for k in range(13):
        total = sum(b * math.cos(math.pi * k * (2 * n + 1) / 52) for n, b in enumerate(bands))
        found.append(total * math.sqrt((1 if k == 0 else 2) / 26) * (1 + 11 * math.sin(math.pi * k / 22)))
    return np.array([math.log(power.sum()), *found[1:]])


def test_coefficients_by_hand() -> None:
    samples = speech_like(3000)
    found = mfcc(samples)
    assert found.shape == (1 + math.ceil((3000 - 400) / 160), 13)
    for number in (0, 5, len(found) - 1):
        np.testing.assert_allclose(found[number], window_by_hand(samples, number), rtol=1e-8)


def test_silence_and_short_sounds_have_coefficients() -> None:
    assert np.isfinite(mfcc(np.zeros(1000))).all()
    assert mfcc(np.ones(100)).shape == (1, 13)
    assert mel_triangles().max() == 1 and (mel_triangles().sum(1) > 0).all()


@pytest.mark.skipif(
    importlib.util.find_spec("python_speech_features") is None, reason="the package is not installed"
)
@pytest.mark.parametrize("samples", [400, 401, 5000, 16000])
def test_coefficients_are_those_of_the_package(samples: int) -> None:
    import python_speech_features

    sound = speech_like(samples)
    np.testing.assert_allclose(mfcc(sound), python_speech_features.mfcc(sound, 16000), rtol=1e-9, atol=1e-9)


def test_the_layout_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    assert SyncNet.installed() is None
    torch.manual_seed(0)
    network = SyncNet().eval()
    state = network.state_dict()
    shapes = {k: tuple(v.shape) for k, v in state.items() if k.endswith("weight") and v.ndim > 1}
    assert shapes == {
        "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3), "netcnnaud.11.weight": (256, 384, 3, 3),
        "netcnnaud.14.weight": (256, 256, 3, 3), "netcnnaud.18.weight": (512, 256, 5, 4),
        "netfcaud.0.weight": (512, 512), "netfcaud.3.weight": (1024, 512),
        "netcnnlip.0.weight": (96, 3, 5, 7, 7), "netcnnlip.4.weight": (256, 96, 1, 5, 5),
        "netcnnlip.8.weight": (256, 256, 1, 3, 3), "netcnnlip.11.weight": (256, 256, 1, 3, 3),
        "netcnnlip.14.weight": (256, 256, 1, 3, 3), "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfclip.0.weight": (512, 512), "netfclip.3.weight": (1024, 512),
    }  # fmt: skip
    # the published file is older than the counters of batch normalisation
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "syncnet_v2.model")
    assert main(["assets", "add", "syncnet", str(tmp_path / "syncnet_v2.model")]) == 0
    stored = SyncNet.installed()
    assert stored is not None
    lips, sound = torch.rand(1, 3, 5, 224, 224) * 255, torch.randn(2, 1, 13, 20)
    with torch.inference_mode():
        assert stored.lips(lips).shape == (1, 1024) and torch.equal(stored.lips(lips), network.lips(lips))
        assert torch.equal(stored.sound(sound), network.sound(sound)) and stored.sound(sound).shape == (
            2,
            1024,
        )
    torch.save({"netcnnlip.0.weight": state["netcnnlip.0.weight"]}, tmp_path / "half.model")
    assert main(["assets", "add", "syncnet", str(tmp_path / "half.model")]) == 0
    with pytest.raises(InputError, match="another network"):
        SyncNet.installed()


def test_distances_by_hand() -> None:
    random = np.random.default_rng(0)
    lips, sound = (torch.from_numpy(random.standard_normal((4, 3))).float() for _ in range(2))
    found = distances(lips, sound, shifts=2)
    assert found.shape == (4, 5)
    for i in range(4):
        for j in range(5):
            other = sound[i + j - 2] if 0 <= i + j - 2 < 4 else torch.zeros(3)
            assert float(found[i, j]) == pytest.approx(
                float((lips[i] - other + 1e-6).square().sum().sqrt()), rel=1e-5
            )


def test_figures_by_hand() -> None:
    found = scores_from_distances(torch.tensor([[9.0, 8, 3, 7, 8], [7, 6, 1, 9, 8]]))
    assert (found.distance, found.confidence, found.late_frames) == (2.0, 8.0 - 2.0, 0)
    assert scores_from_distances(torch.tensor([[9.0, 8, 6, 1, 8]])).late_frames == 1


class Brightness:
    """Stands in for SyncNet: lips are as bright as the window's middle frame, sound is as loud as its middle."""

    def lips(self, frames: Tensor) -> Tensor:
        return frames[:, :, 2].mean((1, 2, 3))[:, None].repeat(1, 4) / 8

    def sound(self, coefficients: Tensor) -> Tensor:
        return coefficients[:, 0, 0, 8:12].mean(1)[:, None].repeat(1, 4)


@pytest.mark.parametrize("late", [0, 4, -7])
def test_a_known_shift_of_the_sound_is_found(late: int) -> None:
    random = np.random.default_rng(3)
    energy = random.uniform(14, 24, 240)  # its logarithm, one a frame
    frames = [np.full((224, 224, 3), round(8 * e), np.uint8) for e in energy]
    spread = 400 * (1 + 0.97**2) / 2  # energy of a window of pre-emphasised noise of amplitude 1
    amplitude = np.repeat(np.sqrt(np.exp(np.roll(energy, late)) / spread), 640)
    samples = amplitude * random.choice([-1.0, 1.0], len(amplitude)) / 32768
    found = sync_scores(Brightness(), iter(frames), samples)
    assert found.late_frames == late
    assert found.confidence > 3 and 0 < found.distance < scores_from_distances(torch.rand(5, 31) + 5).distance


def test_what_is_too_short_is_told() -> None:
    frames = [np.zeros((224, 224, 3), np.uint8)] * 5
    for number, seconds in ((5, 1.0), (0, 1.0), (30, 0.2)):
        with pytest.raises(ValueError, match="shorter than 6 frames"):
            sync_scores(Brightness(), iter((frames * 6)[:number]), np.zeros(int(seconds * 16000)))


def test_faces_are_cut_as_the_authors_do() -> None:
    """Half side s: from the box's top to 1.8 s below its middle, 1.4 s to either side; grey beyond the border."""
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[60:200, 80:220] = 255  # what has to be seen for a box of half side 50 around (150, 110)
    boxes = np.tile([[110.0, 60.0, 190.0, 160.0]], (20, 1))
    faces = list(face_crops(iter([frame] * 20), boxes))
    assert len(faces) == 20 and faces[0].shape == (224, 224, 3)
    assert (faces[0][2:-2, 2:-2] == 255).all()
    low = np.tile([[110.0, 120.0, 190.0, 220.0]], (20, 1))
    assert (next(face_crops(iter([frame]), low))[-20:] == 110).all()


def test_a_wrong_box_in_between_is_smoothed_away() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    boxes = np.tile([[110.0, 60.0, 190.0, 160.0]], (20, 1))
    steady = list(face_crops(iter([frame] * 20), boxes))
    boxes[9:12] = [0, 0, 20, 20]
    assert all(
        np.array_equal(a, b) for a, b in zip(face_crops(iter([frame] * 20), boxes), steady, strict=True)
    )
