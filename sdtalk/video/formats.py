"""Output formats: chooses the writer by the suffix of the name, and checks the output before the work starts."""

import tempfile
from pathlib import Path

from sdtalk.errors import InputError
from sdtalk.speech.audio import FRAME_RATE_HZ
from sdtalk.speech.waveform import Waveform
from sdtalk.video.ffmpeg import FfmpegWriter
from sdtalk.video.image_sequence import GifWriter, PngFolderWriter, holds_frames
from sdtalk.video.writer import VideoWriter

FORMATS: dict[str, type[VideoWriter]] = {
    ".mp4": FfmpegWriter,  # H.264, AAC
    ".webm": FfmpegWriter,  # VP9, Opus
    ".mov": FfmpegWriter,  # ProRes 4444, PCM
    ".gif": GifWriter,
    "": PngFolderWriter,
}
WITHOUT_ALPHA = (".mp4",)


def open_writer(
    path: str | Path,
    size: tuple[int, int],
    fps: int | float = FRAME_RATE_HZ,
    sound: str | Path | Waveform | None = None,
    frames: int | None = None,
    alpha: bool = False,
    on_gpu: bool = False,
    pieces: Path | None = None,
    claim: str = "",
) -> VideoWriter:
    """Writer for an .mp4, .webm, .mov or .gif, or for a folder of PNG (a name without suffix).

    Args:
        path: What to write; an existing file, or folder of such PNG, is replaced at the end. Missing folders are made.
        size: Width and height in px; where odd, an mp4's last column or row repeats its neighbour.
        fps: Frames per second.
        sound: A file that has sound, or samples. A GIF has none; a folder gets speech.wav.
        frames: How many frames will come: the sound is cut, or filled up with silence, to their end. By
            default it stays whole, which is right when `audio.frame_count` frames come.
        alpha: Whether frames are RGBA.
        on_gpu: Whether a GPU should encode an .mp4, where that works.
        pieces: Folder that gets an .mp4 in pieces while it is made, too, see `sdtalk.video.pieces`; None: none.
        claim: What a signed claim says of the file, where it can have one: `provenance.claim.GENERATED`, or `COMPOSITE`
            where a part of a photo is as it was; "": no claim.

    Returns:
        A context manager with `write(frame)`.

    Raises:
        InputError: As `check_output`, or the output is the sound; from the writer: ffmpeg or the disk fails.
    """
    check_output(path, alpha)
    if isinstance(sound, str | Path) and Path(sound).absolute() == Path(path).absolute():
        raise InputError(str(path), "it is also an input", "Choose another name for the output.")
    writer = FORMATS[Path(path).suffix.lower()](path, size, fps, sound, frames, alpha)
    writer.claim = claim
    if isinstance(writer, FfmpegWriter):
        writer.on_gpu, writer.pieces = on_gpu, pieces
    return writer


def check_output(path: str | Path, alpha: bool = False) -> None:
    """Make sure that a video can be written to a path, before the work starts.

    Args:
        path: A file, or a folder of PNG.
        alpha: Whether its frames are to be transparent.

    Raises:
        InputError: No format has this suffix or it cannot be transparent, the name is taken or too long, or the folder
            takes no files.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        problem = "its name ends in none of " + ", ".join(suffix for suffix in FORMATS if suffix)
        remedy = "Call it, say, talk.mp4; a name without a dot becomes a folder of PNG."
        raise InputError(str(path), problem, remedy)
    if alpha and suffix in WITHOUT_ALPHA:
        problem = f"an {suffix} cannot be transparent"
        raise InputError(
            str(path), problem, "Use .webm, .mov, .gif or a folder of PNG (a name without a dot)."
        )
    try:
        if path.is_dir():
            _check_folder(path)
        elif suffix == "" and path.exists():
            raise NotADirectoryError(0, "it is a file, and a name without a dot means a folder")
        nearest = next(folder for folder in path.absolute().parents if folder.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        remedy = "Choose another folder or name for the output."
        raise InputError(str(path), f"it cannot be written ({error.strerror})", remedy) from error


def _check_folder(path: Path) -> None:
    """Refuse a folder in a file's place, or with files of others in it."""
    if path.suffix.lower() in FORMATS and path.suffix:
        raise IsADirectoryError(0, "it is a folder")
    if path.name in ("", "..") or (any(path.iterdir()) and not holds_frames(path)):
        raise FileExistsError(0, "it is a folder that holds other things than frames made here")
