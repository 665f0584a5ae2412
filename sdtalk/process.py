"""Process settings that make starting, and rendering on a CPU, faster, and memory handed back."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # malloc.h of glibc
KEPT_BYTES, STEP_BYTES, LARGEST_BYTES = 1 << 30, 64 << 20, 1 << 30


def tune_process(one_arena: bool = False) -> None:
    """Let idle threads sleep, and keep freed memory; for programs, not for importers, before PyTorch is imported.

    OpenMP's idle threads spin by default, and take the cores from the rasteriser and from ffmpeg: a video needs
    more than twice the processor time. glibc gives every large tensor back to the system, which clears its pages
    anew for the next frame: a quarter of what then remains. Variables that the user has set are respected.

    Args:
        one_arena: Let all threads take memory from one place. Otherwise what one thread freed, no other can have: a
            video needs 70 MB more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do not have it
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_TOP_PAD, STEP_BYTES)
        if one_arena:
            mallopt(M_ARENA_MAX, 1)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection within: importing PyTorch makes half a million objects, of which none can go.

    Going over them again and again takes a tenth of a second.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def hand_back_memory() -> None:
    """Give the system what is not used any more, where `tune_process` has it kept; after work that comes in jobs."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
