"""Check what is said about faces: a table of the kinds of pictures against what their users are told.

    python -m training.evaluation.face_checks PHOTOS            # a folder with a folder for each kind, or with pictures
    python -m training.evaluation.face_checks SAMPLES/manifest.json
    python -m training.evaluation.face_checks PHOTOS --turned   # each picture on its sides and upside down, too

In a manifest.json the kind of a picture is its `hard_case`, or the folder it is in. Prints the table as Markdown, and
with --list what is said of every picture.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sdtalk.cli.arguments import USER_ERROR
from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.tracking.found_faces import FoundFace, found_faces, largest_face
from sdtalk.tracking.networks import FaceNetworks
from sdtalk.tracking.portrait_notes import COVERED_EYES, COVERED_MOUTH, NOT_HUMAN
from training.evaluation.photo_checks import PHOTO_SUFFIXES

SAID = {NOT_HUMAN: "not human", COVERED_MOUTH: "mouth covered", COVERED_EYES: "eyes covered"}
ANSWERS = ("nothing", "other notes", *SAID.values(), "on its side", "upside down", "no face")
QUARTERS = {0: "", 1: ", turned left", 2: ", upside down", 3: ", turned right"}


def pictures_of(data: Path) -> list[tuple[str, Path]]:
    """Kind and path of every picture of a folder or manifest.

    Raises:
        InputError: There is none.
    """
    if data.suffix == ".json":
        entries = json.loads(data.read_text(encoding="utf-8"))
        found = [
            (e.get("hard_case") or Path(e["file"]).parent.name, data.parent / e["file"]) for e in entries
        ]
    else:
        found = [(path.parent.name, path) for path in sorted(data.rglob("*"))]
    found = [(kind, path) for kind, path in found if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file()]
    if not found:
        raise InputError(
            str(data), "there are no pictures here", "Give a folder of photos, or a manifest.json."
        )
    return found


def answer(faces: list[FoundFace]) -> str:
    """What is said about the largest face, in a word or two."""
    if not faces:
        return "no face"
    face = faces[largest_face(faces) - 1]
    if face.turned_deg:
        return "upside down" if face.turned_deg == 180 else "on its side"
    for note in face.notes:
        if note in SAID:
            return SAID[note]
    return "other notes" if face.notes else "nothing"


def checked(
    pictures: list[tuple[str, Path]], quarters: list[int], networks: FaceNetworks
) -> Iterator[tuple[str, Path, list[FoundFace], float]]:
    """Kind, path, faces, and seconds of every picture and way round."""
    for kind, path in tqdm(pictures, desc="pictures"):
        pixels = read_picture(path).pixels
        for quarter in quarters:
            turned = np.ascontiguousarray(np.rot90(pixels, quarter))
            start = time.perf_counter()
            faces = found_faces(turned, networks)
            yield kind + QUARTERS[quarter], path, faces, time.perf_counter() - start


def as_table(counts: dict[str, Counter[str]]) -> str:
    """Markdown: a row a kind, a column an answer."""
    lines = ["| | " + " | ".join(ANSWERS) + " |", "|---" * (len(ANSWERS) + 1) + "|"]
    for kind, said in counts.items():
        lines.append(f"| {kind} | " + " | ".join(str(said[a] or "") for a in ANSWERS) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Command line; 2 where an input cannot be used."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of photos, or manifest.json")
    parser.add_argument("--turned", action="store_true", help="each picture in all four ways round")
    parser.add_argument("--list", action="store_true", help="print every picture, too")
    arguments = parser.parse_args(argv)
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    seconds = []
    try:
        pictures = pictures_of(arguments.data)
        quarters = list(QUARTERS) if arguments.turned else [0]
        for kind, path, faces, took in checked(pictures, quarters, FaceNetworks.from_bundled()):
            counts[kind][answer(faces)] += 1
            seconds.append(took)
            if arguments.list:
                notes = [" ".join((f"{i}.", *face.notes)) for i, face in enumerate(faces, 1)]
                print(f"{kind}: {path.name}: {'; '.join(notes) or 'no face'}", flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    print(as_table(counts))
    print(f"\n{np.median(seconds):.2f} s a picture in the middle, {max(seconds):.2f} s at most.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
