"""The page: layout of the Gradio demo. Holds no method; `sdtalk.demo.service` does the work."""

from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from sdtalk.demo.face_choice import Looker, lay_out_face, lay_out_sound
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.service import CONSENT, TalkService
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
    checkbox_border_color="*neutral_400",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_text_color="white",
)
CSS = """
.gradio-container {max-width: 1100px !important; margin: 0 auto !important}
#introduction h1 {margin: 0 0 .2em; font-size: 1.9rem}
#introduction p, #small-print p {color: var(--body-text-color-subdued)}
#small-print p {font-size: .85rem; margin: 0}
#speech .wrap {min-height: 8rem}
@media (max-width: 640px) {#result {height: auto !important; min-height: 300px}}
"""
LAUNCH_OPTIONS: dict[str, Any] = {"theme": THEME, "css": CSS, "footer_links": [], "run_history": False}
"""For `launch`; Gradio would keep a history of uploads and results in the visitor's browser."""


AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's own small events run."""


def file_path(payload: ImageData | None) -> str | None:
    """Stands in for Gradio's own reading of pictures, whose complaints about odd files nobody understands."""
    return payload.path if payload else None


def materials() -> tuple[list[gr.components.Component], gr.Radio]:
    """Lay out portrait and speech, in the order of `TalkService.generate`'s arguments, and the face's number."""
    looker = Looker()
    take: dict[str, Any] = {"label": "or take the example", "api_visibility": "private"}
    photos: dict[str, Any] = {"type": "filepath", "sources": ["upload", "webcam", "clipboard"]}
    portrait = gr.Image(label="1. Portrait", elem_id="portrait", height=260, buttons=[], **photos)
    face = lay_out_face(portrait, looker)
    gr.Examples([[str(PORTRAIT)]], portrait, **take)
    sounds: dict[str, Any] = {"type": "filepath", "sources": ["upload", "microphone"]}
    speech = gr.Audio(label="2. Speech", elem_id="speech", buttons=[], **sounds)
    lay_out_sound(speech, looker)
    gr.Examples([[str(SPEECH)]], speech, example_labels=["Sense and Sensibility, read aloud"], **take)
    portrait.preprocess = file_path  # type: ignore
    return [portrait, speech], face


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
    return [pose, driver, blink, background, colour, picture, mouth, expression, seed, model]


def shown_with(part: gr.components.Component, choice: gr.Radio, option: str) -> None:
    """Show a control only while an option is chosen."""
    choice.change(lambda chosen: gr.update(visible=chosen == option), choice, part, **AT_ONCE)


def working(busy: bool) -> tuple[dict, dict]:
    """The two buttons, while a video is being made and otherwise."""
    return gr.update(interactive=not busy), gr.update(visible=busy)


def build(models: ModelCache) -> gr.Blocks:
    """Lay out the page."""
    service = TalkService(models)
    with gr.Blocks(title="SDTalk", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        with gr.Row():
            with gr.Column():
                (given, face), options = materials(), choices(models.names)
            with gr.Column():
                consent = gr.Checkbox(label=CONSENT)
                with gr.Row():
                    start = gr.Button("Generate", variant="primary", scale=3)
                    stop = gr.Button("Stop", variant="stop", scale=1, visible=False)
                result = gr.Video(
                    label="Result", elem_id="result", interactive=False, autoplay=True, height=440, buttons=[]
                )
                note = gr.Markdown()
                download = gr.DownloadButton("Download", visible=False)
        gr.Markdown(SMALL_PRINT, elem_id="small-print")
        buttons = [start, stop]
        inputs = [*given, consent, *options, face]
        begun = start.click(lambda: working(True), None, buttons, **AT_ONCE)
        run = begun.then(
            service.generate,
            inputs,
            [result, note],
            api_name="generate",
            concurrency_limit=service.at_once,
            show_progress_on=result,
        )
        for ended in (run.success, run.failure):  # Gradio 6.31 does not run `then` after an error
            ended(lambda: working(False), None, buttons, **AT_ONCE)
        run.success(lambda video: gr.update(value=video, visible=True), result, download, **AT_ONCE)
        stop.click(None, cancels=run, api_visibility="private")
        stop.click(service.stop, **AT_ONCE)
        stop.click(lambda: working(False), None, buttons, **AT_ONCE)
        page.unload(service.stop)
    return page
