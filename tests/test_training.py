"""Training scripts, tested by running them on made-up clips with a toy model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_heads import with_opening
from PIL import Image
from safetensors.torch import load_file, save_file

from sdtalk.camera import FACING
from sdtalk.config import SDTalkConfig
from sdtalk.model import SDTalk
from training import train
from training.mini import start, train_motion
from training.dataset import FramePairs, load_clips
from training.losses import lifting_loss, lip_weight

TOY = SDTalkConfig(
    name="toy", encoder_width=8, local_channels=8, global_width=8, plane_size=32, template_width=8, feature_channels=8,
    hash_levels=3, hash_finest_resolution=16, hash_log2_table=8, motion_width=8, audio_width=8, renderer_width=4,
)  # fmt: skip
FRAMES = 6


def write_clip(folder: Path, seed: int) -> None:
    """A grey disc of a head whose mouth opens and closes, in the layout of training/prepare.py."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    pose = torch.eye(4).repeat(FRAMES, 1, 1)
    pose[:, :3, :3], pose[:, 2, 3] = FACING, 9.5
    mesh = torch.cat([with_opening(o) for o in np.linspace(0, 1, FRAMES)])
    np.savez(
        folder / "clip.npz",
        world_to_camera=pose.numpy(), mesh=mesh.numpy(), mouth=np.zeros((FRAMES, 5), np.float32),
        eyes=np.full((FRAMES, 6), 0.05, np.float32), audio=np.zeros(FRAMES * 640, np.float32),
    )  # fmt: skip
    for frame in range(FRAMES):
        pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((512, 512)).save(folder / f"{frame:05d}.jpg")
        Image.fromarray(np.full((512, 512), 255, np.uint8)).save(folder / f"{frame:05d}.png")
    facts = {"identity": str(seed), "own_speech_audio": True, "dataset": "made up"}
    (folder / "facts.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    for seed in (1, 2):
        write_clip(folder / f"clip{seed}", seed)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("toy")
    SDTalk(TOY).save_pretrained(folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, script, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


def changed(before: Path, after: Path) -> set[str]:
    a, b = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


def test_the_motion_stage_trains_the_fields_only(monkeypatch, prepared, checkpoint, tmp_path) -> None:
    run(monkeypatch, train_motion, prepared, checkpoint, "-o", tmp_path, "--steps", 2)
    assert changed(checkpoint, tmp_path) == {"coarse_field", "fine_field"}


@pytest.mark.parametrize(
    "stage, parts",
    [(1, {"reconstructor", "neural_renderer"}), (2, {"coarse_field", "fine_field", "neural_renderer"})],
)
def test_a_stage_trains_its_parts_only(monkeypatch, prepared, checkpoint, tmp_path, stage, parts) -> None:
    run(monkeypatch, train, stage, prepared, checkpoint, "-o", tmp_path, "--steps", 2, "--save-every", 2)
    assert changed(checkpoint, tmp_path) == parts
    assert (tmp_path / "step000002.jpg").is_file() and len(
        (tmp_path / "losses.csv").read_text().splitlines()
    ) == 2


def test_a_resumed_run_ends_like_an_uninterrupted_one(monkeypatch, prepared, checkpoint, tmp_path) -> None:
    arguments = (1, prepared, checkpoint, "--steps", 4, "--save-every", 2)
    run(monkeypatch, train, *arguments, "-o", tmp_path / "straight")
    real_save, saved = train.save, []

    def interrupt(*args) -> None:
        real_save(*args)
        saved.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, train, *arguments, "-o", tmp_path / "resumed")
    monkeypatch.setattr(train, "save", real_save)
    run(monkeypatch, train, *arguments, "-o", tmp_path / "resumed")
    assert len(saved) == 1
    assert changed(tmp_path / "straight", tmp_path / "resumed") == set()


def test_a_fresh_checkpoint_carries_a_trained_audio_encoder(monkeypatch, tmp_path) -> None:
    run(monkeypatch, start, tmp_path / "first", "--seed", 1)
    weights = load_file(tmp_path / "first" / "model.safetensors")
    own = {k.removeprefix("audio_encoder."): v for k, v in weights.items() if k.startswith("audio_encoder.")}
    save_file(own, tmp_path / "audio.safetensors")
    run(
        monkeypatch,
        start,
        tmp_path / "second",
        "--seed",
        2,
        "--audio-encoder",
        tmp_path / "audio.safetensors",
    )
    assert "audio_encoder" not in changed(tmp_path / "first", tmp_path / "second")


def test_pairs_depend_on_their_number_alone(prepared) -> None:
    clips = load_clips(prepared)
    first, again = (FramePairs(clips, 10, seed=3)[4] for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_empty_folder_is_refused(tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"prepare\.py"):
        load_clips(tmp_path)


def test_lip_weight_covers_the_lips_alone() -> None:
    weight = lip_weight(torch.tensor([[[10.0, 20.0], [30.0, 28.0]]]), 64, 5.0)[0, 0]
    assert weight[24, 20] == 5 and weight[0, 0] == 1 and weight[40, 20] == 1


def test_lifting_loss_is_the_squared_distance_to_the_nearest_point() -> None:
    mesh, lifted = torch.zeros(1, 3, 3), torch.tensor([[[0.0, 0.0, 2.0], [0.0, 1.0, 0.0]]])
    assert lifting_loss(mesh, lifted) == 1
