"""Tests of the demo's model cache: which models are found, under which names, and that one at a time is kept."""

import gc
import os
import weakref
from pathlib import Path

import pytest
from toy import toy_model

from sdtalk.checkpoint import find_models
from sdtalk.demo.model_cache import ModelCache
from sdtalk.errors import InputError
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.tracking.tracker import Tracker


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that does not exist yet."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def kept(home: Path, name: str, **sizes: int) -> Path:
    folder = home / "models" / name
    toy_model(**sizes).save_pretrained(folder)
    return folder


def test_mini_is_always_there(home: Path) -> None:
    assert find_models() == {"mini": "mini"}
    (home / "models" / "nothing").mkdir(parents=True)
    (home / "models" / "note.txt").write_text("mine")
    assert find_models() == {"mini": "mini"}


def test_given_then_bundled_then_kept(home: Path, tmp_path: Path) -> None:
    b, a = kept(home, "b"), kept(home, "a")
    given = tmp_path / "given"
    toy_model().save_pretrained(given)
    found = find_models((str(given), "user/name"))
    assert list(found.items()) == [
        ("given", str(given)), ("user/name", "user/name"), ("mini", "mini"), ("a", str(a)), ("b", str(b)),
    ]  # fmt: skip


def test_a_folder_that_is_being_written_is_no_model(home: Path) -> None:
    kept(home, ".SDGTalk-x7c")  # as `sdtalk convert` calls it until it is whole
    assert find_models() == {"mini": "mini"}


def test_every_model_is_there_once_and_has_a_name_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = kept(home, "talk")
    others = [tmp_path / place / "talk" for place in ("x", "y")]
    for folder in (*others, home / "models" / "mini"):
        toy_model().save_pretrained(folder)
    os.symlink(own, tmp_path / "link")
    found = find_models(("x/talk", "./y/talk/", "mini", str(own), f"{own}/", "link", "x/talk"))
    assert found == {
        "talk": str(others[0]),
        "talk (2)": str(others[1]),
        "mini": "mini",
        "talk (3)": str(own),
        "mini (2)": str(home / "models" / "mini"),
    }
    monkeypatch.chdir(own)
    assert find_models((".",)) == {"talk": str(own), "mini": "mini", "mini (2)": found["mini (2)"]}


def test_a_pipeline_is_loaded_when_wanted_and_the_last_one_kept(home: Path) -> None:
    kept(home, "a", motion_width=8)
    kept(home, "b", motion_width=12)
    cache = ModelCache(find_models(), "cpu")
    assert cache.names == ["mini", "a", "b"] and cache.pipeline is None
    first = cache.pipeline_for("a")
    assert first.model.config.motion_width == 8 and cache.pipeline_for("a") is first
    seen = weakref.ref(first.model)
    del first
    second = cache.pipeline_for("b")
    gc.collect()
    assert second.model.config.motion_width == 12 and cache.pipeline is second
    assert seen() is None, "a large model fills a laptop"


def test_a_model_that_fails_leaves_the_last_one(home: Path) -> None:
    kept(home, "good")
    broken = kept(home, "broken")
    (broken / "model.safetensors").write_bytes(b"cut off")
    cache = ModelCache(find_models(), "cpu")
    pipeline = cache.pipeline_for("good")
    with pytest.raises(InputError, match="broken.*not a complete safetensors file"):
        cache.pipeline_for("broken")
    assert cache.pipeline_for("good") is pipeline and cache.name == "good"
    with pytest.raises(KeyError):
        cache.pipeline_for(str(broken))
    assert cache.pipeline_for("good") is pipeline


def test_a_shelf_of_one() -> None:
    pipeline = SDTalkPipeline(toy_model(), Tracker.from_bundled())
    cache = ModelCache.of_one(pipeline)
    assert cache.names == ["mini"] and cache.pipeline_for("mini") is pipeline
