"""The page: a portrait and a recording in, a talking video out. Holds no method, only calls SDTalkPipeline.

    python app.py [--model FOLDER_OR_HUB_ID ...] [--device auto|cpu|cuda]

Gradio's own variables apply (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, GRADIO_ROOT_PATH, GRADIO_TEMP_DIR, ...); nothing
is loaded from other sites and nothing is reported to anybody. On a Hugging Face Space this file is the whole app.
"""

import argparse
import html
import signal
import sys
import tempfile
import threading
from pathlib import Path

from sdtalk.process import tune_process

if __name__ == "__main__":
    tune_process()  # before PyTorch is imported

import gradio as gr
from gradio.processing_utils import save_file_to_cache
from gradio.utils import get_upload_folder

from sdtalk.checkpoint import find_models, locate, read_config
from sdtalk.errors import InputError
from sdtalk.label import AI_GENERATED
from sdtalk.page_inputs import as_hex, listed, needed, one_line
from sdtalk.pipeline import LOUDEST_MOUTH, TalkOptions
from sdtalk.shelf import Shelf

EXAMPLES = Path(__file__).parent / "examples"
PORTRAIT, SPEECH = EXAMPLES / "eileen_collins.png", EXAMPLES / "sense_and_sensibility.wav"

CLEAN_EVERY_S, KEEP_S = 300, 1500
"""Uploads and results older than KEEP_S are deleted from time to time, all of them when the program ends."""

INTRODUCTION = """
# SDTalk
A photo and a voice recording become a talking video. All of it happens on the machine that serves this page.
"""
CONSENT = "The person shown is me, has agreed to this video, or is the example"
SMALL_PRINT = f"""
Every video carries a visible “{AI_GENERATED}” label. Do not make anybody seem to say what they have not agreed to.
What you upload, and what is made of it, is deleted within {(KEEP_S + CLEAN_EVERY_S) // 60} minutes.
"""
DOING = {
    "preparing": "Looking at the portrait, listening to the speech",
    "tracking": "Following the head in the video",
    "rendering": "Drawing the frames",
}

FONT = [gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "sans-serif"]  # comes with Gradio
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
LOOKS = {"theme": THEME, "css": CSS, "footer_links": [], "run_history": False}
"""For `launch`; Gradio would keep a history of uploads and results in the visitor's browser."""


AT_ONCE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How the page's own small events run."""


class Stopped(Exception):
    """The visitor does not want the video any more."""


class Studio:
    """Makes one video at a time for any number of visitors, each of whom can stop their own."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.turn = shelf, threading.Lock()
        self.stops: dict[str | None, threading.Event] = {}

    def generate(  # one argument for each control: Gradio passes them so, and the API takes its names from here
        self,
        portrait: str | None,
        speech: str | None,
        consent: bool = False,
        pose: str = "idle",
        driver: str | None = None,
        blink: str = "natural",
        background: str = "original",
        colour: str = "#ffffff",
        picture: str | None = None,
        mouth: float = 1.0,
        seed: int = 0,
        model: str | None = None,
        request: gr.Request = None,  # Gradio fills it in
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - this is how Gradio learns that it is wanted
    ) -> tuple[str, str]:
        """Make a talking video of a portrait and a speech recording.

        Args:
            portrait: Picture with one face.
            speech: Recording of speech.
            consent: Must be true: the person shown has agreed, or is the one who asks.
            pose: Head motion: "idle", "still", or "video" (as in `driver`).
            driver: Video whose head is followed.
            blink: "natural" or "none".
            background: "original", "colour" or "picture".
            colour: Of the background.
            picture: For the background.
            mouth: How far the mouth moves, 0 to 2; 1 as learned.
            seed: Another number, another idle motion and other blinks.
            model: Name of one of the models found; by default the first.
            request: Who asks; comes from Gradio.
            progress: Shows what is being done.

        Returns:
            The video, and what the user should know about it, or "".
        """
        stop = self.stops[request.session_hash] = threading.Event()

        def show(stage: str, done: int, total: int) -> None:
            if stop.is_set():
                raise Stopped
            progress((done, total) if total else 0, desc=DOING.get(stage, "Working"), unit="frames")

        try:
            portrait, speech = needed(portrait, "Portrait"), needed(speech, "Speech")
            if not consent:
                raise InputError("Consent", "it has not been given", f"Please tick “{CONSENT}”.")
            pose = needed(driver, "Video to follow") if pose == "video" else pose
            behind = as_hex(colour) if background == "colour" else background
            behind = needed(picture, "Background picture") if background == "picture" else behind
            options = TalkOptions(pose, blink, behind, seed=int(seed), mouth=float(mouth), label=AI_GENERATED)
            model = listed(model or self.shelf.names[0], self.shelf.names)
            show("preparing", 0, 0)
            with self.turn, tempfile.TemporaryDirectory(prefix="sdtalk-") as folder:
                pipeline = self.shelf.take(model)
                talk = pipeline(portrait, speech, Path(folder) / "talking.mp4", options, show)
                return save_file_to_cache(talk.path, get_upload_folder()), talk.note
        except InputError as error:
            place = self.shelf.models.get(model or "")
            line = one_line(error, portrait, speech, driver, picture, place)
            raise gr.Error(html.escape(line, quote=False), None, print_exception=False) from None
        except Stopped:
            raise gr.Error("Stopped.", print_exception=False) from None
        finally:
            if self.stops.get(request.session_hash) is stop:
                del self.stops[request.session_hash]

    def stop(self, request: gr.Request) -> None:
        """Let the video that is being made for this visitor not be finished."""
        if request.session_hash in self.stops:
            self.stops[request.session_hash].set()


def file_path(payload: gr.FileData | None) -> str | None:
    """Stands in for Gradio's own reading of pictures, whose complaints about odd files nobody understands."""
    return payload.path if payload else None


def materials() -> list[gr.components.Component]:
    """Lay out the inputs that must be there; in the order of `Studio.generate`'s arguments."""
    take = {"label": "or take the example", "api_visibility": "private"}
    photos = {"type": "filepath", "sources": ["upload", "webcam", "clipboard"]}
    portrait = gr.Image(label="1. Portrait", elem_id="portrait", height=260, buttons=[], **photos)
    gr.Examples([[str(PORTRAIT)]], portrait, **take)
    sounds = {"type": "filepath", "sources": ["upload", "microphone"]}
    speech = gr.Audio(label="2. Speech", elem_id="speech", buttons=[], **sounds)
    gr.Examples([[str(SPEECH)]], speech, example_labels=["Sense and Sensibility, read aloud"], **take)
    portrait.preprocess = file_path
    return [portrait, speech]


def choices(models: list[str]) -> list[gr.components.Component]:
    """Lay out the options; in the order of `Studio.generate`'s arguments."""
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
        seed = gr.Number(0, label="Seed", info="Another number, other small motions", precision=0, minimum=0)
        model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
    picture.preprocess = file_path
    shown_with(driver, pose, "video")
    shown_with(colour, background, "colour")
    shown_with(picture, background, "picture")
    return [pose, driver, blink, background, colour, picture, mouth, seed, model]


def shown_with(part: gr.components.Component, choice: gr.Radio, option: str) -> None:
    """Show a control only while an option is chosen."""
    choice.change(lambda chosen: gr.update(visible=chosen == option), choice, part, **AT_ONCE)


def working(busy: bool) -> tuple[dict, dict]:
    """The two buttons, while a video is being made and otherwise."""
    return gr.update(interactive=not busy), gr.update(visible=busy)


def build(shelf: Shelf) -> gr.Blocks:
    """Lay out the page."""
    studio = Studio(shelf)
    with gr.Blocks(title="SDTalk", analytics_enabled=False, delete_cache=(CLEAN_EVERY_S, KEEP_S)) as page:
        gr.Markdown(INTRODUCTION, elem_id="introduction")
        with gr.Row():
            with gr.Column():
                given, options = materials(), choices(shelf.names)
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
        inputs = [*given, consent, *options]
        begun = start.click(lambda: working(True), None, buttons, **AT_ONCE)
        run = begun.then(
            studio.generate,
            inputs,
            [result, note],
            api_name="generate",
            concurrency_limit=1,
            show_progress_on=result,
        )
        for ended in (run.success, run.failure):  # Gradio 6.31 does not run `then` after an error
            ended(lambda: working(False), None, buttons, **AT_ONCE)
        run.success(lambda video: gr.update(value=video, visible=True), result, download, **AT_ONCE)
        stop.click(None, cancels=run, api_visibility="private")
        stop.click(studio.stop, **AT_ONCE)
        stop.click(lambda: working(False), None, buttons, **AT_ONCE)
        page.unload(studio.stop)
    return page


def main() -> int:
    """Load the model, serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Serve the page of SDTalk.")
    more = "a folder or user/name on the Hub to offer besides the models found; the first is the default"
    parser.add_argument("--model", action="append", default=[], help=more)
    parser.add_argument("--device", default="auto", help="auto (default), cpu or cuda")
    arguments = parser.parse_args()
    try:
        shelf = Shelf(find_models(tuple(arguments.model)), arguments.device)
        for source in arguments.model:
            read_config(locate(source))
        shelf.take(shelf.names[0])  # now, so that what is missing is told before anybody waits
    except InputError as error:
        print("sdtalk:", one_line(error), file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: uploads and results are deleted
    build(shelf).queue(max_size=50).launch(**LOOKS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
