"""Video: frames in from any file ffmpeg reads, frames out as video, GIF or pictures, with sound."""

from sdtalk.video.formats import check_output, open_writer
from sdtalk.video.reader import VideoInfo, has_video, probe, read_frames
from sdtalk.video.writer import COMMENT, DUBBED, VideoWriter

__all__ = [
    "COMMENT", "DUBBED", "VideoInfo", "VideoWriter", "check_output", "has_video", "open_writer", "probe", "read_frames",
]  # fmt: skip
