"""Text to speech on the page: words and a voice of this machine become the recording; not there without a voice."""

import anyio.to_thread
import gradio as gr

from sdtalk.demo.face_choice import AT_ONCE
from sdtalk.demo.stage import wrong
from sdtalk.errors import InputError
from sdtalk.speech.synthesis import LONGEST_TEXT, find_voices, synthesise


def lay_out_text(speech: gr.Audio) -> None:
    """Lay out a text and a choice of voices, whose speech takes the place of a recording; nothing without a voice.

    Args:
        speech: The recording.
    """
    voices = [(f"{voice.language or voice.name} ({voice})", str(voice)) for voice in find_voices()]
    if not voices:
        return
    with gr.Accordion("No recording? Write what is to be said", open=False, elem_id="written"):
        text = gr.Textbox(label="Text", lines=3, max_length=LONGEST_TEXT, elem_id="text")
        voice = gr.Dropdown(voices, value=voices[0][1], label="Voice of this machine", elem_id="voice")
        message = gr.HTML(visible=False, elem_id="text-message", padding=False)
        speak = gr.Button("Make the speech")
    speak.click(_spoken, [text, voice], [speech, message], **AT_ONCE)


async def _spoken(text: str | None, voice: str) -> tuple[object, dict]:
    """The recording, and what is wrong."""
    try:
        voices = {str(one): one for one in find_voices()}
        if voice not in voices:  # other names could be paths on this machine
            raise InputError("Voice", "there is no such voice", "Choose one of the list.")
        chosen = voices[voice]
        sound = await anyio.to_thread.run_sync(synthesise, text or "", chosen)
        return sound, gr.update(visible=False)
    except InputError as error:
        return gr.skip(), gr.update(value=wrong(str(error)), visible=True)
