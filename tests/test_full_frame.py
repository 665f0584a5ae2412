"""Tests of full frames: what stands still is the photo, what moves is the head; the kernel does what PyTorch does."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import EXAMPLE, toy_base, toy_picture, toy_track

from sdtalk.errors import InputError
from sdtalk.framing import SHAPES, Framing
from sdtalk.full_frame import BORDER, FullFrame, box_of, kept, own_state
from sdtalk.gpu_frames import GpuFrames
from sdtalk.head import Frame
from sdtalk.image import Crop, crop_picture, read_picture
from sdtalk.live.renderer import LiveRenderer
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.stopwatch import Stopwatch
from sdtalk.talk import Talk
from sdtalk.tracking.head_track import COMPLETION_POINTS, Portrait
from sdtalk.video import probe

SPEECH = EXAMPLE.with_name("sense_and_sensibility.wav")


@pytest.fixture(scope="module")
def pipeline() -> SDTalkPipeline:
    return SDTalkPipeline.from_pretrained("mini", device="cpu")


@pytest.fixture(scope="module")
def talk(pipeline) -> Talk:
    return pipeline(EXAMPLE, SPEECH, frame="full", mark=False)  # the mark is in every pixel


@pytest.fixture(scope="module")
def whole(talk) -> FullFrame:
    assert talk._place is not None
    return talk._place


@pytest.fixture(scope="module")
def moved(pipeline, talk) -> Frame:
    """Two frames, exactly."""
    head, some = talk.head.gaussians, talk.signals[40:42]
    with torch.inference_mode():
        animated = pipeline.model.animate(head, some.audio_code, some.eyes, some.small_motion)
        return pipeline.model.render(head, animated, some.camera)


def test_the_photos_own_state_is_the_photo_bit_for_bit(pipeline, talk, whole) -> None:
    with torch.inference_mode():
        frames = whole.pasted(own_state(pipeline.model, talk.head.gaussians))
    assert torch.equal(frames[0], whole.photo)
    assert np.array_equal(whole.photo.numpy(), read_picture(EXAMPLE).pixels)


def test_what_stands_still_is_the_photos_own_and_the_head_moves(talk, whole) -> None:
    frames = np.stack(list(islice(talk.frames(), 40, 42)))
    assert frames.shape == (2, 512, 512, 3) and talk.size == (512, 512)
    changed = (frames != whole.photo.numpy()).any((0, 3))
    left, top, right, bottom = whole.box
    outside = np.ones_like(changed)
    outside[top:bottom, left:right] = False
    assert not changed[outside].any() and 0.3 < changed[~outside].mean() < 0.9
    assert not np.array_equal(frames[0], frames[1])


def test_the_kernel_pastes_what_pytorch_pastes(whole, moved) -> None:
    fast = whole.pasted(moved)
    with torch.inference_mode():
        slow = whole.paste_reference(whole.changes(moved), whole.photo[None].repeat(2, 1, 1, 1))
    assert (fast.int() - slow.int()).abs().max() <= 1


def test_live_and_gpu_frames_are_the_exact_ones(pipeline, talk, whole, moved) -> None:
    exact = whole.pasted(moved).float()
    live = LiveRenderer(pipeline.model, talk.head.gaussians, talk.signals[38:44])
    found = whole.pasted(live.moved(talk.signals[40:42], Stopwatch())).float()
    assert (found - exact).abs().mean() < 0.3
    gpu = GpuFrames(
        pipeline.model, talk.head.gaussians, talk.signals, None, 512, Stopwatch(), 0, True, "", whole
    )
    (frames,) = gpu.frames([range(40, 42)])
    assert np.array_equal(frames, exact.numpy().astype(np.uint8))


def test_fine_detail_moves_with_the_head(pipeline, talk, whole, moved) -> None:
    """A photo four times as large: stripes finer than the crop, which the head has never seen, move with it."""
    portrait, left, side = talk.head.portrait, 640, 892.0
    large = np.full((2048, 2048, 3), 128, np.uint8)
    large[:, ::4] += 60
    crop = Crop(talk.head.portrait.crop.left * 4, talk.head.portrait.crop.top * 4, side)
    of_large = replace(portrait, picture=large, crop=crop)
    striped = FullFrame.of(pipeline.model, talk.head.gaussians, of_large, Framing.whole(of_large))
    frame = whole_grey(striped.pasted(moved)[0])
    cheek = frame[slice(*rows_of(striped, 0.55)), left:1200]
    still = whole_grey(striped.photo)[slice(*rows_of(striped, 0.55)), left:1200]
    assert cheek.std(1).mean() > 0.5 * still.std(1).mean() and not np.array_equal(cheek, still)


def test_large_heads_have_the_photos_own_detail_before_any_background(pipeline, talk) -> None:
    """A photo twice as large: in its own state a head of 1024 px is the photo's crop, and sharper than one enlarged."""
    portrait, crop = talk.head.portrait, talk.head.portrait.crop
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    of_large = replace(portrait, picture=noise, crop=Crop(crop.left * 2, crop.top * 2, crop.side * 2))
    large = FullFrame.of(pipeline.model, talk.head.gaussians, of_large, Framing.head(of_large, 1024))
    with torch.inference_mode():
        own = own_state(pipeline.model, talk.head.gaussians)
        assert torch.equal(large.pasted(own)[0], torch.from_numpy(crop_picture(noise, of_large.crop, 1024)))
        green = torch.tensor([0.0, 1.0, 0.0]).reshape(1, 3, 1, 1).repeat(1, 1, 1024, 1024)
        before = Framing.head(of_large, 1024, green)
        keyed = FullFrame.of(pipeline.model, talk.head.gaussians, of_large, before).pasted(own)[0].float()
    alpha = torch.nn.functional.interpolate(own.alpha, (1024, 1024), mode="bilinear")[0, 0]
    assert (keyed[alpha < 0.001] == torch.tensor([0.0, 255.0, 0.0])).all()
    inside = alpha > 0.999
    assert (keyed[inside] - large.photo[inside]).abs().mean() < 0.5 * (
        large.photo[inside] - 128.0
    ).abs().mean()


def test_sizes_above_the_models_own_are_made_of_the_photo(pipeline, talk) -> None:
    head = talk.head
    for choices, detailed in (
        ({}, True),
        ({"background": "white"}, True),
        ({"background": "transparent"}, False),
    ):
        large = pipeline.talk(head, SPEECH, size=640, **choices)
        assert large.size == (640, 640) and (large._place is not None) is detailed
        frame = next(large.frames())
        assert frame.shape == (640, 640, 3 if detailed else 4)
    assert pipeline.talk(head, SPEECH, size=512)._place is None


def whole_grey(frame: torch.Tensor) -> np.ndarray:
    return frame.float().mean(-1).numpy()


def rows_of(whole: FullFrame, share: float) -> tuple[int, int]:
    row = round(whole.crop.top + share * whole.crop.side)
    return row, row + 20


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(640, 427), (300, 501), (3000, 1501)])
def test_shapes_hold_the_crop_and_have_even_sides(shape: str, size: tuple[int, int]) -> None:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    side = 0.8 * min(size)
    crop = Crop(0.6 * (width - side), 0.1 * (height - side), side)
    portrait = Portrait(torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8), toy_track(), crop, picture=pixels)
    framing = Framing.whole(portrait, shape)
    photo, place = framing.photo, framing.crop
    high, wide = photo.shape[:2]
    assert high % 2 == 0 and wide % 2 == 0 and max(high, wide) <= 2 * 2160
    if SHAPES[shape]:
        assert wide / high == pytest.approx(SHAPES[shape], rel=0.02)
        assert place.left >= -1 and place.left + place.side <= wide + 1
        assert place.top >= -1 and place.top + place.side <= high + 1
    if max(size) <= 2160:  # not reduced: what is of the photo is there, pixel for pixel
        dx, dy = round(crop.left - place.left), round(crop.top - place.top)
        both = slice(max(dy, 0), min(dy + high, height)), slice(max(dx, 0), min(dx + wide, width))
        shown = photo[both[0].start - dy : both[0].stop - dy, both[1].start - dx : both[1].stop - dx]
        assert shown.size and np.array_equal(shown, pixels[both])


def test_a_crop_fades_into_the_photo_only_at_borders_within_it() -> None:
    free = kept(Crop(0.0, 0.0, 100.0), 100, 100, 64)
    assert (free == 1).all()
    within = kept(Crop(10.0, 0.0, 50.0), 100, 100, 200)[0, 0]
    assert within[0, 0] < 0.05 and within[0, 100] == 1 and within[-1, 100] < 0.05
    assert within[100, round(200 * BORDER) + 1] == 1
    assert box_of(Crop(-3.2, 10.5, 20.0), 15, 100) == (0, 10, 15, 30)


def test_a_model_without_priors_is_pasted_too() -> None:
    model = toy_base(renderer_noise="none").eval()
    image = torch.nn.functional.interpolate(toy_picture(), (512, 512))
    track = toy_track()
    track = replace(track, camera=track.camera.resized(512), completion_rows=torch.arange(COMPLETION_POINTS))
    portrait = Portrait(
        image, torch.ones_like(image[:, :1]), track, Crop(4.0, 4.0, 60.0),
        picture=np.full((70, 80, 3), 90, np.uint8),
    )  # fmt: skip
    with torch.inference_mode():
        head = model.reconstruct(image, portrait.mask, portrait.track)
        whole = FullFrame.of(model, head, portrait, Framing.whole(portrait))
        assert torch.equal(whole.pasted(own_state(model, head))[0], whole.photo)
        other = own_state(model, head)
        brighter = replace(other, colours=other.colours + 0.2)
        assert (whole.pasted(brighter)[0] != whole.photo).any()


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"frame": "half"}, "Choose head or full"),
        ({"frame": "full", "shape": "4:3"}, "Choose one of photo"),
        ({"shape": "1:1"}, "a head's frame is a square"),
        ({"frame": "full", "background": "white"}, "own background"),
    ],
)
def test_impossible_frames_are_refused(choices: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        TalkOptions(**choices)


def test_the_video_has_the_photos_shape(talk, tmp_path: Path) -> None:
    short = Talk(
        talk._model, talk.head, talk.signals[:3], talk._speech, talk._background,
        TalkOptions(frame="full", shape="9:16", label="AI"),
    )  # fmt: skip
    info = probe(short.save(tmp_path / "talk.mp4"))
    assert (info.width, info.height) == (288, 512)
