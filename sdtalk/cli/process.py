"""Process settings that make rendering on a CPU faster; for programs, not for importers."""

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc
KEPT_BYTES, STEP_BYTES, LARGEST_BYTES = 1 << 30, 64 << 20, 1 << 30


def tune_process() -> None:
    """Let idle threads sleep, and keep freed memory; call it before PyTorch is imported.

    OpenMP's idle threads spin by default, and take the cores from the rasteriser and from ffmpeg: a video needs
    more than twice the processor time. glibc gives every large tensor back to the system, which clears its pages
    anew for the next frame: a quarter of what then remains. Variables that the user has set are respected.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do not have it
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_TOP_PAD, STEP_BYTES)
