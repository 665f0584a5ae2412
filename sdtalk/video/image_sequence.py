"""Image sequences: an animated GIF, or a folder of PNG pictures."""

import re
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdtalk.video.ffmpeg import Encoding, FfmpegWriter, provenance, run_ffmpeg, sound_filter, sound_input
from sdtalk.video.writer import COMMENT, DUBBED, VideoWriter

SOUND = "speech.wav"
OURS = re.compile(rf"\d{{6,}}\.png|{re.escape(SOUND)}")
"""What folders of pictures hold."""
PNG_COMPRESSION = 3
"""zlib's level: a third of the time of its usual 6, files an eighth larger (measured on frames)."""
GIF_FPS = 12.5
"""Nearest to this: half of the frames of 25 a second, which are large enough, and delays of exactly 0.08 s."""

_PALETTE = "palettegen=reserve_transparent={transparent}:stats_mode=full"
_PAINT = "paletteuse=dither=bayer:bayer_scale=3:diff_mode=rectangle:alpha_threshold=128"
"""An ordered pattern stands still where the picture does; diffused errors would swarm."""


class GifWriter(FfmpegWriter):
    """Writes an animated GIF of every second frame, without sound; a pixel is transparent or not.

    One palette for all frames, or flat parts would flicker: it is known once all have come, so they wait on the disk,
    losslessly packed. imageio (by Pillow) would give every frame its own, and hold all of them in memory until then.
    """

    encodings = {
        ".gif": Encoding(
            "-c:v ffv1", "format=bgr0", ("-c:v ffv1", "format=bgra"), sound="", container="-f nut"
        )
    }

    @property
    def _step(self) -> int:
        return max(1, round(self.fps / GIF_FPS))

    def _append(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        if self.written % self._step == 0:
            super()._append(frame)

    def _append_all(self, frames: UInt8[np.ndarray, "frame height width channel"]) -> None:
        VideoWriter._append_all(self, frames)  # one by one, since not all are taken

    def _finish(self) -> None:
        packed, palette, bare = self._temporary, self._beside(".png"), self._beside(".bare.gif")
        super()._finish()
        source = ["-r", str(self.fps / self._step), "-i", f"file:{packed}"]
        find = ["-vf", _PALETTE.format(transparent=int(self.alpha)), "-update", "1", f"file:{palette}"]
        run_ffmpeg([*source, *find], self.path)
        paint = ["-i", f"file:{palette}", "-lavfi", _PAINT, "-loop", "0", "-final_delay", self._last_delay()]
        run_ffmpeg([*source, *paint, "-f", "gif", f"file:{bare}"], self.path)
        _copy_with_comment(bare, packed, self.comment)

    def _last_delay(self) -> str:
        """How long the last frame stands, so that the whole is as long as it should be, in hundredths of a second."""
        last = (self.written - 1) // self._step * self._step
        return str(round(100 * self.written / self.fps) - round(100 * last / self.fps))


def _copy_with_comment(source: Path, target: Path, comment: str) -> None:
    """Copy a GIF and put the comment, which ffmpeg cannot write, before its first frame."""
    with source.open("rb") as gif, target.open("wb") as out:
        screen = gif.read(13)
        colours = 2 << (screen[10] & 7) if screen[10] & 0x80 else 0
        out.write(screen + gif.read(3 * colours))
        loop = gif.read(19)
        assert loop[3:14] == b"NETSCAPE2.0", "ffmpeg lets GIFs start over"
        out.write(loop + b"\x21\xfe" + bytes([len(comment)]) + comment.encode("ascii") + b"\0")
        shutil.copyfileobj(gif, out)


class PngFolderWriter(VideoWriter):
    """Writes 000000.png, 000001.png, ... into a folder, and the sound beside them as speech.wav."""

    def _start(self) -> None:
        self._temporary.mkdir()
        self._about = PngInfo()
        self._about.add_text("Comment", self.comment)
        if self.sound is not None:
            filters = ["-map", "0:a:0", "-af", sound_filter(self.frames, self.fps), *provenance(self.comment)]
            output = ["-c:a", "pcm_s16le", "-f", "wav", f"file:{self._temporary / SOUND}"]
            run_ffmpeg([*sound_input(self.sound, self._beside(".f32")), *filters, *output], self.path)

    def _append(self, frame: UInt8[np.ndarray, "height width channel"]) -> None:
        path = self._temporary / f"{self.written:06}.png"
        import imageio.v3 as iio  # takes a tenth of a second to import

        iio.imwrite(path, frame, plugin="pillow", pnginfo=self._about, compress_level=PNG_COMPRESSION)

    def _finish(self) -> None:
        pass

    def _move(self) -> None:
        former = self._beside(".former")
        if replaced := self.path.exists():
            self.path.rename(former)
        try:
            self._temporary.rename(self.path)
        except BaseException:
            if replaced:
                former.rename(self.path)
            raise


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds frames that were written here, and nothing else: its first picture says so."""
    if not all(OURS.fullmatch(entry.name) for entry in folder.iterdir()):
        return False
    try:
        with Image.open(folder / "000000.png") as first:
            return first.info.get("Comment") in (COMMENT, DUBBED)
    except OSError:
        return False
