"""Tests of evaluation: reenactment of clips, protocols, other methods' videos, and the files that are written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_stand_in import OWNER, HubStandIn
from huggingface_hub import ModelCard
from made_up_clips import VIEW_PX, make_faces, wandering
from made_up_data import make_prepared
from toy import save_speech, toy_base, toy_model

from sdtalk.checkpoint import load_model
from sdtalk.driving import followed_gaze
from sdtalk.errors import InputError
from sdtalk.image import to_frames
from sdtalk.motion.small_motion import SmallMotion
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.reenact import ReenactOptions, check_knows_mouth_codes, prepare
from sdtalk.speech.audio import speech_level
from sdtalk.speech.encoder import hold_in_silence
from sdtalk.tracking.face_model import FaceModel
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import open_writer, read_frames
from training.data.dataset import PreparedDataset, clip_frames
from training.evaluate import main
from training.evaluation.evaluator import MetricNetworks, measure
from training.evaluation.frame_store import FrameStore, TimedIterator
from training.evaluation.html_report import as_html
from training.evaluation.identity import IrSe50
from training.evaluation.metrics import METRICS, RenderedClip
from training.evaluation.protocols import group_name, next_person, prepared_cases
from training.evaluation.reenactment import (
    SourceFrame,
    check_data_fits,
    measured_mouth,
    mouth_codes,
    predicted_frames,
)
from training.evaluation.results import ClipResult, Results, means
from training.evaluation.syncnet import SyncNet
from training.evaluation.tables import PAPER, as_markdown, frozen_line
from training.image_metrics import psnr
from training.lpips import Lpips


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return make_faces(tmp_path_factory.mktemp("faces") / "data", 5)


@pytest.fixture(scope="module")
def mini_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy"
    toy_model().save_pretrained(folder)
    return folder


def source_of(prepared: PreparedDataset, number: int = 0) -> SourceFrame:
    entry = prepared.index.of("dev")[number]
    _, image, mask = next(clip_frames(prepared, entry))
    return image[None], mask[None], prepared.clip(entry).track[0:1]


def test_a_clip_is_repeated_as_the_model_computes_it(faces: PreparedDataset) -> None:
    """Written out for one frame; the bundled model shows its source nearly as it is."""
    model, entry = load_model("mini"), faces.index.of("dev")[0]
    clip, source = faces.clip(entry), source_of(faces)
    found = list(predicted_frames(model, clip, source, range(2, 4), exact=True))
    assert len(found) == 2 and found[0].shape == (512, 512, 3) and found[0].dtype == np.uint8
    with torch.inference_mode():
        head = model.reconstruct(*source)
        code = model.encode_audio(clip.sound(torch.tensor([3]), "whisper")) * speech_level(clip.audio)[3]
        track = clip.track[3:4]
        gaze = followed_gaze(track.mesh, 1, source[2].mesh)  # the clip lends its gaze, too
        small = replace(SmallMotion.none(1), gaze=gaze)
        frame = model.render(head, model.animate(head, code, track.eyes, small), track.camera)
        wanted = to_frames(frame.over(torch.zeros(1, 3, 512, 512)))[0]
    assert np.abs(found[1].astype(int) - wanted).max() <= 1
    first = next(predicted_frames(model, clip, source, range(1), clip.mouth[:1]))
    assert psnr(first, to_frames(source[0] * source[1])[0]) > 24
    assert (first[:4, :4] == 0).all()


def test_where_nobody_speaks_the_mouth_is_measured(faces: PreparedDataset) -> None:
    model, clip = toy_model(), faces.clip(faces.index.of("dev")[0])
    heard = mouth_codes(model, clip, range(1, 4))
    frames = torch.arange(1, 4)
    with torch.inference_mode():
        plain = model.encode_audio(clip.sound(frames))
    assert torch.allclose(heard, hold_in_silence(plain, speech_level(clip.audio)[frames]))
    mute = replace(clip, entry=replace(clip.entry, own_speech=False))
    assert torch.equal(mouth_codes(model, mute, range(1, 4)), clip.mouth[1:4])


def test_a_measured_mouth_moves_the_picture_whatever_is_heard(
    faces: PreparedDataset, mini_folder: Path, tmp_path: Path
) -> None:
    clip = faces.clip(faces.index.of("dev")[0])
    own = measured_mouth(clip, range(1, 4), same=True)
    assert torch.equal(own[:, 0], clip.mouth[1:4, 0])
    torch.testing.assert_close(own[:, 1:], clip.mouth[1:4, 1:] - clip.mouth[:1, 1:])
    torch.testing.assert_close(measured_mouth(clip, range(5), same=False), clip.mouth)
    video(tmp_path / "ann.mp4", wandering(4))
    pipeline = SDTalkPipeline.from_pretrained(mini_folder, "cpu")
    seen = prepare(pipeline, tmp_path / "ann.mp4", ReenactOptions(measured_codes=True))
    track = pipeline.tracker.video(read_frames(tmp_path / "ann.mp4"), "ann").track
    code, mesh_code = seen.signals.audio_code, FaceModel.bundled().mouth_code(track.mesh)
    torch.testing.assert_close(code[:1], seen.head.audio_code)
    torch.testing.assert_close(
        code, torch.cat([mesh_code[:, :1], mesh_code[:, 1:] - mesh_code[:1, 1:]], dim=1)
    )
    out = tmp_path / "out"
    arguments = [str(faces.store.source), "--model", str(mini_folder), "--device", "cpu", "-o", str(out)]
    assert main([*arguments, "--clips", "1", "--limit-seconds", "0.12", "--codes", "measured"]) == 0
    written = json.loads((out / "results.json").read_text())
    assert written["codes"] == written["clips"][0]["mouth"] == "measured"
    assert "mouth codes measured" in (out / "results.md").read_text()


def test_base_repeats_a_clip(tmp_path: Path, toy_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(toy_home))
    prepared = make_prepared(tmp_path / "data", 1, 3, "hubert", "flame", ("dev",))
    model = toy_base()
    check_data_fits(model.config, prepared.index, "data")
    clip = prepared.clip(prepared.index.of("dev")[0])
    frames = list(predicted_frames(model, clip, source_of(prepared), range(3), batch=2))
    assert len(frames) == 3 and frames[0].shape == (512, 512, 3)
    assert not np.array_equal(frames[0], frames[2])
    mute = replace(clip, entry=replace(clip.entry, own_speech=False))
    codes = mouth_codes(model, mute, range(3))
    assert torch.equal(codes[0], codes[2]) and codes.shape == mouth_codes(model, clip, range(3)).shape


def test_data_of_another_model_are_refused(tmp_path: Path, faces: PreparedDataset) -> None:
    with pytest.raises(InputError, match="its audio code is no mouth code"):
        check_knows_mouth_codes(toy_base().config)
    with pytest.raises(
        InputError, match="its tracker is 'face_mesh', and the model 'toy base' needs 'flame'"
    ):
        check_data_fits(toy_base().config, faces.index, "data")
    with pytest.raises(InputError, match="its sound is 'hubert'"):
        check_data_fits(toy_model().config, replace(faces.index, sound="hubert"), "data")
    with pytest.raises(InputError, match="its sound_width is 1024"):
        index = replace(
            faces.index, tracker="flame", sound="hubert", sound_width=1024, token_alignment="ahead"
        )
        check_data_fits(toy_base().config, index, "data")


def test_persons_are_paired_in_a_circle() -> None:
    persons = {"b2": "ben", "a1": "ann", "c1": "cem", "b1": "ben"}
    assert next_person(persons) == {"a1": "b1", "b1": "c1", "b2": "c1", "c1": "a1"}
    with pytest.raises(InputError, match="show the same person"):
        next_person({"a": "ann", "b": "ann"})


@pytest.mark.parametrize(
    "dataset, clip, group",
    [
        ("HDTF", "RD_Radio1_front_00", "HDTF"),
        ("MEAD", "M003_front_angry_level_1_001_00", "MEAD, frontal"),
        ("MEAD", "M003-left_60-angry-001_00", "MEAD, other poses"),
        ("MEAD", "W009_down_happy_00", "MEAD, other poses"),
        ("MEAD", "M003_00", "MEAD"),
        ("", "x", "unnamed"),
    ],
)
def test_mead_is_parted_by_view(dataset: str, clip: str, group: str) -> None:
    assert group_name(dataset, clip) == group


def test_frames_on_disk_are_what_they_were() -> None:
    frames = [np.full((4, 6, 3), i, np.uint8) for i in range(5)]
    with FrameStore() as store:
        timed = TimedIterator(iter(frames), skipped=2)
        for frame in timed:
            store.append(frame)
        assert np.array_equal(store.frames(), np.stack(frames)) and timed.rate_hz is not None
        with pytest.raises(ValueError, match="frames of"):
            store.append(np.zeros((2, 2, 3), np.uint8))
    assert TimedIterator(iter(frames), skipped=9).rate_hz is None


def test_with_all_networks_every_metric_is_there() -> None:
    """Networks with made-up weights; a prediction that is the real video is perfect."""
    torch.manual_seed(0)
    networks = [n.eval().requires_grad_(False) for n in (Lpips(), SyncNet(), IrSe50())]
    networks = MetricNetworks(
        Tracker.from_bundled(), networks[0], networks[1], None, networks[2], torch.device("cpu"), 5
    )
    frames = np.stack(wandering(8))
    samples = np.random.default_rng(0).normal(0, 0.1, 8 * 640).astype(np.float32)
    scores = measure(RenderedClip("clip", frames, frames, samples, True, fps=25.0), networks)
    assert "face-alignment" in scores.missing["lmd_fan"] == scores.missing["lips_lmd_fan"]
    by_what_happens = {
        "mouth_sharpness_opening",
        "mouth_sharpness_closing",
        "inner_lips_l1",
        "inner_lips_l1_shifted",
    }
    short = {name for name, metric in METRICS.items() if metric.topic == "movement of the mouth"}
    assert scores.missing.keys() - short <= {"lmd_fan", "lips_lmd_fan"} | by_what_happens
    found = scores.metrics
    assert (found["psnr"], found["lpips"], found["lmd_mesh"], found["mouth_lag_frames"]) == (100, 0, 0, 0)
    assert found["ssim"] == pytest.approx(1) and found["identity"] == pytest.approx(1, abs=1e-5)
    assert found["mouth_correlation"] == pytest.approx(1) and found["mouth_spread"] == pytest.approx(1)
    assert found["sync_c"] == found["sync_c_real"] and found["sync_d"] == found["sync_d_real"] > 0
    assert found["psnr_frozen"] < 40 and found["fps"] == 25


def test_what_cannot_be_measured_has_a_reason() -> None:
    networks = MetricNetworks(Tracker.from_bundled(), None, None, None, None, torch.device("cpu"))
    blank = np.zeros((3, 64, 64, 3), np.uint8)
    scores = measure(RenderedClip("blank", blank, blank, None, False), networks)
    assert scores.metrics.keys() == {"psnr", "psnr_frozen", "ssim", "ssim_frozen"}
    assert scores.metrics.keys() | scores.missing.keys() == METRICS.keys()
    assert "sdtalk assets add lpips" in scores.missing["lpips"]
    assert "no face" in scores.missing["lmd_mesh"] and "own" in scores.missing["sync_c"]
    other = measure(RenderedClip("blank", blank, blank, None, True, source=blank[0]), networks)
    assert "another person" in other.missing["psnr"] and "another person" in other.missing["lmd_mesh"]
    streaked = blank.copy()
    streaked[:, 50:] = 255
    known = measure(RenderedClip("blank", streaked, blank, None, False, known=(0, 0, 64, 50)), networks)
    assert known.metrics["psnr"] == 100 and known.metrics["ssim"] == 1
    single = measure(RenderedClip("blank", blank[:1], blank[:1], None, True), networks)
    assert "one frame" in single.missing["psnr"]


def test_a_prepared_set_is_evaluated_and_the_model_published(
    faces: PreparedDataset, mini_folder: Path, tmp_path: Path, hub: HubStandIn
) -> None:
    out, repo = tmp_path / "out", f"{OWNER}/head"
    arguments = [str(faces.store.source), "--model", str(mini_folder), "--device", "cpu", "-o", str(out)]
    assert main([*arguments, "--limit-seconds", "0.12", "--push-to-hub", repo]) == 0
    written = json.loads((out / "results.json").read_text())
    assert [clip["name"] for clip in written["clips"]] == ["face-0", "face-1"]
    for clip in written["clips"]:
        assert clip["frames"] == 3 and clip["mouth"] == "sound"
        assert clip["figures"].keys() | clip["missing"].keys() == METRICS.keys()
        assert (out / clip["sheet"]).is_file()
    total = written["groups"]["all clips"]["figures"]
    assert total["psnr"] == pytest.approx(np.mean([clip["figures"]["psnr"] for clip in written["clips"]]))
    figures = {r.metric_type: r.metric_value for r in ModelCard.load(repo).data.eval_results}
    assert figures["psnr"] == pytest.approx(total["psnr"], abs=0.01)
    assert written["protocol"] == "self" and written["versions"]["torch"]
    text = (out / "results.md").read_text()
    assert "SDTalk (paper)" in text and "LPIPS: not on this machine" in text
    page = (out / "index.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and "<script" not in page
    assert main([*arguments, "--protocol", "cross-identity", "--clips", "1", "--limit-seconds", "0.12"]) == 0
    crossed = json.loads((out / "results.json").read_text())["clips"]
    assert [(clip["name"], clip["source"]) for clip in crossed] == [("face-0", "person-1")]
    assert "another person" in crossed[0]["missing"]["psnr"] and "mouth_spread" in crossed[0]["figures"]


def test_one_bad_clip_does_not_stop_the_others(
    faces: PreparedDataset, mini_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "damaged"
    for path in Path(faces.store.source).rglob("*"):
        if path.is_file():
            copy = folder / path.relative_to(faces.store.source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    piece = faces.index.of("dev")[0].pieces[0]
    shard = bytearray((folder / piece.shard).read_bytes())
    shard[piece.offset + 1000 : piece.offset + 3000] = bytes(2000)
    (folder / piece.shard).write_bytes(shard)
    out = tmp_path / "out"
    assert main([str(folder), "--model", str(mini_folder), "--limit-seconds", "0.1", "-o", str(out)]) == 0
    written = json.loads((out / "results.json").read_text())
    assert [clip["name"] for clip in written["clips"]] == ["face-1"]
    assert [entry["clip"] for entry in written["failed"]] == ["face-0"]
    assert "warning: face-0" in capsys.readouterr().err
    assert "face-0: " in (out / "results.md").read_text()


def video(path: Path, frames: list[np.ndarray], sound: Path | None = None) -> None:
    with open_writer(path, frames[0].shape[1::-1], sound=sound) as writer:
        for frame in frames:
            writer.write(frame)


def test_videos_of_others_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ours, theirs, out = tmp_path / "ours", tmp_path / "theirs", tmp_path / "out"
    ours.mkdir(), theirs.mkdir()
    frames = wandering(8)
    sound = save_speech(tmp_path / "hum.wav", 0.32)
    video(theirs / "same.mp4", frames, sound)
    video(ours / "same.mp4", [frame[::2, ::2] for frame in frames[:-1]])  # half as large, a frame shorter
    video(theirs / "short.mp4", frames)
    video(ours / "short.mp4", frames[:2])
    video(theirs / "wide.mp4", frames)
    video(ours / "wide.mp4", [frame[: VIEW_PX // 2] for frame in frames])
    video(ours / "alone.mp4", frames[:2])
    assert main(["--predictions", str(ours), "--targets", str(theirs), "-o", str(out)]) == 0
    written = json.loads((out / "results.json").read_text())
    (clip,) = written["clips"]
    assert clip["name"] == "same" and clip["frames"] == 7 and clip["group"] == "theirs"
    assert clip["figures"]["psnr"] > 25 and clip["figures"]["lmd_mesh"] < 2 and "fps" in clip["missing"]
    failed = {Path(entry["clip"]).stem: entry["reason"] for entry in written["failed"]}
    assert failed.keys() == {"short", "wide", "alone"}
    assert "one has 6 more" in failed["short"] and "400 x 200 px" in failed["wide"]
    assert "no target" in failed["alone"]


def test_videos_of_a_manifest_are_repeated(mini_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    entries = [{"file": "photos/a.jpg", "split": "dev"}, {"file": "clips/none.mp4", "split": "train"}]
    for name, mirrored in (("ann", False), ("ben", True)):
        video(
            tmp_path / "clips" / f"{name}.mp4",
            wandering(4, mirrored),
            save_speech(tmp_path / "hum.wav", 0.16),
        )
        own = {"own_speech_audio": not mirrored, "dataset": "HDTF"}
        entries.append({"file": f"clips/{name}.mp4", "split": "dev", "identity": name} | own)
    (tmp_path / "manifest.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    arguments = [
        str(tmp_path / "manifest.json"),
        "--model",
        str(mini_folder),
        "--device",
        "cpu",
        "-o",
        str(out),
    ]
    assert main([*arguments, "--limit-seconds", "0.12"]) == 0
    clips = {clip["name"]: clip for clip in json.loads((out / "results.json").read_text())["clips"]}
    assert clips.keys() == {"ann", "ben"}
    assert {(c["group"], c["frames"], c["source"]) for c in clips.values()} == {("HDTF", 3, "")}
    assert clips["ann"]["figures"]["psnr"] > 10 and "mouth_spread" in clips["ann"]["figures"]
    assert "own" in clips["ben"]["missing"]["mouth_spread"]


@pytest.mark.parametrize(
    "arguments, problem",
    [
        ([], "Give DATA, or --predictions"),
        (["data", "--predictions", "x", "--targets", "y"], "Give DATA, or --predictions"),
        (["--predictions", "x"], "Give DATA, or --predictions"),
        (["--predictions", "nowhere", "--targets", "nowhere"], "no such folder"),
        (["nowhere.json"], "cannot be read"),
        (["FACES", "--split", "test"], "it has no clips (train 0, dev 2, test 0)"),
        (["FACES", "--model", "nowhere"], "nowhere"),
        (["FACES", "--push-to-hub", "a/b"], "is no folder that could be uploaded"),
        (["--predictions", "x", "--targets", "y", "--codes", "measured"], "are rendered already"),
        (["FACES", "--clips", "0"], "--clips 0: it is less than 1"),
        (["FACES", "--limit-seconds", "nan"], "--limit-seconds nan"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], problem: str, faces: PreparedDataset, capsys: pytest.CaptureFixture
) -> None:
    given = [str(faces.store.source) if a == "FACES" else a for a in arguments]
    assert main([*given, "--device", "cpu"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and problem in printed and "Traceback" not in printed


def test_a_missing_token_shows_before_anything_is_measured(
    faces: PreparedDataset, mini_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("training.publish.get_token", lambda: None)
    monkeypatch.setattr("training.evaluate.run", lambda *_: pytest.fail("it was measured"))
    arguments = [str(faces.store.source), "--model", str(mini_folder), "--push-to-hub", f"{OWNER}/head"]
    assert main(arguments) == 2 and "there is no token" in capsys.readouterr().err


def test_cases_name_the_source_of_crossed_clips(faces: PreparedDataset) -> None:
    cases = prepared_cases(faces, toy_model(), "dev", "cross-identity", 1.0, "cpu")
    assert [(c.name, c.person, c.source) for c in cases] == [
        ("face-0", "person-0", "person-1"),
        ("face-1", "person-1", "person-0"),
    ]


def made_up_results() -> Results:
    def clip(name: str, group: str, figures: dict[str, float], **missing: str) -> ClipResult:
        return ClipResult(name, name, group, "", 10, "sound", figures, missing, "")

    clips = [
        clip("a", "HDTF", {"psnr": 20.0, "lmd_mesh": 3.0, "mouth_spread": 0.5}, lpips="no <weights>"),
        clip("b", "HDTF", {"psnr": 22.0}, lpips="no <weights>", mouth_spread="it is mute"),
        clip("c|d", "MEAD, frontal", {"psnr": 27.0, "lmd_fan": 2.0}, lpips="no <weights>"),
    ]
    about = {"command": "evaluate x", "model": "mine", "data": "x", "protocol": "self"}
    return Results(about, clips, [("e", "it is damaged")])


def test_means_by_hand() -> None:
    groups = made_up_results().groups()
    assert list(groups) == ["HDTF", "MEAD, frontal", "all clips"]
    assert groups["HDTF"].metrics == {"psnr": 21.0, "lmd_mesh": 3.0, "mouth_spread": 0.5}
    assert groups["HDTF"].counts["mouth_spread"] == 1 and groups["all clips"].metrics["psnr"] == 23.0
    assert groups["all clips"].missing["lpips"] == "no <weights>"
    assert means([]).metrics == {} and means([]).missing.keys() == METRICS.keys()


def test_clips_that_stand_still_better_are_named() -> None:
    def clip(name: str, **figures: float) -> ClipResult:
        return ClipResult(name, name, "", "", 10, "sound", figures, {}, "")

    clips = [clip("a", psnr=20.0, psnr_frozen=20.2), clip("b", psnr=20.0, psnr_frozen=20.5), clip("c")]
    line = frozen_line(Results({}, clips))
    assert "1 of 2 clips: b (-0.50)" in line and frozen_line(Results({}, clips[2:])) == ""


def test_tables_stand_beside_the_papers(tmp_path: Path) -> None:
    text = as_markdown(made_up_results())
    assert "| **HDTF** | **mine** | **21.00** | - | - | **3.00 (mesh)** | - | - |" in text
    assert "| **MEAD, frontal** | **mine** | **27.00** | - | - | **2.00** | - | - |" in text
    assert "| HDTF | SDTalk (paper) | 24.03 | .13 | .80 | 3.47 | 6.85 | 45 |" in text
    assert "other clips" in text and "MEAD, other poses" not in text
    assert "- spread (1 of 3 clips): it is mute" in text and "- LPIPS: no <weights>" in text
    assert "- e: it is damaged" in text and "c\\|d" in text and "0.50 (1)" in text
    assert all(len(cells) == 6 for methods in PAPER.values() for cells in methods.values())
    page = as_html(made_up_results(), tmp_path)
    assert (
        "no &lt;weights&gt;" in page and "no <weights>" not in page and "prefers-color-scheme: dark" in page
    )
