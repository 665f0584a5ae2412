"""The page: layout of the Gradio demo. Holds no method; `sdtalk.demo.service` does the work."""

from typing import Any

import gradio as gr

from sdtalk.demo.accessibility import ACCESSIBLE
from sdtalk.demo.api import Api
from sdtalk.demo.appearance import CSS, DEVICES, THEME
from sdtalk.demo.controls import PictureFile, lay_out_controls
from sdtalk.demo.dubbing import MAIN_PAGE, lay_out_dubbing
from sdtalk.demo.face_choice import Looker, lay_out_face, lay_out_sound
from sdtalk.demo.gallery import (
    GALLERY_CSS,
    PLAYING,
    connect_gallery,
    lay_out_gallery,
    lay_out_portraits,
    lay_out_voices,
)
from sdtalk.demo.history import History, lay_out_missing
from sdtalk.demo.inputs import CONSENT, Given
from sdtalk.demo.languages import TRANSLATE, browser_texts
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.pose_preview import PosePreview
from sdtalk.demo.result_cards import part
from sdtalk.demo.service import TalkService
from sdtalk.demo.speech_text import lay_out_text
from sdtalk.demo.stage import CARRY_ON, STAGE_CSS, Stage
from sdtalk.demo.three_dimensions import ThreeDimensions
from sdtalk.video.label import AI_GENERATED

CLEAN_EVERY_S, KEEP_S = 300, 1500
"""Uploads and results older than KEEP_S are deleted from time to time, all of them when the program ends."""

MINUTES = (KEEP_S + CLEAN_EVERY_S) // 60

INTRODUCTION = """
# SDTalk
A photo and a voice recording become a talking video. All of it happens on the machine that serves this page.
"""
SMALL_PRINT = f"""
Every video carries a visible “{AI_GENERATED}” label. Do not make anybody seem to say what they have not agreed to.
What you upload, and what is made of it, is deleted within {MINUTES} minutes.
"""

LAUNCH_OPTIONS: dict[str, Any] = {
    "theme": THEME,
    "css": CSS + STAGE_CSS + GALLERY_CSS + part("result_cards.css"),
    "head": TRANSLATE + ACCESSIBLE + DEVICES + CARRY_ON + PLAYING,
    "i18n": browser_texts(),
    "footer_links": [],
    "run_history": False,
}
"""For `launch`; Gradio would keep a history of uploads and results in the visitor's browser."""


def materials() -> tuple[gr.Image, gr.Audio, gr.Radio, gr.State]:
    """Lay out portrait and speech; return them, and what `lay_out_face` returns."""
    looker = Looker()
    photos: dict[str, Any] = {"type": "filepath", "sources": ["upload", "webcam", "clipboard"]}
    portrait = PictureFile(label="1. Portrait", elem_id="portrait", height=260, buttons=[], **photos)
    face, wanted_face = lay_out_face(portrait, looker)
    lay_out_portraits(portrait)
    sounds: dict[str, Any] = {"type": "filepath", "sources": ["upload", "microphone"]}
    speech = gr.Audio(label="2. Speech", elem_id="speech", buttons=[], **sounds)
    lay_out_sound(speech, looker)
    lay_out_voices(speech)
    lay_out_text(speech)
    return portrait, speech, face, wanted_face


def build(
    models: ModelCache, longest_s: float | None = None, at_once: int = 1, free_label: bool = False
) -> gr.Blocks:
    """Lay out the page.

    Args:
        models: What there is to choose from.
        longest_s: The longest recording that is taken, in seconds; None: any.
        at_once: How many videos are made at the same time.
        free_label: Whether programs may choose the label, and leave out the invisible mark.
    """
    service = TalkService(models, longest_s, at_once)
    with gr.Blocks(title="SDTalk", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        gallery = lay_out_gallery()
        with gr.Row():
            with gr.Column():
                missing = lay_out_missing()
                portrait, speech, face, wanted_face = materials()
                controls = lay_out_controls(models.names)
            with gr.Column():
                consent = gr.Checkbox(label=f"3. {CONSENT}", elem_id="consent")
                stage = Stage.laid_out()
                turned = None if service.forks else ThreeDimensions.laid_out()  # a fork has no such thread
        history = History.laid_out(missing, KEEP_S, MINUTES)
        gr.Markdown(SMALL_PRINT, elem_id="small-print")
        controls |= {"portrait": portrait, "speech": speech, "consent": consent, "face": face}
        controls["wanted_face"] = wanted_face
        inputs = [controls[name] for name in Given.names() if name in controls]
        PosePreview(service, KEEP_S).connect(controls, inputs)
        stage.connect(service, page, inputs)
        connect_gallery(gallery, portrait, speech, [stage.result, stage.note, stage.download])
        if turned is not None:
            turned.connect(service, [portrait, speech, consent, face, controls["model"]])
        history.connect(service, page, stage, controls)
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
        gr.Navbar(main_page_name=MAIN_PAGE)
    with page.route("Dub a video", "/dub"):
        lay_out_dubbing(service, page, SMALL_PRINT)
    serve_programs(page, Api(service, KEEP_S, CLEAN_EVERY_S, free_label))
    return page


def serve_programs(page: gr.Blocks, api: Api) -> None:
    """Let a page that is launched answer programs, too, by whomever it is launched."""
    launch = page.launch

    def launch_both(*arguments: Any, **options: Any) -> Any:
        return launch(*arguments, **options, app_kwargs=api.app_options())

    page.launch = launch_both  # type: ignore
