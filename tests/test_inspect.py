"""Tests of signed claims and of `sdtalk inspect`: what is in a file is told, in words and as JSON, and nothing else."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_mark import NUMBER, photo
from toy import save_portrait, save_speech, toy_model

import sdtalk.provenance.credentials as credentials_module
from sdtalk import InputError, SDTalkPipeline, __version__
from sdtalk.cli.main import main
from sdtalk.inspection import inspect_file
from sdtalk.provenance.claim import COMPOSITE, GENERATED, library, read_claim, sign
from sdtalk.provenance.credentials import credentials, sign_with
from sdtalk.provenance.mark import add_mark
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import COMMENT, open_writer
from sdtalk.video.label import AI_GENERATED, label_share, labelled

signs = pytest.mark.skipif(
    library() is None, reason='signed claims need c2pa-python: pip install "sdtalk[provenance]"'
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of this test's own, and no operator's certificate."""
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(credentials_module, "_chosen", None)
    return tmp_path / "home"


def write(path: Path, frames: np.ndarray, claim: str = "") -> Path:
    with open_writer(path, frames.shape[2:0:-1], claim=claim) as writer:
        writer.write_all(frames)
    return path


def ours() -> np.ndarray:
    """Two frames with label and mark."""
    frames = next(labelled(iter([np.stack([photo(512, 512)] * 2)]), AI_GENERATED, (512, 512)))
    add_mark(frames, NUMBER)
    return frames


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.gif", "a"])
def test_all_that_a_file_says_is_told(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / name, ours())
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metadata"] == COMMENT and found["label"] is True and found["claim"] is None
    assert found["mark"]["number"] == NUMBER and found["mark"]["false_alarm"] <= 1e-6
    assert main(["inspect", str(path)]) == 0
    words = capsys.readouterr().out
    assert COMMENT in words and "lower right corner" in words and "mark      SDTalk 22.46.9" in words


def test_nothing_is_told_of_other_files_and_it_is_said_that_this_proves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdtalk.provenance.detection.SMALLEST_SCALE", 0.99)  # all scales take seconds
    monkeypatch.setattr("sdtalk.provenance.detection.LARGEST_SCALE", 1.01)
    Image.fromarray(photo(512, 512)).save(tmp_path / "a.png")
    assert main(["inspect", str(tmp_path / "a.png")]) == 0
    words = capsys.readouterr().out
    assert (
        "does not prove that it was filmed" in words
        and "no comment" in words
        and words.count("not found") == 2
    )


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4", "empty"])
def test_what_holds_no_frames_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_labels_are_told_from_other_corners_also_in_smaller_copies() -> None:
    frame = ours()[0]
    small = np.array(Image.fromarray(frame).resize((256, 256), Image.Resampling.BOX))
    assert label_share(frame, AI_GENERATED) > 0.9 and label_share(small, AI_GENERATED) > 0.6
    random = np.random.default_rng(0)
    others = [photo(512, 512), 255 - frame, random.integers(0, 256, (512, 512, 3), np.uint8)]
    assert all(label_share(other, AI_GENERATED) < 0.4 for other in others)


def test_talks_are_marked_unless_told_otherwise(tmp_path: Path) -> None:
    save_portrait(tmp_path / "portrait.png")
    save_speech(tmp_path / "speech.wav", 0.08)
    pipeline = SDTalkPipeline(toy_model(), Tracker.from_bundled())
    head = pipeline.reconstruct(tmp_path / "portrait.png")
    bare, with_mark = (
        pipeline.talk(head, tmp_path / "speech.wav", mark=mark, size=128) for mark in (False, True)
    )
    wanted = np.stack(list(bare.frames()))
    add_mark(wanted)
    assert (np.stack(list(with_mark.frames())) == wanted).all()
    timed = next(iter(with_mark.frames_on_time(lambda: 0.0)))
    assert (timed.picture == wanted[0]).all()


@signs
@pytest.mark.parametrize(
    ("name", "source_type"),
    [("a.mp4", GENERATED), ("a.mp4", COMPOSITE), ("a.mov", GENERATED), ("a.gif", GENERATED)],
)
def test_a_claim_says_who_made_it_and_that_it_was_generated(
    name: str, source_type: str, tmp_path: Path
) -> None:
    path = write(tmp_path / name, ours()[:, :64, :64], source_type)
    claim = read_claim(path)
    assert claim is not None and claim.generator == f"SDTalk {__version__}"
    assert claim.source_type == source_type.rpartition("/")[2] and claim.intact and not claim.trusted
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "home"] == [name]
    assert str(tmp_path).encode() not in path.read_bytes()
    assert inspect_file(path).claim == claim and inspect_file(path).frames > 0


@signs
def test_a_changed_file_is_said_to_be_changed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write(tmp_path / "a.mp4", ours(), GENERATED)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"mdat") + 2000  # in a frame
    content[place] ^= 1
    path.write_bytes(content)
    claim = read_claim(path)
    assert claim is not None and not claim.intact
    assert main(["inspect", str(path)]) == 0 and "CHANGED SINCE" in capsys.readouterr().out


@signs
def test_an_installation_has_one_key_that_nobody_else_can_read(own_home: Path) -> None:
    first = credentials()
    assert credentials() == first and b"PRIVATE KEY" in first.key and first.certificates.count(b"BEGIN") == 2
    files = list((own_home / "signing").iterdir())
    assert len(files) == 2 and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


@signs
def test_an_operators_certificate_signs_instead(tmp_path: Path, own_home: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    own = credentials()
    cert.write_bytes(own.certificates)
    key.write_bytes(own.key)
    (own_home / "signing" / "key.pem").unlink()
    sign_with(cert, key)
    path = write(tmp_path / "a.mp4", ours()[:, :64, :64], GENERATED)
    assert read_claim(path) is not None and not (own_home / "signing" / "key.pem").exists()
    other = tmp_path / "other.pem"
    credentials_module._make(tmp_path / "other")
    other.write_bytes((tmp_path / "other" / "key.pem").read_bytes())
    for given in ((cert, other), (key, key), (cert, cert), (tmp_path / "none.pem", key)):
        with pytest.raises(InputError, match="PEM files"):
            sign_with(*given)


@signs
def test_where_signing_fails_the_file_stays_and_there_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video")
    with pytest.warns(UserWarning, match="no signed claim"):
        sign(path, GENERATED)
    assert path.read_bytes() == b"no video" and [e.name for e in tmp_path.iterdir() if e.is_file()] == [
        "a.mp4"
    ]


def test_without_the_library_nothing_changes(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    plain = write(tmp_path / "plain.mp4", ours())
    monkeypatch.setitem(sys.modules, "c2pa", None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    path = write(tmp_path / "a.mp4", ours(), GENERATED)
    assert path.read_bytes() == plain.read_bytes() and not own_home.exists()
    assert main(["inspect", str(path)]) == 0
    assert 'pip install "sdtalk[provenance]"' in capsys.readouterr().out
    with pytest.raises(InputError, match="not installed"):
        sign_with(tmp_path / "cert.pem", tmp_path / "key.pem")
