"""Viewer page: a packed head and what shows it, as one HTML page that asks for nothing else.

viewer/viewer.html   the page's frame: canvas, buttons, style
viewer/words.js      what it says, in six languages
viewer/head.js       a packed head: unpacking, motion, the ellipses a camera sees, by depth
viewer/draw.js       WebGL2: one instanced quad an ellipse
viewer/paint.js      the same without a graphics processor
viewer/controls.js   mouse, touch, keys, buttons, the sound
"""

import html
from functools import cache
from pathlib import Path

from sdtalk.export.moving import moving_splats
from sdtalk.export.packed import as_json
from sdtalk.export.splats import splats_of
from sdtalk.head import Head
from sdtalk.talk import Talk

PARTS = Path(__file__).parent / "viewer"
SCRIPTS = ("words.js", "head.js", "draw.js", "paint.js", "controls.js")

FRAME_STYLE = "width: 100%; height: {height}px; border: 0; display: block; background: transparent"


def viewer_page(shown: Head | Talk) -> str:
    """A page that shows a head from the sides; one that talks can be played, with its sound.

    Args:
        shown: From `SDTalkPipeline.reconstruct`, or `SDTalkPipeline.talk`.
    """
    return page_of(packed_head(shown)).decode("utf-8")


def viewer_frame(shown: Head | Talk, height: int = 520, title: str = "The head in three dimensions") -> str:
    """The same for a part of another page, as in `gr.HTML(viewer_frame(head))`.

    The frame keeps its scripts and style apart from the page around it; a dark page (Gradio's) makes it dark.

    Args:
        shown: As for `viewer_page`.
        height: In px of the page; it is as wide as it can be.
        title: Its name for screen readers.
    """
    page = html.escape(viewer_page(shown), quote=True)
    return f'<iframe title="{html.escape(title)}" style="{FRAME_STYLE.format(height=height)}" srcdoc="{page}"></iframe>'


def packed_head(shown: Head | Talk) -> bytes:
    """A head, or a talk with its motion and sound, as `packed.as_json` has it."""
    if isinstance(shown, Talk):
        moving = moving_splats(shown.model, shown.head.gaussians, shown.signals)
        return as_json(moving, shown.speech.samples)
    return as_json(splats_of(shown.gaussians))


def page_of(packed: bytes) -> bytes:
    """The page with a packed head in it."""
    frame, scripts = _parts()
    # "<" would end the element; in JSON it is the same as \u003c
    head = packed.replace(b"<", b"\\u003c")
    return frame.replace(b"__HEAD__", head, 1).replace(b"__SCRIPTS__", scripts, 1)


@cache
def _parts() -> tuple[bytes, bytes]:
    scripts = b"\n".join((PARTS / name).read_bytes() for name in SCRIPTS)
    return (PARTS / "viewer.html").read_bytes(), scripts
