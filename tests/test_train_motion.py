"""Tests of mini's stage 0 and of the initial checkpoint, on made-up clips with a toy model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_data import make_prepared
from safetensors.torch import load_file, save_file
from toy import TOY

from sdtalk.model import SDTalk
from sdtalk.tracking.face_model import LIPS, FaceModel
from training.data.dataset import PreparedDataset
from training.data.loader import PairLoader
from training.mini import assemble_checkpoint, train_motion
from training.mini.geometry_loss import RIM_POINTS, GeometryLoss, SurfaceSampler, outer_rim
from training.mini.train_motion import PAIRS, TrackPairSampler, blink_frames


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return make_prepared(tmp_path_factory.mktemp("data") / "set", clips=2, frames=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("toy")
    SDTalk(TOY).save_pretrained(folder)
    return folder


def changed(before: Path, after: Path) -> set[str]:
    a, b = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}


def test_the_motion_stage_trains_the_fields_only(prepared, checkpoint, tmp_path) -> None:
    options = [prepared.store.source, str(checkpoint), "-o", str(tmp_path), "--steps", "2"]
    assert train_motion.main(options) == 0
    assert changed(checkpoint, tmp_path) == {"coarse_field", "fine_field"}


def test_what_is_no_set_is_refused(checkpoint, tmp_path, capsys) -> None:
    assert train_motion.main([str(tmp_path), str(checkpoint), "-o", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint_is_refused(prepared, tmp_path, capsys) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert train_motion.main([prepared.store.source, nowhere, "-o", str(tmp_path / "out")]) == 2
    assert assemble_checkpoint.main([str(tmp_path / "out"), "--audio-encoder", nowhere]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "no such folder" in first and "no audio encoder" in second
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "left_out, inside", [({"fine_field": False}, True), ({"completion_branch": False}, False)]
)
def test_a_field_alone_learns_what_it_moves(prepared, left_out: dict, inside: bool, tmp_path) -> None:
    model, geometry = SDTalk(replace(TOY, **left_out)), GeometryLoss()
    batch = next(iter(PairLoader(prepared, 2, 1)))
    before = geometry(model, batch)
    moved = geometry(model, batch | {"target_points": batch["target_points"] + 0.01})
    assert (moved != before) == inside
    model.save_pretrained(tmp_path / "in")
    options = [prepared.store.source, str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--steps", "1"]
    assert train_motion.main(options) == 0
    assert changed(tmp_path / "in", tmp_path / "out") == {"coarse_field"}


def test_pairs_are_of_one_clip(prepared) -> None:
    import numpy as np

    batch = TrackPairSampler(prepared, "train").pairs(np.random.default_rng(0))
    assert batch["source_points"].shape == (PAIRS, 1920, 3)
    clips = [prepared.clip(entry) for entry in prepared.index.clips]
    for source, target in zip(batch["source_mouth"], batch["target_mouth"], strict=True):
        assert any((c.mouth == source).all(1).any() and (c.mouth == target).all(1).any() for c in clips)


def test_blinks_are_frames_with_closer_lids() -> None:
    eyes = torch.full((20, 6), 0.06)
    eyes[[4, 11], :2] = eyes[[4, 11], 3:5] = 0.02
    assert blink_frames(eyes).tolist() == [4, 11]


def test_points_move_as_the_surface_does() -> None:
    face = FaceModel.bundled()
    points = SurfaceSampler(face).draw([torch.Generator().manual_seed(0)])
    linear, shift = torch.randn(3, 3), torch.randn(3)
    mesh = face.canonical_face[None]
    moved = points.moved(mesh, mesh @ linear.T + shift)[0]
    wanted = points.positions[0] @ (linear - torch.eye(3)).T + shift
    inner = slice(None, -RIM_POINTS)
    torch.testing.assert_close(moved[inner], wanted[inner], atol=1e-4, rtol=1e-4)
    edge = points.vertices[0, -RIM_POINTS:, 0]
    torch.testing.assert_close(moved[-RIM_POINTS:], (mesh @ linear.T + shift - mesh)[0, edge])
    assert points.importance[0, torch.isin(points.vertices[0], torch.tensor(LIPS)).all(1)].min() > 4.9
    beyond = points.positions[0, -RIM_POINTS:] - face.canonical_face[edge]
    assert beyond[:, 2].max() <= 0 and beyond.norm(dim=1).max() < 0.26


def test_the_rim_is_where_one_triangle_ends() -> None:
    square = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]])
    assert outer_rim(square).tolist() == [0, 1, 2, 3]


def test_the_geometry_of_a_batch_is_the_mean_over_its_samples(prepared, checkpoint) -> None:
    model, geometry = SDTalk.from_pretrained(checkpoint), GeometryLoss()
    whole = next(iter(PairLoader(prepared, 4, 1)))
    parts = [{name: value[i : i + 1] for name, value in whole.items()} for i in range(4)]
    losses = torch.stack([geometry(model, part) for part in parts])
    torch.testing.assert_close(geometry(model, whole), losses.mean())
    assert losses.unique().numel() == 4


def test_the_geometry_teaches_both_fields(prepared, checkpoint) -> None:
    model, geometry = SDTalk.from_pretrained(checkpoint), GeometryLoss()
    batch = next(iter(PairLoader(prepared, 4, 1)))
    fields = [*model.coarse_field.parameters(), *model.fine_field.parameters()]
    optimiser = torch.optim.Adam(fields, lr=1e-2)
    losses = []
    for _ in range(30):
        loss = geometry(model, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_fresh_checkpoint_carries_a_trained_audio_encoder(tmp_path) -> None:
    assemble_checkpoint.main([str(tmp_path / "first"), "--seed", "1"])
    weights = load_file(tmp_path / "first" / "model.safetensors")
    own = {k.removeprefix("audio_encoder."): v for k, v in weights.items() if k.startswith("audio_encoder.")}
    save_file(own, tmp_path / "audio.safetensors")
    assemble_checkpoint.main(
        [str(tmp_path / "second"), "--seed", "2", "--audio-encoder", str(tmp_path / "audio.safetensors")]
    )
    assert "audio_encoder" not in changed(tmp_path / "first", tmp_path / "second")
