"""Streamed video: Gradio's video player, fed with pieces that need no more work.

Gradio's own would call ffprobe and ffmpeg four times a piece, which have to be installed then, and encode the sound
again. Ours are MPEG-TS, one going on where the other ended (`sdtalk.video.pieces`), and are passed on as they are.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileDataDict, MediaStreamChunk

from sdtalk.video.pieces import PIECE_SECONDS


def streamed_video(**options: Any) -> gr.Video:
    """A `gr.Video(streaming=True)`: a generator yields the paths of pieces to it, one at a time.

    Not a class of its own: Gradio writes a file beside the source of every class made of its components.

    Args:
        options: As for `gr.Video`.
    """
    player = gr.Video(streaming=True, **options)
    player.stream_output = _next_piece  # type: ignore
    player.flush_stream_output = _nothing_held_back  # type: ignore
    player.end_stream_output = lambda output_id: None  # type: ignore
    return player


async def _next_piece(
    value: str | None, output_id: str, first_chunk: bool
) -> tuple[MediaStreamChunk | None, FileDataDict]:
    """A piece with its length in seconds (value: its path; None: there is none yet), and what a browser learns."""
    stream: FileDataDict = {
        "path": output_id,
        "is_stream": True,
        "orig_name": "video-stream.mp4",
        "meta": {"_type": "gradio.FileData"},
    }
    if value is None:
        return None, stream
    data = Path(value).read_bytes()
    return {"data": data, "duration": float(PIECE_SECONDS), "extension": ".ts"}, stream


async def _nothing_held_back(output_id: str) -> None:
    """What is left at the end."""
