"""Tests of what the page says of photos and recordings as soon as they are there, and of the choice of a face."""

import wave
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from chromium import browser, chromium
from gradio.data_classes import ImageData
from PIL import Image

from sdtalk.demo.controls import PictureFile
from sdtalk.demo.face_choice import Looker, lay_out_face, lay_out_sound
from sdtalk.image import read_picture
from sdtalk.pipeline import SILENT
from sdtalk.weights.assets import example

PORTRAIT, SPEECH = example("eileen_collins.png"), example("sense_and_sensibility.wav")
CLEAR = "document.querySelector('#portrait [aria-label*=Clear], #portrait [aria-label*=Remove]').click()"


@pytest.fixture(scope="module")
def looker() -> Looker:
    return Looker()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Three faces side by side, the middle one largest; one upside down; no picture; silence."""
    folder = tmp_path_factory.mktemp("given")
    face = Image.open(PORTRAIT).convert("RGB").crop((80, 0, 400, 320))
    three = Image.new("RGB", (930, 320), "grey")
    for left, side in ((0, 280), (290, 320), (620, 300)):
        three.paste(face.resize((side, side)), (left, 0))
    three.save(folder / "three.png")
    face.rotate(180).save(folder / "down.png")
    (folder / "broken.png").write_text("<b>no picture</b>")
    with wave.open(str(folder / "silent.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(32000))
    return folder


def test_faces_are_shown_and_the_largest_is_chosen(looker: Looker, files: Path) -> None:
    seen = looker.look(str(files / "three.png"))
    assert (len(seen.thumbnails), seen.chosen, seen.turned_deg) == (3, 2, 0)
    assert seen.said[0] == "3 faces were found; choose who speaks. The largest, number 2, is chosen."
    assert all(line.startswith(("Face 1: ", "Face 2: ", "Face 3: ")) for line in seen.said[1:])
    alone = looker.look(str(PORTRAIT))
    assert (len(alone.thumbnails), alone.said) == (1, [])
    assert looker.look(None).said == []


def test_a_photo_upside_down_is_told_and_turned(
    looker: Looker, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    down = str(files / "down.png")
    seen = looker.look(down)
    assert seen.turned_deg == 180 and "upside down" in seen.said[0]
    righted = looker.turned(down, 180)
    assert tmp_path in Path(righted).parents, "it is deleted with the uploads"
    np.testing.assert_array_equal(read_picture(righted).pixels[::-1, ::-1], read_picture(down).pixels)
    assert looker.look(righted).turned_deg == 0


def test_what_cannot_be_used_is_told(looker: Looker, files: Path) -> None:
    (line,) = looker.look(str(files / "broken.png")).said
    assert line.startswith("broken.png: this is not a picture")
    assert looker.listen(str(files / "broken.png")).startswith("broken.png: ")
    assert looker.listen(str(files / "silent.wav")) == SILENT
    assert looker.listen(str(SPEECH)) == looker.listen(None) == ""


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_a_picture_is_read_by_us_however_often_gradio_makes_its_control_anew() -> None:
    """Which it does for every visitor whose control is updated, from its class and arguments."""
    control = PictureFile(type="filepath", elem_id="portrait")
    again = type(control)(**control.constructor_args)
    assert again.get_block_name() == "image"
    assert again.preprocess(ImageData(path="diary.png")) == "diary.png" and again.preprocess(None) is None


def test_a_visitor_clicks_a_face_and_turns_a_photo(
    looker: Looker, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with gr.Blocks(analytics_enabled=False) as page:
        portrait = PictureFile(type="filepath", elem_id="portrait")
        _, wanted = lay_out_face(portrait, looker)
        back = gr.Button("Give back")
        back.click(
            lambda: (three := str(*tmp_path.glob("gradio/*/three.png")), (three, 1)), None, [portrait, wanted]
        )
        lay_out_sound(gr.Audio(type="filepath", elem_id="speech"), looker)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        with browser(tmp_path / "profile") as tab:
            tab.open(page.local_url)
            tab.wait("!!document.querySelector('#portrait input[type=file]')")
            tab.choose_files("#portrait input[type=file]", files / "three.png")
            tab.wait("document.querySelectorAll('#faces button img').length == 3")
            tab.wait("document.querySelector('#face input:checked')?.value == '2'")
            tab.wait("document.querySelector('#face-notes [role=status]')?.innerText.includes('3 faces')")
            # with the keyboard: a button's click is what Enter does
            tab.run("document.querySelectorAll('#faces button:has(img)')[2].click()")
            tab.wait("document.querySelector('#face input:checked').value == '3'")
            tab.choose_files("#speech input[type=file]", files / "silent.wav")
            tab.wait("document.body.innerText.includes('Nothing that sounds like speech')")
            tab.run(CLEAR)
            tab.wait(
                "!document.querySelector('#faces') && !!document.querySelector('#portrait input[type=file]')"
            )
            tab.press("Give back")  # as a page does after a reload, with the face that was chosen there
            tab.wait("document.querySelector('#face input:checked')?.value == '1'")
            tab.run(CLEAR)
            tab.wait("!!document.querySelector('#portrait input[type=file]')")
            tab.choose_files("#portrait input[type=file]", files / "down.png")
            tab.press("Turn it")
            tab.wait("!document.body.innerText.includes('Turn it')")
            assert tab.complaints() == []
    finally:
        page.close()
