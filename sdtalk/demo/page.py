"""The page: layout of the Gradio demo. Holds no method; `sdtalk.demo.service` does the work."""

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from sdtalk.demo.face_choice import AT_ONCE, Looker, lay_out_face, lay_out_sound
from sdtalk.demo.gallery import (
    GALLERY_CSS,
    PLAYING,
    connect_gallery,
    lay_out_gallery,
    lay_out_portraits,
    lay_out_voices,
)
from sdtalk.demo.inputs import CONSENT
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.service import TalkService
from sdtalk.demo.stage import CARRY_ON, STAGE_CSS, Stage
from sdtalk.demo.three_dimensions import ThreeDimensions
from sdtalk.full_frame import SHAPES
from sdtalk.options import LOUDEST_MOUTH, TalkOptions
from sdtalk.video.label import AI_GENERATED
from sdtalk.weights.assets import example

PORTRAIT, SPEECH = example("eileen_collins.png"), example("sense_and_sensibility.wav")

CLEAN_EVERY_S, KEEP_S = 300, 1500
"""Uploads and results older than KEEP_S are deleted from time to time, all of them when the program ends."""

INTRODUCTION = """
# SDTalk
A photo and a voice recording become a talking video. All of it happens on the machine that serves this page.
"""
SMALL_PRINT = f"""
Every video carries a visible “{AI_GENERATED}” label. Do not make anybody seem to say what they have not agreed to.
What you upload, and what is made of it, is deleted within {(KEEP_S + CLEAN_EVERY_S) // 60} minutes.
"""

# the font comes with Gradio
FONT: list[gr.themes.LocalFont | str] = [
    gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)),
    "sans-serif",
]
THEME = gr.themes.Default(primary_hue="teal", neutral_hue="slate", radius_size="md", font=FONT).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_500",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_text_color="white",
    button_cancel_background_fill="#b91c1c",  # white letters on it are at 6.5:1; Gradio's own red is too light
    button_cancel_background_fill_hover="#991b1b",
)
CSS = """
.gradio-container {max-width: 1100px !important; margin: 0 auto !important}
#introduction h1 {margin: 0 0 .2em; font-size: 1.9rem}
#introduction p, #small-print p {color: var(--body-text-color-subdued)}
#small-print p {font-size: .85rem; margin: 0}
#speech .wrap {min-height: 8rem}
.no-camera #portrait .source-selection button:nth-child(2) {display: none}
.no-microphone #speech .source-selection button:nth-child(2) {display: none}
"""
DEVICES = """
<script>
// What this machine does not have, or the browser keeps from pages without https, is not offered.
(() => {
  const look = async () => {
    const kinds = (await navigator.mediaDevices?.enumerateDevices() ?? []).map(({kind}) => kind);
    document.documentElement.classList.toggle("no-camera", !kinds.includes("videoinput"));
    document.documentElement.classList.toggle("no-microphone", !kinds.includes("audioinput"));
  };
  look();
  navigator.mediaDevices?.addEventListener("devicechange", look);
})();
</script>
"""
LAUNCH_OPTIONS: dict[str, Any] = {
    "theme": THEME,
    "css": CSS + STAGE_CSS + GALLERY_CSS,
    "head": DEVICES + CARRY_ON + PLAYING,
    "footer_links": [],
    "run_history": False,
}
"""For `launch`; Gradio would keep a history of uploads and results in the visitor's browser."""


def file_path(payload: ImageData | None) -> str | None:
    """Stands in for Gradio's own reading of pictures, whose complaints about odd files nobody understands."""
    return payload.path if payload else None


def materials() -> tuple[gr.Image, gr.Audio, gr.Radio]:
    """Lay out portrait and speech, in the order of `TalkService.generate`'s arguments, and the face's number."""
    looker = Looker()
    photos: dict[str, Any] = {"type": "filepath", "sources": ["upload", "webcam", "clipboard"]}
    portrait = gr.Image(label="1. Portrait", elem_id="portrait", height=260, buttons=[], **photos)
    face = lay_out_face(portrait, looker)
    lay_out_portraits(portrait)
    sounds: dict[str, Any] = {"type": "filepath", "sources": ["upload", "microphone"]}
    speech = gr.Audio(label="2. Speech", elem_id="speech", buttons=[], **sounds)
    lay_out_sound(speech, looker)
    lay_out_voices(speech)
    portrait.preprocess = file_path  # type: ignore
    return portrait, speech, face


def choices(models: list[str]) -> list[gr.components.Component]:
    """Lay out the options; in the order of `TalkService.generate`'s arguments."""
    with gr.Accordion("Options", open=False):
        motion = [("Gentle", "idle"), ("None", "still"), ("As in a video", "video")]
        pose = gr.Radio(motion, value="idle", label="Head motion")
        driver = gr.Video(label="Video to follow", sources=["upload"], visible=False, height=240, buttons=[])
        blink = gr.Radio([("Natural", "natural"), ("None", "none")], value="natural", label="Blinking")
        places = [("As in the portrait", "original"), ("A colour", "colour"), ("A picture", "picture")]
        background = gr.Radio(places, value="original", label="Background")
        colour = gr.ColorPicker("#e2e8f0", label="Background colour", visible=False)
        picture = gr.Image(
            label="Background picture", sources=["upload"], visible=False, height=200, buttons=[]
        )
        wholes = [("The whole photo", "full"), ("The head alone", "head")]
        frame = gr.Radio(wholes, value="full", label="Frame", info="A whole photo keeps its own background")
        shape = gr.Radio(list(SHAPES), value="photo", label="Shape of the whole photo")
        mouth = gr.Slider(
            0, LOUDEST_MOUTH, 1, step=0.05, label="Mouth", info="How far it moves; 1 as learned"
        )
        expression = gr.Slider(
            0,
            1,
            TalkOptions.expression,
            step=0.05,
            label="Expression",
            info="How much of a smile in the portrait stays while speaking",
        )
        seed = gr.Number(0, label="Seed", info="Another number, other small motions", precision=0, minimum=0)
        model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
    picture.preprocess = file_path  # type: ignore
    shown_with(driver, pose, "video")
    shown_with(colour, background, "colour")
    shown_with(picture, background, "picture")
    shown_with(shape, frame, "full")
    background.change(_frame_for, background, frame, **AT_ONCE)
    return [pose, driver, blink, background, colour, picture, mouth, expression, seed, model, frame, shape]


def shown_with(part: gr.components.Component, choice: gr.Radio, option: str) -> None:
    """Show a control only while an option is chosen."""
    choice.change(lambda chosen: gr.update(visible=chosen == option), choice, part, **AT_ONCE)


def _frame_for(background: str) -> dict:
    """The choice of frames: none where another background leaves only the head."""
    own = background == "original"
    return gr.update(value="full" if own else "head", visible=own)


def build(models: ModelCache, longest_s: float | None = None) -> gr.Blocks:
    """Lay out the page.

    Args:
        models: What there is to choose from.
        longest_s: The longest recording that is taken, in seconds; None: any.
    """
    service = TalkService(models, longest_s)
    with gr.Blocks(title="SDTalk", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        gallery = lay_out_gallery()
        with gr.Row():
            with gr.Column():
                portrait, speech, face = materials()
                options = choices(models.names)
            with gr.Column():
                consent = gr.Checkbox(label=f"3. {CONSENT}", elem_id="consent")
                stage = Stage.laid_out()
                turned = None if service.forks else ThreeDimensions.laid_out()  # a fork has no such thread
        gr.Markdown(SMALL_PRINT, elem_id="small-print")
        inputs = [portrait, speech, consent, *options[:-2], face, *options[-2:]]
        stage.connect(service, page, inputs)
        connect_gallery(gallery, portrait, speech, [stage.result, stage.note, stage.download])
        if turned is not None:
            turned.connect(service, [portrait, speech, consent, face, options[9]])
        by_program = gr.Button(visible=False)
        by_program.click(
            service.generate,
            inputs,
            [stage.result, stage.note],
            api_name="generate",
            concurrency_limit=service.at_once,
        )
        stage.tells_of(service, speech)
        page.unload(service.stop)
    return page
