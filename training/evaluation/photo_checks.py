"""Check heads made of photos: the photo's own state, a blink, and holes when the head turns.

    python -m training.evaluation.photo_checks PHOTOS --model mini -o runs/photo_checks
    python -m training.evaluation.photo_checks SAMPLES/manifest.json --split dev   # the clips' first frames

PHOTOS is a folder of pictures, one picture, or a manifest.json. Writes photos.json, photos.md, index.html and a contact
sheet a photo: the photo, its own state, the middle of a blink, the head turned to either side.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.pipeline import SDTalkPipeline
from training.evaluation.frame_store import write_contact_sheet
from training.evaluation.photo_metrics import measure_photo
from training.evaluation.photo_report import PhotoResult, PhotoResults, as_markdown, write_photo_results
from training.evaluation.video_cases import first_frame, manifest_videos

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".jp2", ".ppm")
SHEET_PX = 320


@dataclass(frozen=True)
class PhotoSource:
    """A picture that is not read yet.

    Attributes:
        name: What to call it.
        read: Gives its pixels, RGB.
    """

    name: str
    read: Callable[[], UInt8[np.ndarray, "height width 3"]]


def photo_sources(data: Path, split: str) -> list[PhotoSource]:
    """The pictures of a folder, by name; or one; or the first frames of the videos of a manifest.

    Raises:
        InputError: There is none.
    """
    if data.suffix == ".json":
        files = [data.parent / entry["file"] for entry in manifest_videos(data, split)]
        return [PhotoSource(file.name, partial(first_frame, file)) for file in files]
    if data.is_dir():
        files = sorted(path for path in data.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES)
        if not files:
            raise InputError(str(data), "there are no pictures in this folder", "Give a folder of photos.")
    elif data.is_file():
        files = [data]
    else:
        raise InputError(str(data), "there is no such file or folder", "Give photos, or a manifest.json.")
    return [PhotoSource(file.name, partial(_pixels, file)) for file in files]


def _pixels(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    return read_picture(path).pixels


def check_photo(pipeline: SDTalkPipeline, source: PhotoSource, folder: Path, number: int) -> PhotoResult:
    """Measure a photo and draw its sheet.

    Raises:
        InputError: It cannot be read, or shows no face.
    """
    scores = measure_photo(pipeline, pipeline.tracker.portrait(source.read(), source.name))
    sheet = f"sheets/photo_{number:04d}_{re.sub(r'[^A-Za-z0-9_.-]', '_', Path(source.name).stem)}.jpg"
    pictures = np.stack(scores.pictures)
    write_contact_sheet(folder / sheet, [pictures], len(pictures), SHEET_PX)
    return PhotoResult(source.name, scores.metrics, scores.missing, sheet)


def run(arguments: argparse.Namespace, command: str) -> PhotoResults:
    """Check every photo.

    Raises:
        InputError: Nothing could be measured, or written.
    """
    sources = photo_sources(arguments.data, arguments.split)[: arguments.photos]
    pipeline = SDTalkPipeline.from_pretrained(arguments.model, arguments.device)
    done, failed = [], []
    for number, source in enumerate(tqdm(sources, desc="photos")):
        try:
            done.append(check_photo(pipeline, source, arguments.output, number))
        except InputError as error:
            failed.append((source.name, str(error)))
            print(f"warning: {source.name}: {error}", file=sys.stderr, flush=True)
    if not done:
        raise InputError(
            str(arguments.data), "no photo could be measured", f"The first reason: {failed[0][1]}"
        )
    results = PhotoResults(command, arguments.model, str(arguments.data), done, failed)
    write_photo_results(arguments.output, results)
    return results


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of photos, a photo, or manifest.json")
    parser.add_argument("--model", default="mini", help="mini, a folder, or USER/NAME on the Hub")
    parser.add_argument("--split", default="dev", help="of a manifest: train, dev (default) or test")
    parser.add_argument("--photos", type=int, help="only so many photos")
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/photo_checks"))
    arguments = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    try:
        if arguments.photos is not None and arguments.photos < 1:
            raise InputError(f"--photos {arguments.photos}", "it is less than 1", "Give more.")
        results = run(arguments, shlex.join(["python", "-m", "training.evaluation.photo_checks", *given]))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(as_markdown(results))
    print(f"{arguments.output}/index.html shows it.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
