"""Tests of the parts of data preparation: shots, discovery, layouts, splits, segments, audio offset, features."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.speech.audio import read_speech
from sdtalk.tracking.face_model import FaceModel
from training.preparation.audio_offset import estimate_audio_offset
from training.preparation.clip_writer import aligned_audio, hubert_features, mel_features
from training.preparation.discovery import assign_splits, find_videos, split_for_person
from training.preparation.face_measurements import head_angles, measure_faces
from training.preparation.scan import FRAME_RECORD, VideoScan
from training.preparation.segments import Segment, find_segments
from training.preparation.settings import PrepareSettings, SplitShares
from training.preparation.shots import ShotDetector
from training.preparation.source_video import SourceVideo, make_video_id
from training.settings import read_settings

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "training" / "configs" / "prepare.yaml"
SPEECH = ROOT / "examples" / "sense_and_sensibility.wav"
SETTINGS = read_settings(CONFIG, PrepareSettings)


# Shots


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """Two pictures of 240 x 160 px that have something everywhere, and much more beside them to pan over."""
    whole = read_picture(ROOT / "examples" / "eileen_collins.png").pixels
    return [np.ascontiguousarray(whole), np.ascontiguousarray(255 - whole[::-1, :, ::-1])]


def window(scene: np.ndarray, x: float, y: float) -> np.ndarray:
    return scene[int(y) : int(y) + 160, int(x) : int(x) + 240]


def noisy(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    grain = np.random.default_rng(0).integers(-6, 7, (200, 240, 3), np.int16)
    for i, frame in enumerate(frames):
        yield (frame + grain[i % 40 : i % 40 + 160]).clip(0, 255).astype(np.uint8)


def shots_of(frames: list[np.ndarray]) -> tuple[list[int], list[tuple[int, int]]]:
    detector = ShotDetector()
    watched = list(detector.detect(noisy(frames)))
    assert len(watched) == len(frames)
    return [i for i, (_, begins) in enumerate(watched) if begins], detector.fades


def panning(scene: np.ndarray, count: int, speed: float) -> list[np.ndarray]:
    """Back and forth over the picture."""
    reach = scene.shape[1] - 240
    at = [reach - abs((speed * i) % (2 * reach) - reach) for i in range(count)]
    return [window(scene, x, 150 + x / 4) for x in at]


@pytest.mark.parametrize("speed", [0, 3, 20, 60])
def test_cuts_are_found_and_motion_is_not_cut(scenes: list[np.ndarray], speed: float) -> None:
    frames = panning(scenes[0], 40, speed) + panning(scenes[1], 25, speed) + panning(scenes[0], 30, 0)
    assert shots_of(frames) == ([0, 40, 65], [])


def test_sudden_fast_motion_is_not_cut(scenes: list[np.ndarray]) -> None:
    still = [window(scenes[0], 0, 100)] * 20
    frames = still + panning(scenes[0], 20, 50) + still[:12]
    starts, fades = shots_of([*frames[:40], *panning(scenes[0], 12, 50)[::-1], *still])
    assert starts == [0] and fades == []


def test_a_flash_is_not_cut(scenes: list[np.ndarray]) -> None:
    frames = panning(scenes[0], 40, 2)
    frames[20] = np.full_like(frames[20], 250)
    assert shots_of(frames) == ([0], [])


def test_short_shots_are_found(scenes: list[np.ndarray]) -> None:
    frames = panning(scenes[0], 20, 2) + panning(scenes[1], 8, 2) + panning(scenes[0], 20, 2)
    assert shots_of(frames)[0] == [0, 20, 28]


@pytest.mark.parametrize("length", [8, 16, 25, 45])
@pytest.mark.parametrize("to_black", [False, True])
def test_fades_are_found(scenes: list[np.ndarray], length: int, to_black: bool) -> None:
    one, other = panning(scenes[0], 60 + length, 0.2), panning(scenes[1], length + 60, 0.2)
    if to_black:
        other = [np.zeros_like(frame) for frame in other]
    mixed = [one[60 + i] + (other[i] * 1.0 - one[60 + i]) * ((i + 1) / (length + 1)) for i in range(length)]
    starts, fades = shots_of([*one[:60], *(m.astype(np.uint8) for m in mixed), *other[length:]])
    assert starts == [0]
    (fade,) = fades
    assert abs(fade[0] + fade[1] - (120 + length)) < 12  # where it is
    assert fade[0] <= 60 + length / 2 - 4 and fade[1] >= 60 + length / 2 + 4


def test_shots_of_few_frames(scenes: list[np.ndarray]) -> None:
    for count in (1, 3, 7, 13):
        assert shots_of(panning(scenes[0], count, 3)) == ([0], [])


# Sources


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_tells_people_by_sub_folders(tmp_path: Path) -> None:
    touch(tmp_path, "ann/a.mp4", "ann/deep/b.MOV", "bob.mkv", "notes.txt", ".hidden/c.mp4", "eve/d e.mp4")
    people = {s.video_id: s.person for s in find_videos(tmp_path, None)}
    assert len(people) == 4 and people["ann__a"] == "ann" and people["bob_mkv"] == "bob"
    assert sorted(people.values()) == ["ann", "ann", "bob", "eve"]


def test_names_are_keys_and_differ() -> None:
    paths = [
        "a.mp4",
        "a.mov",
        "a/b.mp4",
        "a b.mp4",
        "a_b.mp4",
        "é.mp4",
        "ü.mp4",
        f"{'x' * 99}.mp4",
        f"{'x' * 98}.mp4",
    ]
    names = [make_video_id(Path(path)) for path in paths]
    assert len(set(names)) == len(paths) and max(map(len, names)) <= 77
    assert all(name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in names)


def test_nothing_to_prepare(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no videos were found"):
        find_videos(touch(tmp_path, "notes.txt"), None)
    with pytest.raises(InputError, match="no such file"):
        find_videos(tmp_path / "absent", None)
    with pytest.raises(InputError, match="needs a folder"):
        find_videos(tmp_path / "notes.txt", "mead")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a__b"):
        find_videos(touch(tmp_path, "a/b.mp4", "a__b.mp4"), None)


def manifest(tmp_path: Path, *entries: object) -> Path:
    (tmp_path / "manifest.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path / "manifest.json"


def test_a_manifest(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        {"file": "c/a.mp4", "split": "dev", "identity": "ann", "dataset": "X", "own_speech_audio": True},
        {"file": "c/b.mpg", "audio_late_ms": -40, "own_speech_audio": "unverified"},
        {"file": "photos/a.jpg", "split": "test"},
    )
    a, b = find_videos(path, None)
    assert a == SourceVideo(tmp_path / "c/a.mp4", "c__a", "ann", "X", "dev", True)
    assert (b.person, b.split, b.own_speech, b.audio_late_ms) == ("b", None, False, -40.0)


@pytest.mark.parametrize(
    "entry",
    ["a.mp4", {"split": "train"}, {"file": "a.mp4", "split": "all"}, {"file": "a.mp4", "audio_late_ms": "1"}],
)
def test_a_wrong_manifest(tmp_path: Path, entry: object) -> None:
    with pytest.raises(InputError, match="entry 0"):
        find_videos(manifest(tmp_path, entry), None)


def test_hdtf(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "v/RD_Radio34.mp4",
        "v/Radio11_0.mp4",
        "v/WDA_AmyKlobuchar1_001.mp4",
        "v/LucilleRoybal-Allard.mkv",
    )
    touch(tmp_path, "v/AmyKlobuchar0.mp4", "v/WhipJimClyburn.mp4", "v/JamesClyburn1.mp4", "v/Unlisted.mp4")
    lists = tmp_path / "HDTF_dataset"
    lists.mkdir()
    radio = "Radio11.mp4 00:30-01:00 01:30-02:30\nRadio34.mp4 00:02-00:30 00:40-01:00:50\n"
    (lists / "RD_annotion_time.txt").write_text(radio)
    names = ["AmyKlobuchar0", "AmyKlobuchar1", "LucilleRoybal-Allard", "WhipJimClyburn", "JamesClyburn1"]
    (lists / "WDA_annotion_time.txt").write_text("".join(f"{name}.mp4 00:05-04:40\n" for name in names))
    found = {s.path.stem: s for s in find_videos(tmp_path, "hdtf")}
    assert "Unlisted" not in found and len(found) == 7
    assert found["RD_Radio34"].intervals == ((2, 30), (40, 3650))
    assert found["Radio11_0"].intervals is None and found["Radio11_0"].person == "RD_Radio11"
    people = [
        found[n].person for n in ("AmyKlobuchar0", "WDA_AmyKlobuchar1_001", "WhipJimClyburn", "JamesClyburn1")
    ]
    assert people == ["WDA_AmyKlobuchar"] * 2 + ["WDA_JamesClyburn"] * 2
    assert found["LucilleRoybal-Allard"].intervals == ((5, 280),)


def test_mead(tmp_path: Path) -> None:
    touch(tmp_path, "M003/video/front/angry/level_1/001.mp4", "M003/video/left_30/angry/level_1/001.mp4")
    touch(
        tmp_path,
        "M003/audio/angry/level_1/001.m4a",
        "W009/video/front/sad/level_2/002.mp4",
        "W009/other/a.mp4",
    )
    front, left, other = find_videos(tmp_path, "mead")
    assert (front.person, front.dataset, left.dataset, other.person) == (
        "M003",
        "MEAD/front",
        "MEAD/left_30",
        "W009",
    )
    assert front.sound_path == left.sound_path == tmp_path / "M003/audio/angry/level_1/001.m4a"
    assert other.sound_path is None and front.own_speech


def test_splits_are_by_person() -> None:
    shares = SplitShares(0.2, 0.1)
    splits = {f"person {i}": split_for_person(f"person {i}", shares) for i in range(2000)}
    counts = [list(splits.values()).count(name) / 2000 for name in ("dev", "test", "train")]
    assert np.abs(np.array(counts) - [0.2, 0.1, 0.7]).max() < 0.03
    sources = [SourceVideo(Path(f"{i}.mp4"), str(i), f"person {i // 3}", "") for i in range(300)]
    assert all(s.split == splits[s.person] for s in assign_splits(sources, shares))


def test_explicit_splits_win() -> None:
    ann, bob = SourceVideo(Path("a.mp4"), "a", "ann", "", "test"), SourceVideo(Path("b.mp4"), "b", "ann", "")
    assert [s.split for s in assign_splits([bob, ann], SplitShares(0, 0))] == ["test", "test"]
    with pytest.raises(InputError, match=r"'ann': in dev \(c\) and in test \(a\)"):
        assign_splits([ann, bob, SourceVideo(Path("c.mp4"), "c", "ann", "", "dev")], SplitShares(0, 0))


# Parts of a video


def records(count: int, yaw_deg: float = 0, side_px: float = 300) -> np.ndarray:
    """The average face in the middle of a 640 x 480 px video, turned to the subject's left."""
    found = np.zeros(count, FRAME_RECORD)
    found["points"], found["other_px"], found["wanted"] = face_px(yaw_deg, side_px), np.nan, 1
    found["other_px"][::12] = 0
    found["shot"][0] = 1
    return found


def face_px(yaw_deg: float, side_px: float) -> np.ndarray:
    angle = torch.tensor(yaw_deg).deg2rad()
    turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    seen = FaceModel.bundled().mean_face @ (axes @ turn).T
    extent = (
        FaceModel.bundled().mean_face[:, :2].amax(0) - FaceModel.bundled().mean_face[:, :2].amin(0)
    ).max()
    seen = (seen - seen.mean(0)) * (side_px / extent)
    return (seen + torch.tensor([320.0, 240.0, 0])).numpy()


def segments_of(found: np.ndarray, fades: list[list[int]] | None = None, **changes: float) -> list[tuple]:
    settings = replace(SETTINGS, limits=replace(SETTINGS.limits, **changes))
    scan = VideoScan(len(found), 640, 480, fades or [], "")
    segments = find_segments(scan, found, measure_faces(found, 640, 480), settings)
    assert [p.start for p in segments] == [0, *(p.stop for p in segments[:-1])] and segments[-1].stop == len(
        found
    )
    return [(p.start, p.stop, p.reason) for p in segments]


@pytest.mark.parametrize("yaw_deg", [-40, 0, 25, 60])
def test_head_angles(yaw_deg: float) -> None:
    yaw, pitch, roll = head_angles(torch.from_numpy(face_px(yaw_deg, 200))[None])[0].tolist()
    assert abs(yaw - yaw_deg) < 2 and abs(pitch) < 2 and abs(roll) < 2


def test_a_good_video_is_one_clip() -> None:
    assert segments_of(records(500)) == [(0, 500, "")]


def test_long_shots_are_split_evenly() -> None:
    assert segments_of(records(1201)) == [(0, 400, ""), (400, 801, ""), (801, 1201, "")]


def test_cuts_and_fades() -> None:
    found = records(300)
    found["shot"][[100, 120]] = 1
    assert segments_of(found) == [(0, 100, ""), (100, 120, "short"), (120, 300, "")]
    assert segments_of(found, [[140, 165]])[2:] == [(120, 140, "short"), (140, 165, "fade"), (165, 300, "")]


def test_lost_faces_cut_and_short_gaps_are_bridged() -> None:
    found = records(200)
    found["points"][60:63] = found["points"][100:110] = np.nan
    assert segments_of(found) == [(0, 100, ""), (100, 110, "no_face"), (110, 200, "")]


def test_several_faces() -> None:
    found = records(240)
    found["other_px"][120] = 200
    assert segments_of(found) == [(0, 109, ""), (109, 132, "several_faces"), (132, 240, "")]
    found["other_px"][120] = 60  # somebody small in the background
    assert segments_of(found) == [(0, 240, "")]


def test_extreme_pose_and_small_faces() -> None:
    found = records(200)
    found["points"][80:120] = face_px(65, 300)
    found["points"][40] = face_px(65, 300)  # a slip of one frame
    assert (80, 120, "extreme_pose") in segments_of(found)
    assert {reason for *_, reason in segments_of(records(100, side_px=70))} == {"small_face"}
    assert segments_of(records(100, side_px=70), face_px=60) == [(0, 100, "")]


def test_a_cut_off_face_and_too_little_around_it() -> None:
    found = records(100)
    found["points"][..., 0] += 270
    assert {reason for *_, reason in segments_of(found)} == {"outside"}
    assert {reason for *_, reason in segments_of(records(100, side_px=450))} == {"crop_outside"}


def test_a_face_elsewhere_is_another_shot() -> None:
    found = records(100)
    found["points"][:, :, :2] -= 60
    found["points"][50:, :, 0] += 150
    assert segments_of(found) == [(0, 50, ""), (50, 100, "")]


def test_a_roaming_head_gets_several_squares() -> None:
    found = records(400, side_px=100)
    found["points"][..., 0] += np.linspace(-240, 240, 400)[:, None]
    segments = segments_of(found)
    assert len(segments) > 1 and all(reason == "" for *_, reason in segments)


def test_what_is_not_wanted() -> None:
    found = records(200)
    found["wanted"][:50], found["points"][:50], found["shot"][50] = 0, np.nan, 1
    assert segments_of(found) == [(0, 50, "not_wanted"), (50, 200, "")]


def test_details_have_numbers() -> None:
    found = records(100, side_px=70)
    (segment,) = find_segments(
        VideoScan(100, 640, 480, [], ""), found, measure_faces(found, 640, 480), SETTINGS
    )
    assert segment == Segment(0, 100, "small_face", "70 px, wanted 80 px")


# Sound


def openings(late_frames: float, noise: float, frames: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """A mouth, and what an audio encoder would say of its sound, so many frames late."""
    rng = np.random.default_rng(1)
    fine = np.convolve(rng.standard_normal(8 * (frames + 40)), np.hanning(33), "same")
    fine /= fine.std()
    at = 8 * (20 + np.arange(frames))
    return fine[at], fine[at - round(8 * late_frames)] + noise * rng.standard_normal(frames)


@pytest.mark.parametrize("late_frames", [-5, -1.5, -1, 0, 1, 2.5, 4])
def test_audio_offset_is_found(late_frames: float) -> None:
    pairs = [openings(late_frames, 0.8), openings(late_frames, 0.8, 100)]
    found = estimate_audio_offset(
        [heard for _, heard in pairs], [seen for seen, _ in pairs], None, SETTINGS.sync
    )
    assert found.source == "measured" and abs(found.late_ms - 40 * late_frames) <= 15
    assert found.r is not None and found.r > 0.6 and found.r >= found.r_before  # type: ignore[operator]


def test_audio_offset_of_noise_is_not_found() -> None:
    seen, _ = openings(0, 0)
    found = estimate_audio_offset(
        [np.random.default_rng(2).standard_normal(250)], [seen], None, SETTINGS.sync
    )
    assert (found.late_ms, found.source) == (0, "none")


def test_a_still_mouth_is_not_compared() -> None:
    seen, heard = openings(2, 0.5)
    assert estimate_audio_offset([heard], [0.01 * seen], None, SETTINGS.sync).r is None
    assert estimate_audio_offset([heard[:30]], [seen[:30]], None, SETTINGS.sync).r is None


def test_known_audio_offset_is_believed() -> None:
    seen, heard = openings(2, 0.5)
    found = estimate_audio_offset([heard], [seen], 80, SETTINGS.sync)
    assert (found.late_ms, found.source) == (80, "manifest") and found.r > 0.8 > found.r_before  # type: ignore
    assert estimate_audio_offset([], [], 80, SETTINGS.sync).late_ms == 80
    assert estimate_audio_offset([np.zeros(250)], [seen], None, SETTINGS.sync).source == "none"


def test_sound_is_moved() -> None:
    samples = torch.arange(10 * 640) / 32767
    late = aligned_audio(samples, 2, 3, 40.0)
    np.testing.assert_array_equal(late, np.arange(3 * 640, 6 * 640))
    early = aligned_audio(samples, 0, 2, -20.0)
    np.testing.assert_array_equal(early, np.r_[np.zeros(320), np.arange(960)])
    end = aligned_audio(samples, 9, 3, 0.0)
    np.testing.assert_array_equal(end, np.r_[np.arange(9 * 640, 6400), np.zeros(1280)])
    assert not aligned_audio(torch.zeros(0), 5, 2, 0.0).any()


def test_features_have_a_row_for_every_window() -> None:
    sound = read_speech(SPEECH).samples[: 30 * 640]
    assert mel_features(sound, 30).shape == (4 * 30 + 33, 80)


@pytest.mark.parametrize("alignment", ["ahead", "centred"])
def test_hubert_features_are_its_windows(
    toy_home: Path, alignment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdtalk.speech.hubert import HubertFeatures

    monkeypatch.setenv("SDTALK_HOME", str(toy_home))
    hubert = HubertFeatures.installed()
    sound = read_speech(SPEECH).samples[: 30 * 640]
    kept = torch.from_numpy(hubert_features(hubert, alignment)(sound, 30)).float()
    windows = torch.cat(list(hubert.windows(sound, alignment)))
    torch.testing.assert_close(kept.unfold(0, 16, 2).transpose(1, 2), windows, atol=2e-3, rtol=2e-3)
