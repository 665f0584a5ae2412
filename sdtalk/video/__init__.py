"""Video: frames in from any file ffmpeg reads, frames out with sound."""

from sdtalk.video.reader import VideoInfo, has_video, probe, read_frames
from sdtalk.video.writer import COMMENT, VideoWriter, check_output

__all__ = ["COMMENT", "VideoInfo", "VideoWriter", "check_output", "has_video", "probe", "read_frames"]
