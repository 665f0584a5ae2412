"""Smoke test of training: raw videos to an evaluated checkpoint, by the commands of training/README.md."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_prepare import film, scene  # noqa: F401 - the fixture
from toy_training import changed, weights

from sdtalk.checkpoint import load_model

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT.parent / "shared" / "samples"
SHORTER = (
    "steps=8",
    "checkpoints.every=4",
    "log.every=2",
    "log.samples_every=8",
    "log.sample_frames=8",
)
"""As many checkpoints, lines in the log and samples as the twenty steps of the smoke settings give."""
CLIPS = ("LipNet__evaluation_samples_GRID_bbaf2n.mpg", "syncvoice__Grid_sample1_gt@s7_bbal2p.mp4")


@pytest.fixture
def manifest(tmp_path: Path, scene: np.ndarray) -> Path:  # noqa: F811
    """Two short clips of real people where there are any, else of a portrait that is panned."""
    paths = [SAMPLES / "clips" / name for name in CLIPS]
    if not all(path.is_file() for path in paths):
        paths = [film(tmp_path / f"{name}.mp4", scene, 2.0) for name in ("one", "two")]
    entries = [
        {
            "file": os.fspath(path),
            "split": split,
            "identity": path.stem,
            "own_speech_audio": True,
            "dataset": "smoke",
        }
        for path, split in zip(paths, ("train", "dev"), strict=True)
    ]
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(entries))
    return path


def run(*command: object) -> None:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_from_raw_videos_to_an_evaluated_checkpoint(tmp_path: Path, manifest: Path) -> None:
    data, runs, results = tmp_path / "data", tmp_path / "runs", tmp_path / "results"
    run("training/prepare.py", manifest, "-o", data)
    for stage, start in ((1, "mini"), (2, runs / "1" / "model")):
        changes = [*SHORTER, f"data.source={data}", f"output={runs / str(stage)}", f"start={start}"]
        run("training/train.py", f"training/configs/smoke_stage{stage}.yaml", "--set", *changes)
    first, second = (weights(runs / stage / "model") for stage in "12")
    assert changed(weights(ROOT / "sdtalk" / "assets" / "mini"), first) == {
        "reconstructor",
        "neural_renderer",
    }
    assert changed(first, second) == {"coarse_field", "fine_field", "neural_renderer"}
    assert load_model(runs / "2" / "model").config.name
    assert (runs / "2" / "samples" / "step000008.mp4").is_file()
    run("training/evaluate.py", data, "--model", runs / "2" / "model", "-o", results, "--limit-seconds", 1)
    found = json.loads((results / "results.json").read_text())
    assert len(found["clips"]) == 1
    assert {p.name for p in results.iterdir()} >= {"results.json", "results.md", "index.html"}
    assert "SDTalk (paper)" in (results / "results.md").read_text()
