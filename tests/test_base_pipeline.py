"""Tests of the pipeline with the paper's model: a toy of it, a made-up FLAME and a narrow HuBERT, all else real."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from script_processes import awaited, start_code
from test_pipeline import frames_of
from toy import EXAMPLE, TOY_BASE, save_portrait, save_speech, toy_base

import sdtalk.model
from sdtalk.checkpoint import read_config
from sdtalk.cli.main import main
from sdtalk.config import BASE, SDTalkConfig
from sdtalk.driving import GAPS
from sdtalk.errors import InputError
from sdtalk.flame.file import load_flame
from sdtalk.image import Crop, crop_picture, read_picture
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.published.convert import published_config
from sdtalk.reenact import ReenactOptions, prepare, reenact
from sdtalk.rendering.rules import PUBLISHED_RULES
from sdtalk.speech.audio import read_speech
from sdtalk.stopwatch import Stopwatch
from sdtalk.stream import DrivingSignals, render_frames
from sdtalk.tracking.head_track import Portrait
from sdtalk.video import open_writer, probe

STILL = TalkOptions(pose="still", blink="none", size=64)


@pytest.fixture(scope="module", autouse=True)
def home(toy_home: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDTALK_HOME", str(toy_home))
        yield toy_home


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a portrait, a recording of five frames, and clips of six in which the picture moves."""
    folder = tmp_path_factory.mktemp("inputs")
    toy_base().save_pretrained(folder / "toy")
    save_portrait(folder / "portrait.png")
    save_speech(folder / "speech.wav", 0.2)
    picture = read_picture(EXAMPLE).pixels
    for name, sound in (("clip.mp4", save_speech(folder / "clip.wav", 0.24)), ("silent.mp4", None)):
        with open_writer(folder / name, (256, 256), sound=sound, frames=6) as writer:
            for i in range(6):
                writer.write(crop_picture(picture, Crop(4.0 * i, 2.0 * i, 460.0), 256))
    return folder


@pytest.fixture(scope="module")
def pipeline(files: Path) -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained(files / "toy", "cpu", "float32")


@pytest.fixture(scope="module")
def person(pipeline: SDTalkPipeline, files: Path) -> Portrait:
    return pipeline.tracker.portrait(read_picture(files / "portrait.png").pixels, "portrait")


def plan_of(pipeline: SDTalkPipeline, person: Portrait, speech: Path, options: TalkOptions) -> DrivingSignals:
    return pipeline.signals(person, read_speech(speech), options, lambda *_: None, Stopwatch())


def test_a_video_is_made_with_the_pipeline_and_from_the_command_line(files: Path, tmp_path: Path) -> None:
    talk = SDTalkPipeline.from_pretrained(files / "toy")(
        files / "portrait.png", files / "speech.wav", tmp_path / "a.mp4"
    )
    info = probe(talk.path)
    assert len(talk) == 5 == len(frames_of(talk.path)) and info.has_sound
    assert (info.width, info.height) == (512, 512) and abs(info.duration - 0.2) <= 0.041
    words = [files / "portrait.png", files / "speech.wav", "-o", tmp_path / "b.mp4", "--model", files / "toy"]
    assert main([str(word) for word in words]) == 0
    assert np.array_equal(frames_of(tmp_path / "a.mp4"), frames_of(tmp_path / "b.mp4"))


@pytest.mark.parametrize("noise", ["fresh", "stored", "none"])
def test_noise_is_what_the_config_says_and_the_seed_decides_it(
    pipeline: SDTalkPipeline, person: Portrait, monkeypatch: pytest.MonkeyPatch, noise: str
) -> None:
    """Frames of one unchanging state differ by fresh noise only; and this noise is the same in every run."""
    monkeypatch.setattr(pipeline.model.neural_renderer, "noise", noise)
    head = pipeline.reconstruct_tracked(person)
    one = pipeline.speech_encoder.silence()
    camera = person.track.camera[torch.zeros(6).long()]
    still = DrivingSignals(one.expand(6, -1, -1), head.eyes.expand(6, -1), camera)

    def frames(seed: int) -> np.ndarray:
        batches = render_frames(pipeline.model, head, still, torch.zeros(1, 3, 512, 512), 64, seed=seed)
        return np.concatenate(list(batches))

    torch.manual_seed(5)
    before = torch.get_rng_state()
    video = frames(1)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers go on as they were"
    torch.manual_seed(6)
    assert np.array_equal(video, frames(1))
    alike = [np.array_equal(video[i], video[j]) for i in range(6) for j in range(i)]
    assert not any(alike) if noise == "fresh" else all(alike)
    assert np.array_equal(video, frames(2)) == (noise != "fresh")


@pytest.mark.parametrize("noise", ["fresh", "stored"])
def test_two_runs_give_the_same_video(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: str
) -> None:
    monkeypatch.setattr(pipeline.model.neural_renderer, "noise", noise)
    options = replace(STILL, seed=3)
    first, again = (
        frames_of(pipeline(files / "portrait.png", files / "speech.wav", tmp_path / name, options).path)
        for name in ("a.mp4", "b.mp4")
    )
    assert np.array_equal(first, again)


def test_the_mouth_option_reaches_the_codes(
    pipeline: SDTalkPipeline, person: Portrait, files: Path, tmp_path: Path
) -> None:
    speech = save_speech(tmp_path / "speech.wav", 1.0)
    still, learned, wide = (
        plan_of(pipeline, person, speech, replace(STILL, mouth=mouth)).audio_code for mouth in (0.0, 1.0, 2.0)
    )
    assert torch.equal(learned, pipeline.speech_encoder.encode(read_speech(speech)))
    assert torch.equal(still, still[:1].expand_as(still)) and not torch.equal(learned, still)
    torch.testing.assert_close(wide - learned, learned - still)


def test_pose_and_blinks_follow_a_video(pipeline: SDTalkPipeline, person: Portrait, files: Path) -> None:
    clip = str(files / "clip.mp4")
    plan = plan_of(pipeline, person, files / "speech.wav", TalkOptions(pose=clip, blink=clip))
    place = plan.camera.project(torch.zeros(5, 1, 3))[:, 0]
    assert (place[1:, 0] < place[:-1, 0]).all(), "the picture moves to the left"
    share = plan.eyes[:, GAPS] / person.track.eyes[:, GAPS]
    assert ((share > 0.5) & (share < 1.5)).all() and torch.equal(plan.eyes, plan.eyes.trunc())


def test_eyes_reach_the_model_in_whole_px(
    pipeline: SDTalkPipeline, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published weights never saw anything else (reference section 6, "Conditions"); blinks scale the photo's."""
    given: list[torch.Tensor] = []
    animate = pipeline.model.animate

    def listening(head, code, eyes, small):
        assert small is None, "the paper's model has no gaze, brows or breath of its own"
        given.append(eyes)
        return animate(head, code, eyes)

    monkeypatch.setattr(pipeline.model, "animate", listening)
    speech = save_speech(tmp_path / "long.wav", 1.24)  # with this seed the first blink comes after 1.05 s
    pipeline(files / "portrait.png", speech, tmp_path / "o.mp4", TalkOptions(pose="still", seed=3, size=64))
    eyes = torch.cat(given)
    assert len(eyes) == 31 and torch.equal(eyes, eyes.trunc())
    open_eyes = eyes.amax(0)
    assert (eyes[:, GAPS].amin(0) < 0.5 * open_eyes[GAPS]).all(), "they blink"
    assert (open_eyes[GAPS] > 3).all() and (open_eyes[[2, 5]] > 15).all(), "px, not head-space units"
    assert torch.equal(eyes[:, [2, 5]], open_eyes[[2, 5]].expand(31, 2))


def test_eyes_in_head_space_stay_as_they_are(pipeline: SDTalkPipeline) -> None:
    ours = SDTalkPipeline(
        toy_base(eyes_in_px=False), pipeline.tracker, speech_encoder=pipeline.speech_encoder
    )
    eyes = torch.tensor([[0.04, 0.03, 0.2, 0.04, 0.03, 0.2]])
    assert torch.equal(ours.eyes_for_model(eyes), eyes)


@torch.no_grad()
def test_the_model_sees_the_person_before_black(pipeline: SDTalkPipeline, person: Portrait) -> None:
    mask = torch.zeros_like(person.mask)
    mask[..., 100:400, 150:420] = 1
    seen: list[torch.Tensor] = []
    hook = pipeline.model.reconstructor.encoder.register_forward_pre_hook(
        lambda _, given: seen.append(given[0])
    )
    head = pipeline.reconstruct_tracked(replace(person, mask=mask))
    other = torch.where(mask > 0, person.image, torch.rand_like(person.image))
    same = pipeline.reconstruct_tracked(replace(person, image=other, mask=mask))
    hook.remove()
    assert torch.equal(head.gaussians.features, same.gaussians.features)
    assert seen[0].shape == (1, 3, 56, 56)
    assert not seen[0][..., :9, :].any() and not seen[0][..., :14].any() and seen[0][..., 20:30, 20:30].any()


@torch.no_grad()
def test_completion_points_are_flames_in_the_published_order(
    pipeline: SDTalkPipeline, person: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left eyeball, right eyeball, right eye region, lips, left eye region: each point has its vertex's vector."""
    rows = load_flame().completion_rows
    head = pipeline.reconstruct_tracked(person)
    assert torch.equal(person.track.completion_rows, rows)
    assert torch.equal(head.gaussians.means[:, :1920], person.track.completion_points)
    place = person.track.camera.project(person.track.completion_points)[0]
    parts = [546, 546, 287, 254, 287]
    left_ball, right_ball, right, lips, left = (part.mean(0) for part in place.split(parts))
    assert left_ball[0] > right_ball[0] and left[0] > right[0], "the subject's left is the picture's right"
    assert right_ball[0] < lips[0] < left_ball[0] and lips[1] > max(left_ball[1], right_ball[1])
    vectors = next(
        p for p in pipeline.model.reconstructor.completion_branch.parameters() if p.shape == (5023, 8)
    )
    changed = vectors.clone()
    changed[rows[700]] += 1
    monkeypatch.setattr(vectors, "data", changed)
    after = pipeline.reconstruct_tracked(person).gaussians.features
    moved = (after != head.gaussians.features).any(-1)[0].nonzero()[:, 0]
    assert moved.tolist() == (rows == rows[700]).nonzero()[:, 0].tolist()
    assert 700 in moved


@torch.no_grad()
def test_the_whole_person_is_one_rigid_head_drawn_by_the_published_rules(
    pipeline: SDTalkPipeline, person: Portrait, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []
    plain = sdtalk.model.rasterise

    def watched(gaussians, camera, *rules):
        drawn.append((gaussians, *rules))
        return plain(gaussians, camera, *rules)

    monkeypatch.setattr(sdtalk.model, "rasterise", watched)
    head = pipeline.reconstruct_tracked(person)
    moved = pipeline.model.animate(head, pipeline.speech_encoder.silence(), head.eyes)
    assert (head.head_weight == 1).all() and head.texture is None
    turned = replace(head.rest, world_to_camera=head.rest.world_to_camera.clone())
    turned.world_to_camera[:, 0, 3] += 0.3
    frame = pipeline.model.render(head, moved, turned)
    assert drawn[0][0] is moved.gaussians and drawn[0][1] == PUBLISHED_RULES
    assert frame.alpha.amax() > 0.1


def test_a_clip_repeats_itself(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    done = reenact(pipeline, files / "clip.mp4", tmp_path / "o.mp4", tmp_path / "t.mp4")
    again = reenact(pipeline, files / "clip.mp4", tmp_path / "again.mp4")
    assert done.frames == 6 == len(frames_of(tmp_path / "o.mp4")) == len(frames_of(tmp_path / "t.mp4"))
    assert probe(tmp_path / "o.mp4").has_sound
    assert np.array_equal(frames_of(done.path), frames_of(again.path)), "fresh noise is the same in every run"


def test_a_clip_without_sound_moves_a_portrait(pipeline: SDTalkPipeline, files: Path, tmp_path: Path) -> None:
    options = ReenactOptions(str(files / "portrait.png"), "white")
    done = reenact(pipeline, files / "silent.mp4", tmp_path / "o.mp4", None, options)
    assert "no sound" in done.note and done.frames == 6 and not probe(tmp_path / "o.mp4").has_sound
    reenactment = prepare(pipeline, files / "silent.mp4", options)
    eyes, code = reenactment.signals.eyes, reenactment.signals.audio_code
    assert torch.equal(eyes, eyes.trunc())
    assert torch.equal(code, pipeline.speech_encoder.silence().expand(6, -1, -1))


def test_sound_shorter_than_the_clip_goes_on_in_silence(
    pipeline: SDTalkPipeline, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = pipeline.speech_encoder.encode
    monkeypatch.setattr(pipeline.speech_encoder, "encode", lambda sound: encode(sound)[:4])
    code = prepare(pipeline, files / "clip.mp4").signals.audio_code
    assert code.shape == (6, 2, 8)
    assert torch.equal(code[4:], pipeline.speech_encoder.silence().expand(2, -1, -1))
    assert not torch.equal(code[3], code[4])


# --- what is missing, and what does not fit ---


def refused(files: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture) -> str:
    words = [files / "portrait.png", files / "speech.wav", "-o", tmp_path / "o.mp4", "--model", model]
    assert main([str(word) for word in words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("sdtalk: ") and printed.err.count("\n") == 1 and not printed.out
    assert not (tmp_path / "o.mp4").exists()
    return printed.err


def test_missing_assets_are_told_one_after_the_other(
    files: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SDTALK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    line = refused(files, tmp_path, files / "toy", capsys)
    assert "FLAME" in line and "`sdtalk assets add flame" in line and "mini" in line
    shutil.copytree(home / "flame", tmp_path / "home" / "flame")
    line = refused(files, tmp_path, files / "toy", capsys)
    assert "HuBERT" in line and "`sdtalk assets add hubert" in line
    shutil.copytree(home / "hubert", tmp_path / "home" / "hubert")
    SDTalkPipeline.from_pretrained(files / "toy")


def test_another_hubert_is_refused(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    toy_base(audio_width=48).save_pretrained(tmp_path / "other")
    line = refused(files, tmp_path, tmp_path / "other", capsys)
    assert "tokens of 48 numbers" in line and "HuBERT here have 32" in line and "assets add hubert" in line


UNFIT = {
    "image_encoder": ("vgg", "image_encoder = 'vgg' is none of unet, dinov2"),
    "audio_encoder": ("wav2vec2", "audio_encoder = 'wav2vec2' is none of mel, whisper, hubert"),
    "template": ("smpl", "template = 'smpl' is none of"),
    "neural_renderer": (
        "residual",
        "neural_renderer = 'residual' does not fit the rest, which wants 'style_unet'",
    ),
    "renderer_noise": ("pink", "renderer_noise = 'pink' is none of none, stored, fresh"),
    "token_alignment": ("behind", "token_alignment = 'behind' is none of"),
    "priors": (True, "image_encoder = 'dinov2' does not fit the rest, which wants 'unet'"),
    "plane_size": (48, "plane_size = 48 does not fit the rest, which wants 32"),
    "global_width": (128, "global_width = 128 does not fit the rest, which wants 32"),
    "template_points": (1920, "template_points = 1920 does not fit the rest, which wants 5023"),
    "backbone_heads": (3, "backbone_heads = 3 does not divide backbone_width = 32"),
    "backbone_depth": (2, "no network can be built from it"),
    "eye_scale": (float("nan"), "eye_scale = nan is not possible"),
    "local_channels": (9, "has the shape"),
}


@pytest.mark.parametrize("entry", UNFIT)
def test_a_config_that_does_not_fit_is_told_in_one_line(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture, entry: str
) -> None:
    value, problem = UNFIT[entry]
    shutil.copytree(files / "toy", tmp_path / "toy")
    path = tmp_path / "toy" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    line = refused(files, tmp_path, tmp_path / "toy", capsys)
    assert str(tmp_path / "toy") in line and problem in line


def test_the_configs_we_have_fit(files: Path) -> None:
    assert read_config(files / "toy") == TOY_BASE
    assert BASE.plane_size == published_config().plane_size == 296
    with pytest.raises(ValueError, match="template = 'face_mesh' does not fit the rest, which wants 'flame'"):
        SDTalkConfig(eyes_in_px=True)


def test_mini_has_no_use_for_what_only_base_hears_and_sees(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no use for it"):
        SDTalkPipeline.from_pretrained("mini", "cpu", "bfloat16")


def test_the_networks_of_a_frame_compile_as_whole_graphs(tmp_path: Path) -> None:
    """In a process of its own, without the tests' type checks; captured, not turned into machine code."""
    check = """
import torch
from toy import toy_base
model = toy_base()
model.neural_renderer.noise = "stored"
code = model.coarse_field.encode(torch.randn(1, 50, 3))
state = torch.randn(3, model.config.audio_code_width), torch.randn(3, 6)
features = torch.randn(1, model.config.feature_channels, 512, 512)
with torch.inference_mode():
    moved, frame = model.coarse_field(code, *state), model.neural_renderer(features)
    model.compiled(backend="eager")
    assert torch.equal(moved.means, model.coarse_field(code, *state).means)
    assert torch.equal(frame, model.neural_renderer(features))
assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
"""
    printed = tmp_path / "printed"
    awaited(start_code(printed, check), printed)
