"""Make docs/result.jpg, the README's picture: the example portrait and eight moments of the example video.

python docs/make_result.py [--model mini] [-o docs/result.jpg]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from sdtalk import SDTalkPipeline
from sdtalk.video.label import AI_GENERATED

EXAMPLES = Path(__file__).parent.parent / "examples"
SIDE = 240
MOMENTS = (1, 6, 31, 34, 40, 62, 88, 138)
"""Frames of the example that are shown, of 178."""


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
    """Render the example and save the sheet."""
    parser = argparse.ArgumentParser(description="Make the README's picture.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("result.jpg"))
    arguments = parser.parse_args()
    portrait, speech = EXAMPLES / "eileen_collins.png", EXAMPLES / "sense_and_sensibility.wav"
    talk = SDTalkPipeline.from_pretrained(arguments.model)(portrait, speech, label=AI_GENERATED)
    shown = [frame for number, frame in enumerate(talk.frames()) if number in MOMENTS]
    contact_sheet(portrait, shown).save(arguments.output, quality=88)


if __name__ == "__main__":
    main()
