"""Tests of the plots of training curves."""

import numpy as np
import pytest
from PIL import Image

from training.checkpoints import RunFolder
from training.curves import main, read_log, running_mean


def test_a_plot_of_two_runs(tmp_path) -> None:
    for name, losses in (("one", ("image", "lip")), ("other", ("image", "alpha", "edges", "sound", "total"))):
        (tmp_path / name).mkdir()
        for step in range(1, 30):
            RunFolder(tmp_path / name).log(
                {"step": step, **{f"loss/{k}": 1 / step for k in losses}, "rate/x": 1}
            )
    assert set(read_log(tmp_path / "one")) == {"step", "loss/image", "loss/lip"}
    target = tmp_path / "curves.png"
    assert main([str(tmp_path / "one"), str(tmp_path / "other"), "-o", str(target)]) == 0
    with Image.open(target) as picture:
        assert picture.width > 1000 and np.asarray(picture.convert("L")).std() > 5


def test_the_running_mean_by_hand() -> None:
    assert running_mean(np.array([1.0, 3, 5, 7]), 2).tolist() == [1, 2, 4, 6]


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_run_without_a_log_is_named(tmp_path, capsys, text) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert main([str(tmp_path)]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_named(tmp_path, capsys) -> None:
    RunFolder(tmp_path).log({"step": 1, "loss/image": 1.0})
    assert main([str(tmp_path), "-o", str(tmp_path / "no" / "x.png")]) == 2
    assert main([str(tmp_path), "-o", str(tmp_path / "x.bmpp")]) == 2
    assert capsys.readouterr().err.count("cannot be written") == 2
