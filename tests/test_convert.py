"""The authors' checkpoint: a made-up one of the true layout converts, loads and computes the published numbers."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import parity_rule
import pytest
import torch
from published import FIXTURES, assert_sampled, rule_checkpoint
from torch import Tensor

from sdtalk.__main__ import main
from sdtalk.camera import Camera
from sdtalk.checkpoint import load_model
from sdtalk.convert import convert
from sdtalk.errors import InputError
from sdtalk.head import HeadGaussians
from sdtalk.model import SDTalk
from sdtalk.published_checkpoint import table_edges
from sdtalk.published_keys import our_tensors, published_layout
from sdtalk.rendering.rasteriser import PUBLISHED_RULES, FeatureImage, rasterise
from sdtalk.tracking.head_track import HeadTrack


@pytest.fixture(scope="session")
def model(converted: Path) -> SDTalk:
    return load_model(converted)


def camera_of(transform: np.ndarray) -> Camera:
    return Camera.from_pytorch3d(torch.from_numpy(transform)[None])


def track_of(points: Tensor, camera: Camera, rows: Tensor | None) -> HeadTrack:
    eyes = torch.from_numpy(parity_rule.normal("in/h/eye", (1, 6)))
    chosen = points if rows is None else points[:, rows]
    return HeadTrack(camera, torch.zeros(1, 478, 3), chosen, eyes, rows)


def picture() -> Tensor:
    return torch.from_numpy(parity_rule.image("in/h/image518", 3, 518, 518))


@pytest.fixture(scope="module")
@torch.no_grad()
def head(model: SDTalk) -> HeadGaussians:
    """The person of fixture h, with the 1,920 completion points of stage 2."""
    fixture = np.load(FIXTURES / "h_forward.npz")
    points = torch.from_numpy(parity_rule.normal("in/h/f_points", (1, 5023, 3), 0.35))
    rows = torch.from_numpy(fixture["lip_mask"]).long()
    track = track_of(points, camera_of(fixture["f_transform"]), rows)
    return model.reconstruct(picture(), torch.ones(1, 1, 518, 518), track)


@pytest.fixture(scope="module")
@torch.no_grad()
def target(model: SDTalk, head: HeadGaussians) -> FeatureImage:
    """The person of fixture h, moved and rasterised at the target camera: fixture i."""
    fixture = np.load(FIXTURES / "h_forward.npz")
    windows = torch.from_numpy(parity_rule.normal("in/h/audio", (1, 16, 1024)))
    eyes = torch.from_numpy(parity_rule.normal("in/h/eye", (1, 6)))
    moved = model.animate(head, model.listen(windows), eyes)
    compare_rows(moved, fixture, "")
    return rasterise(moved, camera_of(fixture["t_transform"]), PUBLISHED_RULES)


def compare_rows(gaussians: object, fixture: np.lib.npyio.NpzFile, suffix: str) -> None:
    """The sampled Gaussians of a fixture; ten times the noise floor of the published modules.

    Motion makes rounding visible: the finest hash tables answer a shift of 1e-6 with one of some 1e-4.
    """
    motion = 0 if suffix else 5e-5
    limits = {
        "colors": ("features", 1.1e-4),
        "opacities": ("opacities", 1.8e-5 + motion),
        "scales": ("scales", 1.1e-6 + motion),
        "rotations": ("quats", 2.4e-4),
        "xyz": ("means", 2e-5 + motion),
    }
    rows = torch.from_numpy(fixture["rows"]).long()
    assert gaussians.means.shape[1] == int(fixture["count"])
    for theirs, (ours, atol) in limits.items():
        name = theirs + suffix
        if name not in fixture.files:
            assert suffix and theirs == "colors", name  # colours never move
            continue
        found = getattr(gaussians, ours)[0][rows]
        expected = torch.from_numpy(fixture[name]).reshape(found.shape)
        torch.testing.assert_close(found, expected, atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_every_tensor_arrives(converted: Path, model: SDTalk) -> None:
    ours = model.state_dict()
    seen = set()
    for key, tensor in rule_checkpoint().items():
        for name, part in our_tensors(key, tensor).items():
            assert torch.equal(ours[name], part), name
            seen.add(name)
    assert {name for name in ours if name not in seen} == {n for n in ours if n.endswith(".offsets")}
    card = (converted / "README.md").read_text(encoding="utf-8")
    assert "SHA-256" in card and "licence" in card


def test_the_hub_way_of_loading_gives_the_same_model(converted: Path, model: SDTalk) -> None:
    loaded = SDTalk.from_pretrained(converted)
    assert loaded.config == model.config and not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_the_reconstruction_is_the_published_one(head: HeadGaussians) -> None:
    compare_rows(head.gaussians, np.load(FIXTURES / "h_forward.npz"), "_static")


def test_the_whole_forward_up_to_the_picture_is_the_published_one(target: FeatureImage) -> None:
    fixture = np.load(FIXTURES / "i_raster_endtoend.npz")
    image = target.features[0]
    error = sampled_error(image, fixture, "image32")
    # a build of the same rasteriser with other rounding differs by 4.9e-3 at most: thresholds flip; so compare means
    assert error.mean() < 2e-5 and (error > 1e-3).float().mean() < 2e-3 and error.max() < 1e-2
    mean = torch.from_numpy(fixture["image32_channel_mean"])
    torch.testing.assert_close(image.mean((1, 2)), mean, atol=1e-5, rtol=0)
    rest = sampled_error(1 - target.alpha[0, 0], fixture, "final_T")
    assert rest.mean() < 1e-5 and rest.max() < 2e-2
    blocks = torch.nn.functional.avg_pool2d(target.features[:, :3], 8)[0]
    off = (blocks - torch.from_numpy(fixture["rgb_64px"])).abs()
    assert off.mean() < 2e-5 and off.max() < 5e-3


def sampled_error(ours: Tensor, fixture: np.lib.npyio.NpzFile, name: str) -> Tensor:
    assert tuple(ours.shape) == tuple(fixture[f"{name}__shape"].tolist())
    index = torch.from_numpy(fixture[f"{name}__idx"]).long()
    return (ours.flatten()[index] - torch.from_numpy(fixture[f"{name}__val"])).abs()


@pytest.mark.parametrize(("noise", "name"), [("stored", "frame_noise_buffers"), ("none", "frame_zero_noise")])
@torch.no_grad()
def test_the_frame_is_the_published_one(
    model: SDTalk, target: FeatureImage, monkeypatch: pytest.MonkeyPatch, noise: str, name: str
) -> None:
    fixture = np.load(FIXTURES / "i_raster_endtoend.npz")
    monkeypatch.setattr(model.neural_renderer, "noise", noise)
    frame = model.neural_renderer(target.features)
    error = sampled_error(frame, fixture, name)
    assert error.mean() < 5e-5 and error.max() < 8e-3
    if noise == "none":
        blocks = torch.nn.functional.avg_pool2d(frame, 8)[0]
        expected = torch.from_numpy(fixture["frame_zero_noise_64px"])
        torch.testing.assert_close(blocks, expected, atol=2e-3, rtol=0)


@torch.no_grad()
def test_stage_one_is_the_published_one(model: SDTalk) -> None:
    """All 5,023 completion points, at the target's tracked vertices."""
    fixture = np.load(FIXTURES / "h_stage1.npz")
    points = torch.from_numpy(parity_rule.normal("in/h/t_points", (1, 5023, 3), 0.35))
    source = camera_of(np.load(FIXTURES / "h_forward.npz")["f_transform"])
    head = model.reconstruct(picture(), torch.ones(1, 1, 518, 518), track_of(points, source, None))
    compare_rows(head.gaussians, fixture, "")


@torch.no_grad()
def test_a_converted_checkpoint_has_no_memory_of_a_person(model: SDTalk, head: HeadGaussians) -> None:
    """The published code caches the first identity (reference Q16)."""
    before = head.gaussians.features.clone()
    points = torch.zeros(1, 5023, 3)
    camera = head.rest
    other = model.reconstruct(1 - picture(), torch.ones(1, 1, 518, 518), track_of(points, camera, None))
    assert torch.equal(head.gaussians.features, before)
    assert not torch.equal(other.gaussians.features[:, 5023:], before[:, 1920:])


# --- what is refused ---

TINY = {
    key: torch.zeros(()).to(getattr(torch, dtype)).expand(shape)
    for key, (shape, dtype) in published_layout().items()
}


def tampered(path: Path, **changes: object) -> Path:
    """A file of the published layout with some tensors replaced (None: removed); zeros take no room."""
    tensors: dict[str, object] = {k: v for k, v in TINY.items() if changes.get(k, 0) is not None}
    tensors |= {key: edges_or(key, value) for key, value in tensors.items()}
    tensors |= {key: value for key, value in changes.items() if value is not None}
    torch.save({"model": tensors}, path)
    return path


def edges_or(key: str, value: object) -> object:
    return table_edges() if key.endswith(".offsets") else value


class Malicious:
    def __reduce__(self) -> tuple:
        return print, ("this must never be printed",)


WRONG = {
    "missing": ({"head_base": None}, "1 of 679 tensors are missing, first 'head_base'"),
    "stage 1": (
        {key: None for key in published_layout() if key.startswith("motion_net_")},
        "looks like a stage-1 model",
    ),
    "extra": ({"head_bas": torch.zeros(1)}, "'head_bas' does not belong there"),
    "shape": ({"head_base": torch.zeros(5023, 255)}, "has the shape (5023, 255) instead of (5023, 256)"),
    "dtype": ({"head_base": torch.zeros(5023, 256).half()}, "is of type float16 instead of float32"),
    "NaN": ({"head_base": torch.full((5023, 256), torch.nan)}, "holds values that are not numbers"),
    "no tensor": ({"head_base": [1.0]}, "'head_base' is no tensor"),
    "tables": ({"motion_net_dense.encoder_xy.offsets": table_edges() + 8}, "hash table sizes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_tampered_checkpoint_is_refused(case: str, tmp_path: Path) -> None:
    changes, reason = WRONG[case]
    path = tampered(tmp_path / "SDGTalk.pt", **changes)
    with pytest.raises(InputError, match="SDGTalk.pt") as error:
        convert(path, tmp_path / "out")
    assert reason in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["SDGTalk.pt"]


def malicious_pickle(path: Path) -> None:
    torch.save({"model": {"head_base": Malicious()}}, path)


def plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Malicious()}))


def cut_short(path: Path) -> None:
    torch.save({"model": {"head_base": torch.zeros(5023, 256)}}, path)
    path.write_bytes(path.read_bytes()[:100_000])


def no_model(path: Path) -> None:
    torch.save({"state_dict": {}}, path)


def other_sound(path: Path) -> None:
    tampered(path)
    held = torch.load(path, weights_only=True)
    torch.save({**held, "meta_cfg": {"AUDIO_DRIVE_MODEL": {"AUDIO_EXTRACTOR": "wav2vec2"}}}, path)


REFUSED = {
    malicious_pickle: "could run code",
    plain_pickle: "could run code",
    cut_short: "no complete PyTorch checkpoint",
    no_model: "holds no 'model'",
    other_sound: "'wav2vec2' features",
    lambda path: path.write_text("hello"): "",
    lambda path: None: "no such file",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda m: getattr(m, "__name__", "?"))
def test_files_that_are_something_else_are_refused(
    make, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "SDGTalk.pt"
    make(path)
    before = sorted(tmp_path.iterdir())
    assert main(["convert", str(path), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert (
        REFUSED[make] in printed.err
        and printed.err.count("\n") == 1
        and "never be printed" not in printed.out
    )
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "keep.txt").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        convert(tampered(tmp_path / "SDGTalk.pt"), tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        convert(tmp_path / "SDGTalk.pt", tmp_path / "nowhere" / "out")
    assert (tmp_path / "out" / "keep.txt").read_text() == "mine"


def test_a_converted_checkpoint_with_another_config_is_refused(converted: Path, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path / "copy", copy_function=lambda a, b: Path(b).symlink_to(a))
    values = json.loads((converted / "config.json").read_text())
    (tmp_path / "copy" / "config.json").unlink()
    (tmp_path / "copy" / "config.json").write_text(json.dumps(values | {"plane_size": 296, "head_width": 64}))
    with pytest.raises(InputError, match="has the shape"):
        load_model(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").write_text(json.dumps(values | {"image_encoder": "vgg"}))
    with pytest.raises(InputError, match="image_encoder = 'vgg' is none of"):
        load_model(tmp_path / "copy")


def test_sampled_values_are_compared_at_all() -> None:
    """The comparison itself notices a wrong value."""
    fixture = np.load(FIXTURES / "a_planes.npz")
    with pytest.raises(AssertionError):
        assert_sampled(torch.zeros(296 * 296, 3), fixture, "cam0_size296_points", atol=1e-5)
