"""Tests of image input and output: orientation, colour, cropping, backgrounds, and files that are none."""

import io
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageDraw

from sdtalk.background import PERSON, Background, _dilated, background_frame, parse_background
from sdtalk.errors import InputError
from sdtalk.image import (
    CRISP_PX,
    LONGEST_SIDE,
    STRIP_PX,
    Crop,
    Picture,
    box_within,
    crop_picture,
    px_beyond_border,
    read_picture,
    straight_alpha,
    to_frames,
    to_tensor,
)

RED, BLUE = (220, 30, 40), (20, 60, 200)


def two_halves(width: int = 40, height: int = 30) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def assert_two_halves(picture: Picture, tolerance: int = 3) -> None:
    assert picture.pixels.shape == (30, 40, 3)
    assert np.abs(picture.pixels[:, :18].astype(int) - RED).max() <= tolerance
    assert np.abs(picture.pixels[:, 22:].astype(int) - BLUE).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.bmp", "a.tiff", "a.ppm", "a.jp2", "a.avif", "a.jpg"])
def test_common_formats(tmp_path: Path, name: str) -> None:
    options = {"quality": 100} if name[2:] in ("avif", "jpg", "webp") else {}
    two_halves().save(tmp_path / name, **options)
    picture = read_picture(tmp_path / name)
    assert_two_halves(picture, 12)
    assert picture.alpha is None and picture.note == ""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tiff"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, name: str) -> None:
    transpose = Image.Transpose
    stored_as = {  # how a camera held this way stores an upright scene
        2: transpose.FLIP_LEFT_RIGHT, 3: transpose.ROTATE_180, 4: transpose.FLIP_TOP_BOTTOM,
        5: transpose.TRANSPOSE, 6: transpose.ROTATE_90, 7: transpose.TRANSVERSE, 8: transpose.ROTATE_270,
    }  # fmt: skip
    scene = two_halves()
    scene.paste((255, 255, 0), (2, 2, 10, 8))
    stored = scene.transpose(stored_as[orientation]) if orientation > 1 else scene
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if name == "a.jpg" else {}
    stored.save(tmp_path / name, exif=exif, **options)
    difference = read_picture(tmp_path / name).pixels.astype(int) - np.array(scene)
    assert np.abs(difference).max() <= 12


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "1", "LA", "RGBA", "PA"])
def test_pixel_modes(tmp_path: Path, mode: str) -> None:
    image = two_halves().convert("P").convert("PA") if mode == "PA" else two_halves().convert(mode)
    image.save(tmp_path / "a.tiff")
    picture = read_picture(tmp_path / "a.tiff")
    assert picture.alpha is None
    assert np.array_equal(picture.pixels, np.array(image.convert("RGB")))


def test_cmyk_jpeg(tmp_path: Path) -> None:
    two_halves().convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    assert_two_halves(read_picture(tmp_path / "a.jpg"), 6)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_16_bits_are_scaled(tmp_path: Path, name: str) -> None:
    values = np.linspace(0, 65535, 400).round().reshape(10, 40).astype(np.uint16)
    if name == "a.pgm":
        (tmp_path / name).write_bytes(b"P5\n40 10\n65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    picture = read_picture(tmp_path / name)
    assert np.array_equal(picture.pixels[..., 1], (values / 257).round().astype(np.uint8))


def test_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.3, np.float32)).save(tmp_path / "f.tiff")
    Image.fromarray(np.full((4, 4), 1 << 20, np.int32)).save(tmp_path / "i.tiff")
    for name in ("f.tiff", "i.tiff"):
        with pytest.raises(InputError, match="no known range"):
            read_picture(tmp_path / name)


def test_transparency_is_shown_over_white(tmp_path: Path) -> None:
    image = two_halves().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    image.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal(picture.alpha, np.array(image.getchannel("A")))
    opacity = picture.alpha[..., None] / 255
    expected = np.array(two_halves()) * opacity + 255 * (1 - opacity)
    assert np.abs(picture.pixels - expected).max() <= 1


def test_transparent_palette_colour(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED])
    image.paste(0, (0, 0, 4, 8))
    image.save(tmp_path / "a.gif", transparency=0)
    picture = read_picture(tmp_path / "a.gif")
    assert (picture.alpha[:, :4] == 0).all() and (picture.alpha[:, 4:] == 255).all()
    assert (picture.pixels[:, :4] == 255).all() and (picture.pixels[:, 4:] == RED).all()


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tiff"])
def test_animation_gives_its_first_frame_and_a_note(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    two_halves().save(
        tmp_path / name, save_all=True, append_images=[Image.new("RGB", (40, 30), (0, 255, 0))], **options
    )
    picture = read_picture(tmp_path / name)
    assert_two_halves(picture)
    assert "first" in picture.note


def test_second_picture_of_a_phone_photo_is_no_animation(tmp_path: Path) -> None:
    two_halves().save(
        tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[two_halves()], quality=95
    )
    assert read_picture(tmp_path / "a.jpg").note == ""


def test_colour_profile_is_applied(tmp_path: Path) -> None:
    """An sRGB profile changes nothing; one of another space does; one that does not fit is ignored."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (srgb, lab, b"not a profile"):
        two_halves().save(tmp_path / "a.png", icc_profile=profile)
        assert_two_halves(read_picture(tmp_path / "a.png"))
    swapped = bytearray(srgb)  # red and blue primaries exchanged: a space with a visibly different meaning
    swapped[swapped.index(b"rXYZ")] = ord("b")
    swapped[swapped.rindex(b"bXYZ")] = ord("r")
    two_halves().save(tmp_path / "a.png", icc_profile=bytes(swapped))
    picture = read_picture(tmp_path / "a.png")
    assert np.abs(picture.pixels[0, 0].astype(int) - RED).max() > 50


def test_wrong_extension_does_not_matter(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert_two_halves(read_picture(tmp_path / "a.jpg"))


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), RED).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.tolist() == [[list(RED)]]
    assert (crop_picture(picture, Crop(-3.0, -2.0, 9.0), 7) == RED).all()


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_144_megapixels_are_reduced(tmp_path: Path, name: str) -> None:
    image = Image.new("L", (12_000, 12_000), 50)
    image.paste(200, (6000, 0, 12_000, 12_000))
    image.save(tmp_path / name, compress_level=1)
    pixels = read_picture(tmp_path / name).pixels.astype(int)
    assert max(pixels.shape) <= LONGEST_SIDE and min(pixels.shape[:2]) >= 2048
    assert np.abs(pixels[100, 100] - 50).max() <= 2 and np.abs(pixels[-100, -100] - 200).max() <= 2


@pytest.mark.serial
def test_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = b"P6\n100000 100000\n255\n"
    (tmp_path / "a.ppm").write_bytes(header + b"\0" * 100)
    tracemalloc.start()
    with pytest.raises(InputError, match="megapixels"):
        read_picture(tmp_path / "a.ppm")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "a.jpg"
    if kind == "text":
        path.write_text("this is no picture\n" * 50)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind.startswith("truncated"):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, kind.split()[1])
        path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) * 6 // 10])
    return path


DAMAGED = ["missing", "text", "empty", "folder", "link to itself"] + [
    f"truncated {kind}" for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
]


@pytest.mark.parametrize("kind", DAMAGED)
def test_bad_files_are_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = damaged(kind, tmp_path)
    with pytest.raises(InputError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and message.endswith(".")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_random_damage_never_escapes(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        buffer = io.BytesIO()
        two_halves().save(buffer, kind)
        for _ in range(40):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            where = random.integers(0, len(data), 6)
            data[where] = random.integers(0, 256, 6)
            (tmp_path / "a").write_bytes(data.tobytes())
            try:
                read_picture(tmp_path / "a")
            except InputError as error:
                assert "\n" not in str(error)


def ramp(width: int, height: int) -> np.ndarray:
    """Red is twice x, green is twice y, of pixel centres."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 2 * np.arange(width) + 1
    pixels[..., 1] = 2 * np.arange(height)[:, None] + 1
    return pixels


@pytest.mark.parametrize("crop", [Crop(20.0, 10.0, 64.0), Crop(20.25, 9.6, 33.3), Crop(12.7, 20.1, 16.5)])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_crop_is_sub_pixel_exact(crop: Crop, size: int) -> None:
    result = crop_picture(ramp(100, 90), crop, size).astype(float)
    centres = (np.arange(size) + 0.5) * crop.side / size
    assert result.shape == (size, size, 3)
    assert np.abs(result[..., 0] / 2 - (crop.left + centres)).max() < 0.5
    assert abs((result[..., 0] / 2 - (crop.left + centres)).mean()) < 0.05
    assert abs((result[..., 1] / 2 - (crop.top + centres)[:, None]).mean()) < 0.05


def test_crop_of_the_same_size_copies() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert np.array_equal(crop_picture(Picture(pixels), Crop(7.0, 5.0, 32.0), 32), pixels[5:37, 7:39])
    assert np.array_equal(crop_picture(pixels[..., 0], Crop(7.0, 5.0, 32.0), 32), pixels[5:37, 7:39, 0])


def test_crop_beyond_the_border_is_the_mirror_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    crisp = CRISP_PX
    result = crop_picture(pixels, Crop(-40.0, -30.0, 200.0), 200)
    mirrored = np.pad(pixels, ((crisp, crisp), (crisp, crisp), (0, 0)), mode="symmetric")
    middle = (slice(30, 130), slice(40, 160))
    wide = (slice(30 - crisp, 130 + crisp), slice(40, 160))
    assert np.array_equal(result[middle], pixels)
    assert np.array_equal(result[wide], mirrored[:, crisp:-crisp])
    assert np.array_equal(crop_picture(pixels[..., 1], Crop(-40.0, -30.0, 200.0), 200), result[..., 1])


def test_crop_far_beyond_the_border_has_its_colours_but_no_streaks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    result = crop_picture(pixels, Crop(-150.0, -150.0, 400.0), 400).astype(float)
    assert result[:20].std() < 0.1 * pixels.std() and abs(result[:20].mean() - pixels.mean()) < 12
    lonely = crop_picture(pixels, Crop(300.0, 300.0, 8.0), 8)
    assert pixels.min() <= lonely.min() and lonely.max() <= pixels.max()


def test_nothing_of_a_face_is_mirrored_from_deep_within() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    pixels[: 200 - STRIP_PX - 2] = RED  # a mouth, far enough above the lower border
    result = crop_picture(pixels, Crop(0.0, 100.0, 200.0), 200)
    assert result[100:].max() < 0.1 * max(RED)


def test_distances_beyond_the_border_are_those_of_points() -> None:
    crop = Crop(-3.0, 4.0, 20.0)
    found = px_beyond_border(crop, 12, 10, 10)
    for i in range(10):
        for j in range(10):
            x, y = crop.left + 2 * j + 1, crop.top + 2 * i + 1
            nearest = min(max(x, 0), 12), min(max(y, 0), 10)
            assert found[i, j] == pytest.approx(math.dist((x, y), nearest) / 2)


@pytest.mark.parametrize("crop", [Crop(-3.3, 4.0, 40.0), Crop(0.0, 0.0, 30.0), Crop(2.5, -7.0, 21.0)])
def test_the_box_within_a_picture_is_where_nothing_is_beyond(crop: Crop) -> None:
    pixel = crop.side / 20  # a pixel is within if all its corners are
    left, top, right, bottom = box_within(crop, 30, 25, 20)
    for start, length, low, high in ((crop.left, 30, left, right), (crop.top, 25, top, bottom)):
        within = [start + i * pixel >= -1e-9 and start + (i + 1) * pixel <= length + 1e-9 for i in range(20)]
        assert within == [low <= i < high for i in range(20)]


def test_reduction_is_antialiased() -> None:
    checker = np.indices((256, 256)).sum(0) % 2 * np.uint8(255)
    result = crop_picture(checker.astype(np.uint8), Crop(0.0, 0.0, 256.0), 32)
    assert np.abs(result.astype(int) - 127).max() <= 2


def test_tensors_and_frames_are_inverse() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    images = to_tensor(pixels)
    assert images.shape == (2, 3, 5, 7) and images.min() >= 0 and images.max() <= 1
    assert images[1, 2, 3, 4] == pixels[1, 3, 4, 2] / 255
    assert np.array_equal(to_frames(images), pixels)
    assert torch.equal(to_tensor(pixels[0]), images[:1])


def test_frames_are_clamped_and_rounded() -> None:
    images = torch.tensor([-0.5, 1.7, 0.4999 / 255, 0.5001 / 255]).reshape(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert to_frames(images)[0, 0, :, 0].tolist() == [0, 255, 0, 1]


def test_backgrounds_are_parsed(tmp_path: Path) -> None:
    assert parse_background("original") == Background()
    assert parse_background("transparent") == Background(transparent=True)
    for text in ("white", "#ffffff", "ffffff", "#FFF", "rgb(255, 255, 255)"):
        assert parse_background(text).colour == (255, 255, 255)
    two_halves().save(tmp_path / "a.png")
    background = parse_background(str(tmp_path / "a.png"))
    assert background.picture is not None and background.colour is None


@pytest.mark.parametrize("text", ["", "whitish", "#12345", "nowhere/a.png"])
def test_other_backgrounds_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="no such colour and no such file"):
        parse_background(text)


def test_bad_background_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(InputError, match=r"a\.png: this is not a picture"):
        parse_background(str(tmp_path / "a.png"))


def test_colour_and_picture_as_background() -> None:
    crop, mask = np.zeros((64, 64, 3), np.uint8), torch.ones(64, 64)
    frame = background_frame(Background(colour=RED), crop, mask)
    assert frame.shape == (1, 3, 64, 64) and (to_frames(frame) == RED).all()
    assert background_frame(Background(transparent=True), crop, mask) is None
    wide = Image.new("RGB", (200, 100), (0, 255, 0))
    wide.paste(RED, (50, 0, 150, 100))  # the middle square
    frame = background_frame(Background(picture=Picture(np.array(wide))), crop, mask)
    assert (to_frames(frame)[0, :, 4:-4] == RED).all()


def portrait(size: int = 128) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """A green "person" with frayed edges before a bluish gradient: picture, true background, mask."""
    truth = np.zeros((size, size, 3), np.uint8)
    truth[..., 0] = np.linspace(60, 120, size)
    truth[..., 2] = np.linspace(120, 220, size)[:, None]
    outline = Image.new("L", (size, size))
    draw = ImageDraw.Draw(outline)
    draw.ellipse((size * 0.3, size * 0.15, size * 0.7, size * 0.7), fill=255)
    draw.rectangle((size * 0.2, size * 0.75, size * 0.8, size), fill=255)
    mask = np.array(outline.resize((size // 4, size // 4)).resize((size, size)))
    picture = np.where(np.array(outline)[..., None] > 0, np.uint8((0, 255, 0)), truth)
    return picture, truth, torch.from_numpy(mask).float() / 255


def test_person_leaves_no_halo_and_the_background_is_the_photos_own() -> None:
    picture, truth, mask = portrait()
    frame = to_frames(background_frame(Background(), picture, mask))[0].astype(int)
    assert frame[..., 1].max() <= 2, "green of the person remains"
    assert np.abs(frame - truth).max() <= 40
    assert np.abs(frame - truth).mean() <= 6
    for axis in (0, 1):
        assert np.abs(np.diff(frame, axis=axis)).max() <= 12, "a seam"
    outside = _dilated((mask > PERSON).float()[None, None], 2)[0, 0].numpy() == 0
    assert np.array_equal(frame[outside], picture[outside]), "outside the person nothing changes"


def test_background_of_nobody_and_of_nothing_but_a_person() -> None:
    picture, _, _ = portrait(64)
    nobody = background_frame(Background(), picture, torch.zeros(64, 64))
    assert np.array_equal(to_frames(nobody)[0], picture)
    everywhere = background_frame(Background(), picture, torch.ones(64, 64))
    assert torch.allclose(everywhere, torch.tensor(0.5))


@pytest.mark.parametrize("radius", [1, 5, 30])
def test_growing_row_and_column_wise_is_growing_by_a_square(radius: int) -> None:
    mask = (torch.rand(1, 1, 50, 37, generator=torch.Generator().manual_seed(radius)) > 0.99).float()
    assert torch.equal(_dilated(mask, radius), F.max_pool2d(mask, 2 * radius + 1, 1, radius))


@pytest.mark.parametrize("shade", [0.0, 0.4, 1.0])
def test_straight_alpha_looks_the_same_over_anything(shade: float) -> None:
    torch.manual_seed(0)
    alpha = torch.rand(2, 1, 37, 50).mul(1.6).sub(0.3).clamp(0, 1)  # many pixels that are fully in or out
    colours = torch.rand(2, 3, 37, 50) * alpha
    straight = straight_alpha(torch.cat([colours, alpha], dim=1))
    assert straight.shape == (2, 4, 37, 50) and straight.min() >= 0 and straight.max() <= 1
    assert torch.equal(straight[:, 3:], alpha)
    composite = straight[:, :3] * alpha + (1 - alpha) * shade
    torch.testing.assert_close(composite, colours + (1 - alpha) * shade, atol=2 / 255, rtol=0)


def test_transparent_pixels_have_the_colour_nearby() -> None:
    colour = torch.tensor([0.9, 0.5, 0.1]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[:, :, 10:30, 10:30], alpha[:, :, 30, 10:30] = 1, 0.5
    straight = straight_alpha(torch.cat([colour * alpha, alpha], dim=1))
    torch.testing.assert_close(straight, torch.cat([colour, alpha], dim=1))
    nothing = torch.zeros(1, 4, 5, 1)
    assert torch.equal(straight_alpha(nothing), nothing)


def test_colours_of_two_things_do_not_mix_at_their_edges() -> None:
    premultiplied = torch.zeros(1, 4, 32, 64)
    premultiplied[0, 0, :, :20] = premultiplied[0, 3, :, :20] = 1  # red, left
    premultiplied[0, 2, :, 44:] = premultiplied[0, 3, :, 44:] = 1  # blue, right
    straight = straight_alpha(premultiplied)
    assert (straight[0, 0, :, 20:24] > 0.85).all() and (straight[0, 2, :, 40:44] > 0.85).all()
