"""Make the finished results of the page's gallery, and the README's row of them, from the examples alone.

python docs/make_gallery.py [--model mini]
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from sdtalk import SDTalkPipeline
from sdtalk.demo.gallery import FINISHED
from sdtalk.video import read_frames
from sdtalk.video.label import AI_GENERATED

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

SIDE_PX, QUALITY = 400, 27
"""Side of the videos, and their H.264 rate factor: some 20 kB a second, at which mouths stay sharp."""

MOMENT = 60
"""The frame that the README shows."""


def shrink(source: Path, target: Path) -> None:
    """Encode a video again, smaller; what it says about itself stays."""
    encode = ["-c:v", "libx264", "-crf", str(QUALITY), "-preset", "veryslow", "-pix_fmt", "yuv420p"]
    sound = ["-c:a", "aac", "-b:a", "40k", "-ac", "1", "-map_metadata", "0", "-movflags", "+faststart"]
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    command = [ffmpeg, "-v", "error", "-y", "-i", str(source), *encode, *sound, str(target)]
    subprocess.run(command, check=True)


def main() -> None:
    """Render, shrink and save; the row goes beside this file."""
    parser = argparse.ArgumentParser(description="Make the gallery's results.")
    parser.add_argument("--model", default="mini")
    pipeline = SDTalkPipeline.from_pretrained(parser.parse_args().model)
    row = []
    with tempfile.TemporaryDirectory() as folder:
        for number, result in enumerate(FINISHED):
            large = Path(folder) / result.video
            paths = (str(EXAMPLES / name) for name in (result.portrait, result.speech))
            # another seed each: six faces that blink at once are uncanny
            pipeline(*paths, label=AI_GENERATED, size=SIDE_PX, seed=number).save(large)
            small = EXAMPLES / result.video
            shrink(large, small)
            row.append(list(read_frames(small))[MOMENT])
            print(f"{small.name}: {small.stat().st_size / 1e3:.0f} kB")
    sheet = Image.fromarray(np.concatenate(row, axis=1))
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(
        ROOT / "docs" / "gallery.jpg", quality=88
    )


if __name__ == "__main__":
    main()
