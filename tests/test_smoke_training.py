"""Smoke test of training: raw videos to an evaluated checkpoint, by the commands of training/README.md."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from script_processes import awaited, start_script
from test_prepare import film, scene  # noqa: F401 - the fixture
from test_video import ffmpeg
from toy_training import changed, weights

from sdtalk.checkpoint import load_model

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT.parent / "shared" / "samples"
SHORTER = (
    "steps=4",
    "checkpoints.every=2",
    "log.every=1",
    "log.samples_every=4",
    "log.sample_frames=4",
)
"""As many checkpoints, lines in the log and samples as the twenty steps of the smoke settings give."""
SECONDS = 1.72
"""Of each clip; what is shorter than 1.5 s is rejected."""

CLIPS = ("LipNet__evaluation_samples_GRID_bbaf2n.mpg", "syncvoice__Grid_sample1_gt@s7_bbal2p.mp4")


@pytest.fixture
def manifest(tmp_path: Path, scene: np.ndarray) -> Path:  # noqa: F811
    """The beginnings of two clips of real people where there are any, else of a portrait that is panned."""
    whole = [SAMPLES / "clips" / name for name in CLIPS]
    if all(path.is_file() for path in whole):
        paths = [tmp_path / path.name for path in whole]
        for path, beginning in zip(whole, paths, strict=True):
            ffmpeg("-i", path, "-t", str(SECONDS), "-c", "copy", beginning)
    else:
        paths = [film(tmp_path / f"{name}.mp4", scene, SECONDS) for name in ("one", "two")]
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


def test_from_raw_videos_to_an_evaluated_checkpoint(tmp_path: Path, manifest: Path) -> None:
    data, runs, results, printed = (tmp_path / name for name in ("data", "runs", "results", "printed"))

    def run(*command: object) -> None:
        awaited(start_script(printed, *command), printed)

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
    assert (runs / "2" / "samples" / "step000004.mp4").is_file()
    run("training/evaluate.py", data, "--model", runs / "2" / "model", "-o", results, "--limit-seconds", 1)
    found = json.loads((results / "results.json").read_text())
    assert len(found["clips"]) == 1
    assert {p.name for p in results.iterdir()} >= {"results.json", "results.md", "index.html"}
    assert "SDTalk (paper)" in (results / "results.md").read_text()
