"""Face choice: what the page says of a photo and a recording as soon as they are there, and whose face it takes."""

import html
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np
from gradio.processing_utils import save_pil_to_cache
from gradio.utils import get_upload_folder
from jaxtyping import UInt8
from PIL import Image

from sdtalk.demo.inputs import error_message
from sdtalk.demo.worker import Worker
from sdtalk.errors import InputError
from sdtalk.image import Crop, crop_picture, read_picture, turned_picture
from sdtalk.pipeline import SILENT
from sdtalk.process import hand_back_memory
from sdtalk.speech.audio import read_speech, speech_level
from sdtalk.tracking.found_faces import MOST_FACES, FoundFace, found_faces, largest_face

THUMBNAIL_PX, ROOM = 128, 1.3
"""Side of a face's small picture, and over the face's longer side."""

AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's own small events run."""


@dataclass(frozen=True)
class Looked:
    """What was seen in a photo.

    Attributes:
        thumbnails: A small picture of each face, from left to right.
        chosen: Number of the face that is taken if nobody chooses: the largest; 0: there is none.
        said: What the visitor should know, sentence by sentence.
        turned_deg: By how many degrees the photo has to be turned clockwise; 0: it is upright.
    """

    thumbnails: list[UInt8[np.ndarray, "side side 3"]] = field(default_factory=list)
    chosen: int = 0
    said: list[str] = field(default_factory=list)
    turned_deg: int = 0


class Looker:
    """Looks at photos and listens to recordings while videos are made: has a thread of its own."""

    def __init__(self) -> None:
        self._worker = Worker()

    def look(self, portrait: str | None) -> Looked:
        """What there is to know of a photo, or why it cannot be used."""
        return self._worker.run(_look, portrait) if portrait else Looked()

    def listen(self, speech: str | None) -> str:
        """What there is to know of a recording, or ""."""
        return self._worker.run(_listen, speech) if speech else ""

    def turned(self, portrait: str, degrees: int) -> str:
        """Turn a photo clockwise; returns the path of another file, which is deleted as uploads are."""
        pixels = turned_picture(read_picture(portrait), degrees).pixels
        image = Image.fromarray(pixels)
        kind = "jpeg" if max(image.size) > 1024 else "png"  # a PNG of twelve megapixels takes seconds
        return save_pil_to_cache(image, get_upload_folder(), "turned", kind)


def looked(pixels: UInt8[np.ndarray, "height width 3"], faces: list[FoundFace]) -> Looked:
    """Put into words and small pictures what was found.

    Args:
        pixels: The photo.
        faces: All of its faces.
    """
    if not faces:
        return Looked(
            said=[
                "No face was found. Use a photo in which one face is large, upright and seen from the front."
            ]
        )
    chosen, said = largest_face(faces), []
    if len(faces) > 1:
        said.append(
            f"{len(faces)} faces were found; choose who speaks. The largest, number {chosen}, is chosen."
        )
    for number, face in enumerate(faces, 1):
        who = f"Face {number}: " if len(faces) > 1 else ""
        said += [who + note for note in face.notes]
    thumbnails = [_thumbnail(pixels, face) for face in faces]
    return Looked(thumbnails, chosen, said, faces[chosen - 1].turned_deg)


def _thumbnail(
    pixels: UInt8[np.ndarray, "height width 3"], face: FoundFace
) -> UInt8[np.ndarray, "side side 3"]:
    left, top, right, bottom = face.box
    side = ROOM * face.side
    crop = Crop((left + right - side) / 2, (top + bottom - side) / 2, side)
    upright = np.rot90(crop_picture(pixels, crop, THUMBNAIL_PX), -face.turned_deg // 90)
    return np.ascontiguousarray(upright)


def _look(portrait: str) -> Looked:
    try:
        pixels = read_picture(portrait).pixels
        return looked(pixels, found_faces(pixels))
    except InputError as error:
        return Looked(said=[error_message(error, portrait)])
    finally:
        hand_back_memory()


def _listen(speech: str) -> str:
    try:
        spoken = bool(speech_level(read_speech(speech).samples).any())
        return "" if spoken else SILENT
    except InputError as error:
        return error_message(error, speech)
    finally:
        hand_back_memory()


def as_status(said: list[str]) -> dict:
    """Sentences as an update of a `gr.HTML` that is read out, too; it is hidden where there are none."""
    lines = "".join(f"<p>{html.escape(line)}</p>" for line in said)
    return gr.update(value=f'<div role="status">{lines}</div>', visible=bool(said))


def lay_out_face(portrait: gr.Image, looker: Looker) -> tuple[gr.Radio, gr.State]:
    """Lay out what is said of a photo, the choice among its faces and the button that turns it.

    Args:
        portrait: Where the photo is given; its value is a path.
        looker: Looks at it.

    Returns:
        The number of the chosen face; 0 stands for the largest. And a photo with the number of the face that is
        chosen in it when it comes back, where it was chosen before.
    """
    said = gr.HTML(visible=False, elem_id="face-notes")
    turn = gr.Button("Turn it", visible=False, size="sm", elem_id="turn-photo")
    crops = gr.Gallery(
        label="Faces, from left to right",
        visible=False,
        interactive=False,
        allow_preview=False,
        columns=4,
        height="auto",
        buttons=[],
        elem_id="faces",
    )
    # all numbers are choices from the start, for programs, which never saw the photo looked at
    numbers = [("largest", 0), *((str(n), n) for n in range(1, MOST_FACES + 1))]
    face = gr.Radio(numbers, value=0, label="Face", visible=False, elem_id="face")
    degrees, wanted = gr.State(0), gr.State((None, 0))

    def look(path: str | None, wanted: tuple[str | None, int]) -> tuple[Any, ...]:
        seen = looker.look(path)
        count = len(seen.thumbnails)
        several = count > 1
        chosen = wanted[1] if wanted[0] == path and 1 <= wanted[1] <= count else seen.chosen
        choices = [(str(n), n) for n in range(1, count + 1)] if several else numbers
        small = [(picture, str(n)) for n, picture in enumerate(seen.thumbnails, 1)] if several else None
        return (
            as_status(seen.said),
            gr.update(visible=bool(seen.turned_deg)),
            gr.update(value=small, visible=several),
            gr.update(choices=choices, value=chosen if several else 0, visible=several),
            seen.turned_deg,
        )

    def clicked(event: gr.SelectData) -> int:
        return int(event.index) + 1

    portrait.change(
        look, [portrait, wanted], [said, turn, crops, face, degrees], trigger_mode="always_last", **AT_ONCE
    )
    turn.click(looker.turned, [portrait, degrees], portrait, **AT_ONCE)
    crops.select(clicked, None, face, **AT_ONCE)
    return face, wanted


def lay_out_sound(speech: gr.Audio, looker: Looker) -> None:
    """Lay out what is said of a recording: that nobody speaks in it, or why it cannot be used.

    Args:
        speech: Where the recording is given; its value is a path.
        looker: Listens to it.
    """
    said = gr.HTML(visible=False, elem_id="speech-notes")

    def listen(path: str | None) -> dict:
        note = looker.listen(path)
        return as_status([note] if note else [])

    speech.change(listen, speech, said, trigger_mode="always_last", **AT_ONCE)
