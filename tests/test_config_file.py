"""Tests of config.json across versions: what version 0.1 saved still loads everywhere, and what is newer is refused."""

import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stand_in import OWNER, HubStandIn
from huggingface_hub import HfApi
from toy import TOY, TOY_BASE, save_portrait, save_speech

from sdtalk.camera import Camera
from sdtalk.checkpoint import load_model, read_config
from sdtalk.config import BASE, FORMAT, SDTalkConfig
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.published.convert import published_config
from sdtalk.tracking.head_track import HeadTrack
from sdtalk.video import read_frames
from sdtalk.weights.assets import FOLDER
from sdtalk.weights.config_file import config_from_json, config_to_json, write_config

OLD = Path(__file__).parent / "fixtures" / "saved_by_0.1.0.zip"
"""A folder that `save_pretrained` of version 0.1.0 wrote of a toy with random weights, and what that version computed
with it: recorded.npz. Nobody can make it anew without that version, so it is not to be replaced."""

REPO = f"{OWNER}/old"
LATER = (
    "completion_branch",
    "fine_field",
    "prior_depth",
    "prior_colour",
    "still_shoulders",
    "canonical_positions",
    "lying_gaussians",
    "hair_behind",
    "photo_texture",
)
"""Fields that came after the first models were saved, and before config.json had a number."""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    shutil.unpack_archive(OLD, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def repeated_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.1.0 continued photos by their outermost pixels, not in the mirror; that is no part of a model."""
    plain = torch.nn.functional.pad

    def pad(
        x: torch.Tensor, size: tuple[int, ...], mode: str = "constant", **options: object
    ) -> torch.Tensor:
        return plain(x, size, "replicate" if mode == "reflect" else mode, **options)

    monkeypatch.setattr(torch.nn.functional, "pad", pad)


def config_of(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def change(folder: Path, **entries: object) -> Path:
    """Change entries of a folder's config; None: take them out."""
    values = {k: v for k, v in (config_of(folder) | entries).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@torch.no_grad()
def computed(model: SDTalk, recorded: dict[str, torch.Tensor]) -> torch.Tensor:
    """Two frames from the picture, the track and the sound that were recorded."""

    def cameras(count: int) -> Camera:
        of_one = recorded["world_to_camera"], recorded["intrinsics"]
        return Camera(*(part.repeat(count, 1, 1) for part in of_one), *recorded["picture"].shape[2:])

    track = HeadTrack(cameras(1), recorded["mesh"], recorded["completion_points"], recorded["photo_eyes"])
    head = model.reconstruct(recorded["picture"], torch.ones_like(recorded["picture"][:, :1]), track)
    return model(head, model.encode_audio(recorded["sound"]), recorded["eyes"], cameras(2)).colours


def test_what_the_version_before_saved_computes_the_same_however_it_is_loaded(
    old: Path, hub: HubStandIn, repeated_border: None
) -> None:
    assert "format" not in config_of(old)
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=old)
    recorded = {name: torch.from_numpy(array) for name, array in np.load(old / "recorded.npz").items()}
    ways: dict[str, Callable[[], SDTalk]] = {
        "folder": lambda: SDTalk.from_pretrained(old),
        "Hub": lambda: SDTalk.from_pretrained(REPO),
        "strictly": lambda: load_model(old),
        "strictly from the Hub": lambda: load_model(REPO),
        "pipeline": lambda: SDTalkPipeline.from_pretrained(old, "cpu").model,
    }
    for way, load in ways.items():
        model = load()
        assert model.config.name == "saved before formats", way
        torch.testing.assert_close(computed(model, recorded), recorded["colours"], atol=1e-4, rtol=0)


def test_it_is_saved_in_the_new_format_and_is_still_the_same(
    old: Path, tmp_path: Path, hub: HubStandIn
) -> None:
    model = SDTalk.from_pretrained(old)
    model.save_pretrained(tmp_path / "new")
    model.push_to_hub(REPO)
    saved = config_of(tmp_path / "new")
    assert saved["format"] == FORMAT and saved.items() >= config_of(old).items()
    for source in (tmp_path / "new", REPO):
        again = SDTalk.from_pretrained(source)
        assert again.config == model.config
        assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


def test_it_talks(old: Path, tmp_path: Path) -> None:
    portrait = save_portrait(tmp_path / "photo.png")
    speech = save_speech(tmp_path / "speech.wav", 0.2)
    pipeline = SDTalkPipeline.from_pretrained(old, "cpu")
    talk = pipeline(portrait, speech, tmp_path / "talk.mp4")
    assert len(list(read_frames(talk.path))) == len(talk) == 5


def test_fields_that_came_later_are_what_models_did_before(old: Path, repeated_border: None) -> None:
    recorded = {name: torch.from_numpy(array) for name, array in np.load(old / "recorded.npz").items()}
    whole = read_config(old)
    model = SDTalk.from_pretrained(change(old, **dict.fromkeys(LATER)))
    assert model.config == whole == load_model(old).config
    torch.testing.assert_close(computed(model, recorded), recorded["colours"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "config", [TOY, TOY_BASE, SDTalkConfig(), BASE, published_config()], ids=lambda c: c.name
)
def test_a_config_survives_writing_and_reading(config: SDTalkConfig, tmp_path: Path) -> None:
    write_config(config, tmp_path)
    assert read_config(tmp_path) == config
    assert (
        config_from_json(asdict(config), "config.json") == config
    )  # as 0.1 wrote it, by `convert` and in training


def test_the_bundled_model_is_written_as_this_version_writes() -> None:
    assert config_of(FOLDER / "mini") == config_to_json(read_config(FOLDER / "mini"))


FORMAT_NOW = {"format": FORMAT, "photo_texture": True}
"""What makes the old file one of this format, whose absent entry that comes first is the one taken out."""

REFUSED = {
    "newer format": (
        {"format": FORMAT + 1, "colour": 1},
        f"it was made by a newer SDTalk (format {FORMAT + 1}, this one reads up to {FORMAT}). Upgrade sdtalk.",
    ),
    "unknown field": ({"colour": 1}, "a newer SDTalk (the entry 'colour' is unknown here). Upgrade sdtalk."),
    "unknown field in this format": ({"format": FORMAT, "colour": 1}, "(the entry 'colour' is unknown here)"),
    "missing field": ({"plane_size": None}, "the entry 'plane_size' is missing"),
    "later field missing in this format": ({**FORMAT_NOW, "fine_field": None}, "the entry 'fine_field' is missing"),
    "format zero": ({"format": 0}, "format = 0 is not possible"),
    "format of another type": ({"format": "2"}, "format = '2' is not possible"),
    "format that is true": ({"format": True}, "format = True is not possible"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_newer_or_not_whole_is_refused_however_it_is_loaded(
    kind: str, old: Path, hub: HubStandIn
) -> None:
    entries, says = REFUSED[kind]
    change(old, **entries)
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=old)
    for load in (SDTalk.from_pretrained, load_model, SDTalkPipeline.from_pretrained):
        for source in (old, REPO):
            with pytest.raises(InputError) as error:
                load(source)
            assert (
                "config.json: " in str(error.value)
                and says in str(error.value)
                and "\n" not in str(error.value)
            )


def test_every_field_says_what_older_files_mean() -> None:
    """A new field without it would refuse every checkpoint that anybody has: declare it with `added`."""
    with zipfile.ZipFile(OLD) as archive:
        written = json.loads(archive.read("config.json"))
    missing = {f.name for f in fields(SDTalkConfig) if "since" not in f.metadata} - set(written)
    assert not missing, f"declare {missing} with `added` in sdtalk/config.py, and raise FORMAT"
    since = [f.metadata["since"] for f in fields(SDTalkConfig) if f.metadata]
    assert max(since) == FORMAT, "FORMAT is that of the newest field"
    assert {f.name for f in fields(SDTalkConfig) if f.metadata.get("since") == 2} == set(LATER)
