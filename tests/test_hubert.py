"""Tests of HuBERT features: those of `transformers`, for any length and any cutting, in constant memory."""

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from toy import toy_hubert_config
from transformers import HubertForCTC, HubertModel, Wav2Vec2FeatureExtractor

from sdtalk.errors import InputError
from sdtalk.speech.audio import SAMPLE_RATE_HZ, frame_count
from sdtalk.speech.hubert import HubertFeatures, token_windows
from sdtalk.speech.hubert.band import Band
from sdtalk.speech.hubert.features import token_count

ONE_PIECE = 10**9


@pytest.fixture(scope="module")
def model() -> HubertModel:
    torch.manual_seed(0)
    return HubertModel(toy_hubert_config()).eval()


def sound(seconds: float, seed: int = 0) -> Tensor:
    """Noise that swells and fades, off centre."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.02 + 0.1 * noise * (1 + 0.7 * torch.arange(samples).mul(2 / SAMPLE_RATE_HZ).sin())


def extracted(samples: Tensor) -> Tensor:
    """The sound as the feature extractor of the published checkpoint hands it on, [1, sample]."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    values = extractor(samples.double().numpy(), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
    return values.input_values


def joined(features: HubertFeatures, samples: Tensor) -> Tensor:
    return torch.cat(list(features.tokens(samples)))


def assert_close(ours: Tensor, theirs: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("block", [77, 500, ONE_PIECE])
@pytest.mark.parametrize("samples", [400, 640, 719, 16_000, 320 * 999 + 400 + 319])
def test_up_to_a_thousand_tokens_are_those_of_transformers(
    model: HubertModel, samples: int, block: int
) -> None:
    samples = sound(25.0)[:samples]
    with torch.no_grad():
        plain = model(extracted(samples)).last_hidden_state[0]
    assert_close(joined(HubertFeatures(model, block), samples), plain, 1e-5)


def whole(model: HubertModel, samples: Tensor, reach: int) -> Tensor:
    """The definition in one piece: the layers of transformers under a mask over all tokens."""
    with torch.no_grad():
        heard = model.feature_projection(model.feature_extractor(extracted(samples)).transpose(1, 2))
        tokens = heard + model.encoder.pos_conv_embed(heard)
        total = tokens.shape[1]
        token = torch.arange(total)
        first = (token - reach // 2).clamp(0, max(total - reach, 0))[:, None]
        seen = (token >= first) & (token < first + reach)
        for layer in model.encoder.layers:
            tokens = layer(tokens, attention_mask=seen[None, None])
            tokens = (
                tokens[0] if isinstance(tokens, tuple) else tokens
            )  # with attention weights in transformers 5.0
        return model.encoder.layer_norm(tokens)[0]


def test_cutting_leaves_no_trace(model: HubertModel) -> None:
    samples = sound(95.0)  # three blocks of 1500 tokens, and a piece
    one_piece = whole(model, samples, reach=1000)
    for block in (100, 500, 1500, ONE_PIECE):
        assert_close(joined(HubertFeatures(model, block), samples), one_piece, 2e-5)
    with torch.no_grad():  # what this is for: pieces of 20 s on their own are another function of the sound
        piece = model(extracted(samples)[:, : 320 * 999 + 400]).last_hidden_state[0]
    assert (piece - one_piece[:1000])[-100:].abs().max() > 1e-2


@pytest.mark.parametrize("reach", [1, 2, 13, 64])
def test_any_reach_is_its_definition(model: HubertModel, reach: int) -> None:
    samples = sound(4.0)
    one_piece = whole(model, samples, reach)
    for block in (1, 10, 64, 150):
        assert_close(joined(HubertFeatures(model, block, reach), samples), one_piece, 2e-5)


@pytest.mark.parametrize("total", [1, 5, 9, 10, 11, 40])
def test_a_token_attends_to_the_nearest(total: int) -> None:
    band = Band(total, reach=10)
    seen = [set(range(band.start(t), band.end(t))) for t in range(total)]
    for token in range(total):
        assert token in seen[token] and len(seen[token]) == min(10, total)
        assert seen[token] <= set(range(total))
        middle = total > 10 and 5 <= token <= total - 5
        assert not middle or seen[token] == set(range(token - 5, token + 5))
    for there in range(total + 1):
        assert band.ready(there) == sum(max(tokens) < there for tokens in seen)
    for first in range(total):
        for stop in range(first + 1, total + 1):
            keys = range(band.start(first), band.end(stop - 1))
            wanted = [[key in seen[query] for key in keys] for query in range(first, stop)]
            mask = band.mask(first, stop, torch.device("cpu"))
            assert wanted == (mask.tolist() if mask is not None else [[True] * len(keys)] * (stop - first))


def test_silence_and_loudness(model: HubertModel) -> None:
    features = HubertFeatures(model)
    assert joined(features, torch.zeros(16_000)).isfinite().all()
    assert_close(joined(features, sound(2.0) * 3 - 0.5), joined(features, sound(2.0)), 1e-3)
    with pytest.raises(ValueError, match="399 samples"):
        list(features.tokens(torch.zeros(399)))


def numbered(tokens: int, block: int) -> list[Tensor]:
    """Token k is [k + 1, -k - 1]: zero is left for what is not there."""
    number = torch.arange(1.0, tokens + 1)
    return list(torch.stack([number, -number], dim=1).split(block))


@pytest.mark.parametrize("block", [1, 7, 16, 500])
@pytest.mark.parametrize("frames", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("alignment, first", [("centred", -8), ("ahead", 0)])
def test_a_frame_hears_these_tokens(alignment: str, first: int, frames: int, block: int) -> None:
    for tokens in (2 * frames - 1, max(2 * frames - 2, 1)):  # a last frame with and without its last token
        parts = list(token_windows(iter(numbered(tokens, block)), frames, alignment))
        windows = torch.cat(parts)
        assert windows.shape == (frames, 16, 2)
        heard = torch.arange(frames)[:, None] * 2 + first + torch.arange(16)
        number = torch.where((heard >= 0) & (heard < tokens), heard + 1.0, 0.0)
        assert torch.equal(windows[..., 0], number) and torch.equal(windows[..., 1], -number)


def test_ahead_leaves_out_the_frames_that_the_published_inference_drops() -> None:
    frames = 30
    tokens = token_count(torch.zeros(frames * 640))
    windows = torch.cat(list(token_windows(iter(numbered(tokens, 500)), frames, "ahead")))
    assert tokens == 2 * frames - 1
    assert (windows[..., 0] > 0).all(dim=1).sum() == frames - 8


@pytest.mark.parametrize("samples", [640, 641, 1000, 16_000, 40_001])
def test_as_many_windows_as_frames(model: HubertModel, samples: int) -> None:
    samples = sound(3.0)[:samples]
    features = HubertFeatures(model, block=20)
    windows = torch.cat(list(features.windows(samples, "centred")))
    assert windows.shape == (frame_count(samples), 16, 32)
    assert torch.equal(windows[0, 8], joined(features, samples)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech recogniser's folder, as the published one."""
    path = tmp_path_factory.mktemp("hubert")
    torch.manual_seed(1)
    HubertForCTC(toy_hubert_config()).save_pretrained(path)
    return path


def copied(folder: Path, target: Path, **changes: Tensor | None) -> Path:
    """The folder with tensors added or, where None, left out."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {k: v for k, v in (tensors | changes).items() if v is not None}
    save_file(tensors, target / "model.safetensors")
    (target / "config.json").write_bytes((folder / "config.json").read_bytes())
    return target


def test_a_folder_of_a_recogniser(folder: Path) -> None:
    plain = HubertForCTC.from_pretrained(folder).eval().hubert
    with torch.no_grad():
        wanted = plain(extracted(sound(2.0))).last_hidden_state[0]
    assert_close(joined(HubertFeatures.from_folder(folder), sound(2.0)), wanted, 1e-5)


def test_what_is_installed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="sdtalk assets add hubert FOLDER"):
        HubertFeatures.installed()
    shutil.copytree(folder, tmp_path / "hubert")
    assert len(joined(HubertFeatures.installed(), sound(1.0))) == 49


def test_older_files_and_bare_networks(folder: Path, tmp_path: Path) -> None:
    wanted = joined(HubertFeatures.from_folder(folder), sound(1.0))
    tensors = load_file(folder / "model.safetensors")
    norm = "parametrizations.weight.original"
    old = {k.replace(f"{norm}0", "weight_g").replace(f"{norm}1", "weight_v"): v for k, v in tensors.items()}
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert torch.equal(joined(HubertFeatures.from_folder(tmp_path), sound(1.0)), wanted)
    HubertForCTC.from_pretrained(folder).hubert.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    assert torch.equal(joined(HubertFeatures.from_folder(tmp_path), sound(1.0)), wanted)


def test_bfloat16_hears_about_the_same(folder: Path) -> None:
    wanted = joined(HubertFeatures.from_folder(folder), sound(2.0))
    rough = joined(HubertFeatures.from_folder(folder, dtype=torch.bfloat16), sound(2.0))
    assert rough.dtype == torch.float32
    assert 0 < (rough - wanted).square().mean().sqrt() < 0.05 * wanted.std()


NORM = "hubert.encoder.layer_norm.weight"


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({NORM: None}, "1 of .* tensors are missing or misshapen, first 'encoder.layer_norm.weight'"),
        ({NORM: torch.zeros(31)}, "1 of .* tensors are missing or misshapen"),
        ({"hubert.adapter": torch.zeros(1)}, "'adapter' does not belong there"),
    ],
)
def test_weights_are_read_strictly(
    folder: Path, tmp_path: Path, changes: dict[str, Tensor | None], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        HubertFeatures.from_folder(copied(folder, tmp_path, **changes))


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"feat_extract_norm": "group"}, "over the whole recording"),
        ({"do_stable_layer_norm": False}, "not those of HuBERT-large"),
        ({"conv_stride": [5, 2, 2, 2, 2, 2, 1]}, "not 400 samples long and 320 apart"),
        ({"conv_kernel": [10, 3, 3, 3, 3, 2, 3]}, "not 400 samples long and 320 apart"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, changes: dict[str, object], problem: str) -> None:
    config = toy_hubert_config(**changes)
    with pytest.raises(InputError, match=problem):
        HubertFeatures(HubertModel(config))
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=problem):
        HubertFeatures.from_folder(tmp_path)


def test_bad_folders_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    def refused(problem: str) -> None:
        with pytest.raises(InputError, match=problem) as caught:
            HubertFeatures.from_folder(tmp_path)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)

    refused("no such file")
    config = tmp_path / "config.json"
    for text, problem in (
        ("{", "does not describe"),
        ("[]", "does not describe"),
        ('{"model_type": "vit"}', "'vit'"),
    ):
        config.write_text(text)
        refused(problem)
    config.write_bytes((folder / "config.json").read_bytes())
    refused("holds no weights")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not a checkpoint")
    refused("damaged")
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused("damaged")


def held_bytes() -> int:
    """What all living tensors hold together."""
    tensors = (thing for thing in gc.get_objects() if type(thing) is Tensor)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def test_nothing_is_kept_of_what_has_been_heard(model: HubertModel) -> None:
    samples = sound(120.0)

    def most(seconds: int, block: int) -> int:
        windows = HubertFeatures(model, block).windows(samples[: seconds * SAMPLE_RATE_HZ])
        return max(held_bytes() for _ in windows)

    tokens = 120 * 50 * 32 * 4  # bytes, had they been kept once
    gc.freeze()  # what lives already is not looked through for every window
    try:
        minute = most(60, 500)
        assert abs(most(120, 500) - minute) < tokens / 100
        assert most(60, ONE_PIECE) > minute + tokens / 5  # so the measure sees what it should
    finally:
        gc.unfreeze()


PEAK = """
import re, sys, torch
from pathlib import Path
from transformers import HubertModel
from sdtalk.speech.hubert import HubertFeatures
sys.path.insert(0, sys.argv[1])
from toy import toy_hubert_config
torch.set_num_threads(1)
model = HubertModel(toy_hubert_config(conv_dim=[8] * 7, num_hidden_layers=1))
samples = torch.randn(16000 * 60 * 12)
def peak(minutes, block):
    frames = sum(map(len, HubertFeatures(model, block).windows(samples[:16000 * 60 * minutes])))
    assert frames == 1500 * minutes
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
print(peak(1, 500), peak(12, 500), peak(2, 10**9))
"""


@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process its peak")
def test_peak_memory_does_not_grow_with_the_recording() -> None:
    command = [sys.executable, "-c", PEAK, str(Path(__file__).parent)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    minute, long, one_piece = map(int, output.split())  # MB at the most so far
    assert long - minute < 60  # the samples in double precision, held at once, would be 92
    assert one_piece - long > 100  # so the measure sees what it should
