"""NVENC: the H.264 encoder of NVIDIA's GPUs, where it works. Not every GPU has one: an H100 or H200 does not."""

import subprocess
from functools import cache

import imageio_ffmpeg

NVENC = (
    "-colorspace bt709 -color_primaries bt709 -color_trc bt709 -c:v h264_nvenc -preset p4 -tune hq -profile:v high"
    " -rc vbr -cq 19 -b:v 0 -spatial-aq 1"
)
"""Options for ffmpeg: of constant quality, meant to be that of x264 at 17."""

TRIED_FRAMES = 5
LONGEST_SECONDS = 20


@cache
def nvenc_works(width: int, height: int) -> bool:
    """Whether the ffmpeg that is used here can encode with NVENC; tried once a size, since being listed means little.

    Args:
        width: Of the frames in px, even; there are smallest ones.
        height: The same.
    """
    source = f"testsrc2=size={width}x{height}:rate=25,format=yuv420p"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *"-nostdin -loglevel error -f lavfi -i".split(), source]
    command += ["-frames:v", str(TRIED_FRAMES), *NVENC.split(), "-f", "null", "-"]
    try:
        quiet = subprocess.DEVNULL
        tried = subprocess.run(
            command, stdin=quiet, stdout=quiet, stderr=quiet, timeout=LONGEST_SECONDS, start_new_session=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0
