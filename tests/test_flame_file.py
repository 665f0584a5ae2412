"""Tests of reading FLAME files: every form they come in, what is refused, and the asset that is kept."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import made_up_flame as made_up
import numpy as np
import pytest
import torch
from made_up_flame import archive, made_up_flame, npy_of_object
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdtalk.errors import InputError
from sdtalk.flame.file import add_flame, load_flame, read_flame
from sdtalk.flame.layer import FlameModel
from sdtalk.tracking.landmarks68 import FIRST_MESH_LANDMARK


@pytest.fixture(scope="module")
def forms() -> dict[str, bytes]:
    """The files of the made-up model, by a word for their form."""
    return {
        "model": pickle.dumps(made_up.site_model()),
        "2020": made_up.flame_2020(),
        "2023 open": made_up.flame_2023_open(),
        "masks": pickle.dumps(made_up.site_masks(), protocol=2),
        "masks of python 2": made_up.python2_pickle(made_up.site_masks(), 0),
        "landmarks": npy_of_object(made_up.site_landmarks()),
        "static": made_up.python2_pickle(made_up.static_landmarks(), 0),
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's data folder that does not exist yet."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def given(tmp_path: Path, forms: dict[str, bytes]) -> Callable[..., list[Path]]:
    """Writes files under names that say nothing; arguments are forms or contents."""

    def write(*contents: str | bytes) -> list[Path]:
        paths = [tmp_path / f"download{i}" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(forms[content] if isinstance(content, str) else content)
        return paths

    return write


def assert_same(model: FlameModel, landmarks: slice = slice(None)) -> None:
    whole = made_up_flame()
    for f in fields(FlameModel):
        expected = getattr(whole, f.name)
        expected = expected[landmarks] if f.name.startswith("landmark_") else expected
        assert torch.equal(getattr(model, f.name), expected), f.name


def npz(values: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **values)
    return stream.getvalue()


@pytest.mark.parametrize("model", ["2020", "2023 open", "model"])
def test_every_form_of_the_model_gives_the_same_numbers(model: str, given: Callable[..., list[Path]]) -> None:
    assert_same(read_flame(given("landmarks", model, "masks")))


def test_files_come_in_any_order_and_of_any_python(given: Callable[..., list[Path]]) -> None:
    assert_same(read_flame(given("masks of python 2", "landmarks", "2023 open")))


def test_landmark_sets_of_different_sizes(given: Callable[..., list[Path]]) -> None:
    """Each says which of the usual 68 landmarks, and of two pupils, it holds."""
    assert_same(read_flame(given("static", "model", "masks")), slice(17, 68))
    sixty_eight = npy_of_object(made_up.site_landmarks(68))
    assert_same(read_flame(given(sixty_eight, "model", "masks")), slice(0, 68))
    assert_same(read_flame(given(npz(made_up.static_landmarks()), "model", "masks")), slice(17, 68))


def test_points_of_the_face_mesh_are_landmarks_too(given: Callable[..., list[Path]]) -> None:
    """What FLAME's site gives; alone, or behind the 68."""
    alone = read_flame(given(npz(made_up.mesh_landmarks()), "model", "masks"))
    assert torch.equal(alone.landmark_numbers, FIRST_MESH_LANDMARK + 4 * torch.arange(105))
    assert torch.equal(alone.landmark_triangles[:68], made_up_flame().landmark_triangles[:68])
    both = read_flame(given(npz(made_up.mesh_landmarks()), "landmarks", "model", "masks"))
    assert torch.equal(both.landmark_numbers, torch.cat([torch.arange(70), alone.landmark_numbers]))
    assert torch.equal(both.landmark_weights[70:], alone.landmark_weights)
    assert torch.equal(both.landmark_weights[:70], made_up_flame().landmark_weights)
    add_flame(given(npz(made_up.mesh_landmarks()), "model", "masks"))
    assert torch.equal(load_flame().landmark_numbers, alone.landmark_numbers)


def on_mesh(**changes: Any) -> list[str | bytes]:
    return ["model", "masks", npz(made_up.mesh_landmarks() | changes)]


def test_archives_as_downloaded(given: Callable[..., list[Path]], forms: dict[str, bytes]) -> None:
    other = pickle.dumps(made_up.site_model() | {"v_template": np.ones((5023, 3))})
    flame_2020 = archive(
        {
            "Readme.pdf": b"%PDF",
            "female_model.pkl": other,
            "generic_model.pkl": forms["2020"],
            "__MACOSX/._generic_model.pkl": b"\x00\x05",
            "male_model.pkl": other,
        }
    )
    masks = archive({"FLAME_masks/FLAME_masks.gif": b"GIF", "FLAME_masks/FLAME_masks.pkl": forms["masks"]})
    landmarks = archive({"landmark_embedding.npy": forms["landmarks"]})
    assert_same(read_flame(given(flame_2020, masks, landmarks)))
    flame_2023 = {"FLAME2023/flame2023_no_jaw.pkl": other, "FLAME2023/flame2023.pkl": forms["model"]}
    everything = flame_2023 | {"FLAME_masks.pkl": forms["masks"], "a.npz": npz(made_up.static_landmarks())}
    assert_same(read_flame(given(archive(everything))), slice(17, 68))


def changed(values: dict[str, Any], **changes: Any) -> bytes:
    """A pickle of what a site gives, with changes; None leaves something out."""
    return pickle.dumps({name: value for name, value in (values | changes).items() if value is not None})


def model(**changes: Any) -> list[str | bytes]:
    return [changed(made_up.site_model(), **changes), "masks", "landmarks"]


def masks(**changes: Any) -> list[str | bytes]:
    return ["model", changed(made_up.site_masks(), **changes), "landmarks"]


def landmarks(**changes: Any) -> list[str | bytes]:
    return ["model", "masks", changed(made_up.static_landmarks(), **changes)]


def with_first(name: str, value: float) -> list[str | bytes]:
    array = made_up.site_model()[name].copy()
    array.flat[0] = value
    return model(**{name: array})


ARRAYS = made_up.arrays()
REFUSED: dict[str, tuple[Callable[[], list[str | bytes]], str]] = {
    "no model": (
        lambda: ["masks", "landmarks"],
        "FLAME: the files lack the head model.*https://flame.is.tue.mpg.de .*CC-BY-4.0.*Max Planck",
    ),
    "no masks": (lambda: ["model", "landmarks"], "FLAME: the files lack the vertex masks.*FLAME_masks.pkl"),
    "no landmarks": (
        lambda: ["model", "masks"],
        "FLAME: the files lack the landmark embedding.*landmark_embedding.npy",
    ),
    "nothing": (lambda: [], "FLAME: the files lack the head model"),
    "two models": (lambda: ["model", "2020"], "download1: it holds the head model, as .*download0 does"),
    "another pickle": (lambda: [pickle.dumps({"a": 1})], "download0: it holds neither FLAME's model nor"),
    "a web page": (
        lambda: [b"<!DOCTYPE html><html>Sign in"],
        "download0: it is damaged or no file of numbers",
    ),
    "another archive": (lambda: [archive({"readme.txt": b""})], "download0: it holds neither"),
    "fewer vertices": (
        lambda: model(v_template=np.zeros((10, 3))),
        r"its v_template has the shape \(10, 3\)",
    ),
    "fewer triangles": (lambda: model(f=ARRAYS["f"][:9]), r"f has the shape \(9, 3\) instead of \(9976, 3\)"),
    "wrong triangles": (lambda: model(f=ARRAYS["f"] + 9), "its f are no numbers from 0 to 5022"),
    "broken triangles": (lambda: model(f=ARRAYS["f"] * 1.0), "its f are no numbers from 0 to 5022"),
    "300 coefficients": (
        lambda: model(shapedirs=ARRAYS["shapedirs"][..., :300]),
        "its shapedirs has the shape",
    ),
    "no weights": (lambda: model(weights=None), "its weights is missing"),
    "text": (lambda: model(posedirs="many"), "its posedirs is no array of numbers"),
    "a body": (lambda: model(kintree_table=np.zeros((2, 5), int)), "its joints do not hang together"),
    "not finite": (
        lambda: with_first("shapedirs", np.nan),
        "its shape_basis holds values that are not numbers",
    ),
    "infinite": (lambda: with_first("v_template", np.inf), "its template holds values that are not numbers"),
    "millimetres": (
        lambda: model(v_template=ARRAYS["v_template"] * 1000),
        "template holds .*: not in metres",
    ),
    "kilometres": (lambda: model(v_template=ARRAYS["v_template"] / 1000), "its head is smaller than 10 cm"),
    "joints outside": (lambda: model(J_regressor=ARRAYS["J_regressor"] + 0.5), "its joints lie outside"),
    "half weights": (lambda: model(weights=ARRAYS["weights"] / 2), "its skinning_weights do not add up to 1"),
    "no lips": (lambda: masks(lips=None), "its lips is missing"),
    "lips of text": (lambda: masks(lips="lips"), "its lips is no array of numbers"),
    "fewer lips": (lambda: masks(lips=np.arange(253)), "have 1919 vertices .*lips 253.* instead of 1920"),
    "lips twice": (lambda: masks(lips=np.zeros(254, int)), "one of its masks names a vertex twice"),
    "lips elsewhere": (lambda: masks(lips=np.arange(254) + 5000), "its lips are no numbers from 0 to 5022"),
    "some landmarks": (
        lambda: landmarks(lmk_face_idx=np.arange(104)),
        "it holds 104 landmarks, not 51, 68 or 70",
    ),
    "no mesh points": (lambda: on_mesh(landmark_indices=np.arange(105) + 400), "no numbers from 0 to 477"),
    "fewer mesh points": (
        lambda: on_mesh(landmark_indices=np.arange(9)),
        "has the shape .9,. instead of .105,.",
    ),
    "two meshes": (
        lambda: [*on_mesh(), npz(made_up.mesh_landmarks(20))],
        "holds the landmark embedding, as .*download2 does",
    ),
    "landmarks elsewhere": (
        lambda: landmarks(lmk_face_idx=np.full(51, 9976)),
        "its lmk_face_idx are no numbers",
    ),
    "fewer coordinates": (lambda: landmarks(lmk_b_coords=np.ones((50, 3))), "its lmk_b_coords has the shape"),
    "wrong coordinates": (lambda: landmarks(lmk_b_coords=np.ones((51, 3))), "landmark_weights do not add up"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_do_not_fit_are_refused(case: str, given: Callable[..., list[Path]], home: Path) -> None:
    contents, problem = REFUSED[case]
    with pytest.raises(InputError, match=problem):
        add_flame(given(*contents()))
    assert not home.exists()


def test_a_file_that_wants_to_run_something_is_refused(given: Callable[..., list[Path]], home: Path) -> None:
    class Command:
        def __reduce__(self) -> tuple:
            return os.system, ("true",)

    attack = model(J=Command())[0]
    for content in (attack, archive({"generic_model.pkl": attack}), npy_of_object(Command())):
        with pytest.raises(InputError, match=r"download0.*: it wants to run \w+\.system"):
            add_flame(given(content, "masks", "landmarks"))
    assert not home.exists()


def test_cut_files_are_refused(given: Callable[..., list[Path]], home: Path, forms: dict[str, bytes]) -> None:
    whole = archive({"model.pkl": forms["model"], "masks.pkl": forms["masks"]})
    rotten = bytearray(whole)
    rotten[len(rotten) // 2] ^= 255
    for content in (
        forms["2020"][:-1000],
        forms["landmarks"][:200],
        forms["masks"][:40],
        whole[:-1000],
        bytes(rotten),
    ):
        with pytest.raises(InputError, match="download0.*: it is (a )?damaged"):
            add_flame(given(content))
    for missing in (home.parent / "nowhere.pkl", home.parent):
        with pytest.raises(InputError, match="it cannot be read"):
            add_flame([missing])
    assert not home.exists()


def test_an_archive_bomb_is_refused(given: Callable[..., list[Path]], home: Path) -> None:
    with (
        zipfile.ZipFile(home.parent / "bomb", "w", zipfile.ZIP_DEFLATED) as bomb,
        bomb.open("a.pkl", "w") as member,
    ):
        for _ in range(600):
            member.write(bytes(1 << 20))
    with pytest.raises(InputError, match="larger than 512 MB when unpacked"):
        add_flame([home.parent / "bomb"])
    assert not home.exists()


def test_archives_within_archives_are_not_followed(given: Callable[..., list[Path]], home: Path) -> None:
    inner = archive({"model.pkl": b"."})
    for _ in range(3):
        inner = archive({"a.npz": inner})
    with pytest.raises(InputError, match="download0"):
        add_flame(given(inner))


def test_the_stored_model_is_the_same_and_says_where_it_comes_from(
    given: Callable[..., list[Path]], home: Path
) -> None:
    files = given("2020", "masks", "landmarks")
    path = add_flame(files)
    assert_same(load_flame())
    assert sorted(p.relative_to(home).as_posix() for p in home.rglob("*") if p.is_file()) == [
        "flame/LICENCE-NOTE.txt",
        "flame/flame.safetensors",
    ]
    with safe_open(path, "pt") as stored:
        sources = json.loads(stored.metadata()["sources"])
        assert "Max Planck" in stored.metadata()["licence"]
    assert [source["file"] for source in sources] == [file.name for file in files]
    note = (home / "flame" / "LICENCE-NOTE.txt").read_text()
    assert all(source["sha256"] in note and len(source["sha256"]) == 64 for source in sources)
    assert "CC-BY-4.0" in note


def test_a_newer_model_takes_the_place_and_a_refused_one_does_not(
    given: Callable[..., list[Path]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_flame(given("model", "masks", "landmarks"))
    with pytest.raises(InputError):
        add_flame(given("model", "masks", changed(made_up.static_landmarks(), lmk_face_idx=None)))
    assert_same(load_flame())
    monkeypatch.setattr(
        FlameModel, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match="it cannot be written .No space left on device.*SDTALK_HOME"):
        add_flame(given("model", "masks", "static"))
    monkeypatch.undo()
    monkeypatch.setenv("SDTALK_HOME", str(home))
    assert_same(load_flame())
    add_flame(given("model", "masks", "static"))
    assert_same(load_flame(), slice(17, 68))
    assert [p.name for p in home.iterdir()] == ["flame"]


def test_no_model_says_how_to_get_one(home: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_flame()
    assert all(
        part in str(caught.value)
        for part in ("https://flame.is.tue.mpg.de", "sdtalk assets add flame", "CC-BY-4.0", "mini")
    )
    assert not home.exists()


def test_a_damaged_asset_is_refused(given: Callable[..., list[Path]], home: Path) -> None:
    path = add_flame(given("model", "masks", "landmarks"))
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="it is damaged.*sdtalk assets add flame"):
        load_flame()
    not_finite = torch.full_like(tensors["template"], torch.nan)
    for changes in (
        {"template": None},
        {"foreign": tensors["template"].clone()},
        {"template": tensors["template"].double()},
        {"triangles": tensors["triangles"][1:]},
        {"triangles": tensors["triangles"] + 5023},
        {"template": not_finite},
        {"landmark_numbers": tensors["landmark_numbers"][:5]},
    ):
        save_file({k: v for k, v in (tensors | changes).items() if v is not None}, path)
        with pytest.raises(InputError, match="flame.safetensors: it.*sdtalk assets add flame"):
            load_flame()
