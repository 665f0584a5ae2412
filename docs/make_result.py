"""Make the README's pictures: the example portrait with moments of its videos, a head's and a full frame's.

python docs/make_result.py [--model mini] [-o docs]
"""

import argparse
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from sdtalk import SDTalkPipeline
from sdtalk.video.label import AI_GENERATED

EXAMPLES = Path(__file__).parent.parent / "examples"
SIDE = 240
MOMENTS = (1, 6, 31, 34, 40, 62, 88, 138)
"""Frames of the example that are shown, of 178."""

FULL = (6, 40)
"""The same of the full frame."""


def contact_sheet(portrait: Path, frames: list[np.ndarray]) -> Image.Image:
    """The portrait, twice as high as the frames beside it."""
    small = [np.asarray(Image.fromarray(f).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for f in frames]
    rows = [np.concatenate(small[start : start + 4], axis=1) for start in (0, 4)]
    sheet = Image.new("RGB", (2 * SIDE + 4 * SIDE, 2 * SIDE))
    with Image.open(portrait) as picture:
        sheet.paste(picture.convert("RGB").resize((2 * SIDE, 2 * SIDE), Image.Resampling.LANCZOS), (0, 0))
    sheet.paste(Image.fromarray(np.concatenate(rows)), (2 * SIDE, 0))
    return sheet


def main() -> None:
    """Render the example and save the sheets."""
    parser = argparse.ArgumentParser(description="Make the README's pictures.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="folder")
    arguments = parser.parse_args()
    portrait, speech = EXAMPLES / "eileen_collins.png", EXAMPLES / "sense_and_sensibility.wav"
    pipeline = SDTalkPipeline.from_pretrained(arguments.model)
    head = pipeline.reconstruct(portrait)
    talk = pipeline.talk(head, speech, label=AI_GENERATED)
    shown = [frame for number, frame in enumerate(talk.frames()) if number in MOMENTS]
    contact_sheet(portrait, shown).save(arguments.output / "result.jpg", quality=88)
    whole = pipeline.talk(head, speech, label=AI_GENERATED, frame="full")
    moments = [frame for number, frame in enumerate(islice(whole.frames(), max(FULL) + 1)) if number in FULL]
    with Image.open(portrait) as picture:
        row = np.concatenate([np.asarray(picture.convert("RGB")), *moments], axis=1)
    Image.fromarray(row).save(arguments.output / "full_frame.jpg", quality=85)


if __name__ == "__main__":
    main()
