"""Pictures: reading files, PIL images and arrays; cropping; conversion to tensors and frames."""

import math
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor

from sdtalk.errors import InputError

LONGEST_SIDE = 4096
"""Larger pictures are reduced to this on reading, in px: the models see 512 px."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
"""What is opened; Pillow's other readers run external programs or serve no photos."""
STRIP_PX = 20
"""A picture goes on as the mirror image of only so much of its edge, px of the crop: more would show a second face."""
CRISP_PX = 5
"""The mirror image is sharp up to here, px of the crop."""
SOFTENING = 0.38
"""Farther, the standard deviation of its blur grows by so much a px: below a chin it must not show lips."""
OTHER_FILE = "Choose a JPEG, PNG or WebP picture (a HEIC photo: save it as JPEG first)."


@dataclass(frozen=True)
class Crop:
    """A square in a picture, in px of that picture; it may reach over the border.

    Attributes:
        left: x of the left edge (0 = left edge of the first pixel).
        top: y of the top edge.
        side: Length of a side.
    """

    left: float
    top: float
    side: float


@dataclass(frozen=True)
class Picture:
    """A picture as users see it: upright, sRGB, at most 4096 px long.

    Attributes:
        pixels: RGB; where the file has transparency, over white.
        alpha: Opacity, 255 = opaque; None where the whole picture is opaque.
        note: What the user should know (for example that only the first frame is used), or "".
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    alpha: UInt8[np.ndarray, "height width"] | None = None
    note: str = ""


PictureSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray
"""A picture as users have it, see `read_picture`."""


def read_picture(source: PictureSource, name: str = "picture") -> Picture:
    """Take a picture of any common kind, whatever its name ends in.

    EXIF orientation and colour profile are applied; CMYK, grey, palette and 16-bit pictures become 8-bit RGB.

    Args:
        source: A path, the bytes of a file, a PIL image, or an array [height, width], [height, width, 3] or [height,
            width, 4] of uint8, or of floating point numbers in [0, 1].
        name: What to call it in an error, where it has no path.

    Raises:
        InputError: No such file, not a picture, damaged, beyond Pillow's limit of about 179 megapixels, or of a type
            that is no picture.
    """
    if isinstance(source, str | Path):
        name = str(source)
        source = _file_bytes(Path(source))
    if isinstance(source, np.ndarray):
        source = _image_of_array(source, name)
    if not isinstance(source, bytes | Image.Image):
        remedy = "Give a path, a PIL image, an array [height, width, 3], or the bytes of a file."
        raise InputError(name, f"an object of type {type(source).__name__} is no picture", remedy)
    if source == b"":
        raise InputError(name, "the file is empty", OTHER_FILE)
    return _decode(source, name)


def turned_picture(picture: Picture, degrees: int) -> Picture:
    """Turn a picture that lies on its side or stands upside down.

    Args:
        picture: As it was read.
        degrees: Clockwise: 0, 90, 180 or 270.

    Raises:
        InputError: Other degrees.
    """
    if degrees not in (0, 90, 180, 270):
        raise InputError(f"turn {degrees}", "pictures are turned by quarters", "Choose 0, 90, 180 or 270.")
    if degrees == 0:
        return picture
    pixels, alpha = (
        None if x is None else np.ascontiguousarray(np.rot90(x, -degrees // 90))
        for x in (picture.pixels, picture.alpha)
    )
    assert pixels is not None
    return Picture(pixels, alpha, picture.note)


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # missing, a folder, no permission
        problem = f"it cannot be read ({error.strerror})"
        raise InputError(str(path), problem, "Check the path of the picture.") from error


def _image_of_array(pixels: np.ndarray, name: str) -> Image.Image:
    """An array as Pillow has it; the shape and the range of its numbers are checked."""
    if pixels.ndim not in (2, 3) or 0 in pixels.shape or pixels.shape[2:] not in ((), (3,), (4,)):
        problem = f"its shape {pixels.shape} is not [height, width, 3] or [height, width, 4]"
        raise InputError(name, problem, "Transpose it, colours last.")
    if pixels.dtype.kind == "f":
        if not (np.isfinite(pixels).all() and 0 <= pixels.min() and pixels.max() <= 1):
            problem = "its floating point numbers are not all from 0 to 1"
            raise InputError(name, problem, "Divide them by 255, or convert them to uint8.")
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.dtype != np.uint8:
        problem = f"{pixels.dtype} is no type of pixels here"
        raise InputError(name, problem, "Give uint8, or floating point numbers from 0 to 1.")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _decode(source: bytes | Image.Image, name: str) -> Picture:
    try:
        with warnings.catch_warnings():  # Pillow warns from half its limit on; its error at the limit stays
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):  # a copy: it is the caller's, and is turned and reduced here
                return Picture(*_to_rgb_and_alpha(source.copy()))
            with Image.open(BytesIO(source), formats=FORMATS) as image:
                note = "Only the first of its frames is used." if _has_frames(image) else ""
                return Picture(*_to_rgb_and_alpha(image), note)
    except UnidentifiedImageError as error:
        raise InputError(name, "this is not a picture that can be read", OTHER_FILE) from error
    except Image.DecompressionBombError as error:
        raise InputError(name, "more than 178 megapixels", "Reduce it, 4096 px are plenty.") from error
    except Exception as error:  # a damaged file leads Pillow's decoders into errors of any type
        problem = f"the picture is damaged ({error})"
        raise InputError(name, problem, "Save it again as a JPEG or PNG file.") from error


def _has_frames(image: Image.Image) -> bool:
    """Tell animations and page stacks from phone photos, whose second frame (MPO) is a preview."""
    return image.format != "MPO" and getattr(image, "is_animated", False)


def _to_rgb_and_alpha(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode, turn upright, reduce, convert to sRGB; in this order, 144 megapixels take 0.8 to 2.1 GB (measured)."""
    image.draft(None, (LONGEST_SIDE, LONGEST_SIDE))  # a JPEG is decoded at the size needed
    ImageOps.exif_transpose(image, in_place=True)
    profile = image.info.get("icc_profile")
    image = _to_eight_bits(image)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    rgb = _to_srgb(image.convert("RGB") if alpha else image, profile)
    if alpha is None or alpha.getextrema() == (255, 255):
        return np.array(rgb), None
    white = Image.new("RGB", rgb.size, "white")
    return np.array(Image.composite(rgb, white, alpha)), np.array(alpha)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as L, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its 32-bit numbers have no known range")
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its floating-point numbers have no known range")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Apply an embedded colour profile; one that does not fit the picture is ignored, as viewers do."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            image = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
        except (ImageCms.PyCMSError, OSError):
            pass
    return image.convert("RGB")


def crop_picture(
    picture: Picture | UInt8[np.ndarray, "height width *channels"], crop: Crop, size: int
) -> UInt8[np.ndarray, "{size} {size} *channels"]:
    """Cut a square out of a picture and resample it (antialiased Lanczos), sub-pixel exact.

    Args:
        picture: A picture, a video frame [H, W, 3] or an alpha channel [H, W].
        crop: Where; beyond the border the picture goes on as its mirror image, which blurs with the distance.
        size: Side of the result in px.
    """
    pixels = picture.pixels if isinstance(picture, Picture) else picture
    reach = math.ceil(3 * max(1.0, crop.side / size)) + 1  # Lanczos looks three (output) pixels around
    left, top = math.floor(crop.left) - reach, math.floor(crop.top) - reach
    strip = math.ceil(STRIP_PX * crop.side / size)
    rows = _mirrored(np.arange(top, math.ceil(crop.top + crop.side) + reach), pixels.shape[0], strip)
    columns = _mirrored(np.arange(left, math.ceil(crop.left + crop.side) + reach), pixels.shape[1], strip)
    window = Image.fromarray(pixels.take(rows, 0).take(columns, 1))  # a fraction of the time of np.ix_
    x, y = crop.left - left, crop.top - top
    box = (x, y, x + crop.side, y + crop.side)
    result = window.resize((size, size), Image.Resampling.LANCZOS, box)
    beyond = px_beyond_border(crop, pixels.shape[1], pixels.shape[0], size)
    return _softened(result, beyond) if beyond.max() > 0 else np.array(result)


def extended(
    pixels: UInt8[np.ndarray, "height width 3"], left: int, top: int, width: int, height: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """A rectangle of a picture; beyond the border the picture goes on as for `crop_picture`.

    Args:
        pixels: The picture.
        left: Of the rectangle, px of the picture.
        top: See left.
        width: See left.
        height: See left.
    """
    strip = STRIP_PX * max(1, min(pixels.shape[:2]) // 512)
    rows, columns = np.arange(top, top + height), np.arange(left, left + width)
    inside = pixels.take(_mirrored(rows, pixels.shape[0], strip), 0)
    inside = inside.take(_mirrored(columns, pixels.shape[1], strip), 1)
    down, across = (
        np.maximum(np.maximum(-index, index - (length - 1)), 0).astype(np.float32)
        for index, length in ((rows, pixels.shape[0]), (columns, pixels.shape[1]))
    )
    beyond = np.hypot(down[:, None], across[None]).astype(np.float32)
    return _softened(Image.fromarray(inside), beyond) if beyond.max() > 0 else np.ascontiguousarray(inside)


def px_beyond_border(crop: Crop, width: int, height: int, size: int) -> Float[np.ndarray, "{size} {size}"]:
    """How far each pixel of a crop lies beyond the border of its picture, px of the crop; 0 within.

    Args:
        crop: Where it was cut out.
        width: Width of the picture in px.
        height: Height of the picture in px.
        size: Side of the crop in px after resampling.
    """
    scale = size / crop.side
    distances = []
    for start, length in ((crop.top, height), (crop.left, width)):
        centres = np.arange(size) + 0.5
        before, after = -start * scale - centres, centres - (length - start) * scale
        distances.append(np.maximum(np.maximum(before, after), 0.0))
    return np.hypot(distances[0][:, None], distances[1][None]).astype(np.float32)


def box_within(crop: Crop, width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom (the last two exclusive) of the pixels of a crop that show its picture; whole px.

    Args:
        crop: Where it was cut out.
        width: Width of the picture in px.
        height: Height of the picture in px.
        size: Side of the crop in px after resampling.
    """
    scale, slack = size / crop.side, 1e-6  # a border on a border, but for rounding

    def within(start: float, length: int) -> tuple[int, int]:
        first, last = math.ceil(-start * scale - slack), math.floor((length - start) * scale + slack)
        return min(max(first, 0), size), min(max(last, 0), size)

    (left, right), (top, bottom) = within(crop.left, width), within(crop.top, height)
    return left, top, right, bottom


def _mirrored(index: np.ndarray, length: int, strip: int) -> np.ndarray:
    """Indices beyond either end run back into the outermost strip and forth again; an end is shown twice."""
    strip = min(strip, length)
    beyond = np.where(index < 0, -1 - index, index - length) % (2 * strip)
    depth = np.minimum(beyond, 2 * strip - 1 - beyond)
    return np.where(index < 0, depth, np.where(index < length, index, length - 1 - depth))


def _softened(
    picture: Image.Image, beyond: Float[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width *channels"]:
    """Blur what lies beyond a border the more, the farther it lies: a mirror image loses its features."""
    level = np.log2(SOFTENING * np.maximum(beyond - CRISP_PX, 0.0) + 1)
    result = np.array(picture)
    for step in range(1, math.ceil(float(level.max())) + 1):
        # deviations of 1, 3, 7, ... px; what lies between is mixed
        blurred = np.array(picture.filter(ImageFilter.GaussianBlur(2**step - 1)))
        here = level > step - 1
        share = np.minimum(level[here] - (step - 1), 1.0).reshape(-1, *(1,) * (result.ndim - 2))
        mixed = result[here] + share * (blurred[here] - result[here].astype(np.float32))
        result[here] = mixed.round().astype(np.uint8)
    return result


def to_tensor(pixels: UInt8[np.ndarray, "*batch height width 3"]) -> Float[Tensor, "frames 3 height width"]:
    """Pictures (one or a batch) as RGB in [0, 1], with a batch dimension."""
    batch = torch.tensor(pixels).reshape(-1, *pixels.shape[-3:])
    return batch.permute(0, 3, 1, 2).float().contiguous() / 255


def to_frames(
    images: Float[Tensor, "frames channel height width"],
) -> UInt8[np.ndarray, "frames height width channel"]:
    """RGB or RGBA in [0, 1] as 8-bit frames: clamped, rounded."""
    return to_bytes(images).cpu().numpy()


def to_bytes(
    images: Float[Tensor, "frames channel height width"],
) -> UInt8[Tensor, "frames height width channel"]:
    """`to_frames`, left where the images are."""
    frames = images.detach().permute(0, 2, 3, 1).float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return frames.contiguous()


FAINT = 8 / 255
"""Below this alpha a pixel's own colour, divided by alpha, is mostly rounding; it fades into its neighbours'."""


def straight_alpha(
    premultiplied: Float[Tensor, "frame 4 height width"],
) -> Float[Tensor, "frame 4 height width"]:
    """Undo the multiplication of colours by alpha: PNG and the transparent videos store them without it.

    Where a pixel is transparent, the colours nearby go on: encoders and viewers mix neighbouring pixels without looking
    at alpha, and black there would be a dark seam around the person.

    Args:
        premultiplied: RGBA in [0, 1].
    """
    return torch.cat([_straight_colours(premultiplied), premultiplied[:, 3:]], dim=1)


def _straight_colours(premultiplied: Tensor) -> Tensor:
    """A pixel's own colour, or where it is transparent that of the nearest surroundings that are not (push-pull)."""
    alpha = premultiplied[:, 3:]
    own = premultiplied[:, :3].minimum(alpha) / alpha.clamp_min(1e-6)  # no colour is brighter than white
    if min(alpha.shape[-2:]) == 1:
        return own
    around = _straight_colours(F.avg_pool2d(premultiplied, 2, ceil_mode=True))
    around = F.interpolate(around, alpha.shape[-2:], mode="bilinear")
    return torch.lerp(around, own, (alpha / FAINT).clamp(max=1))
