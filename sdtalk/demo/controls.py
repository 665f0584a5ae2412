"""Controls of the page: how a video is made; a row of presets, the usual options, and folded ones for the rest."""

from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData

from sdtalk.demo.face_choice import AT_ONCE
from sdtalk.framing import SHAPES
from sdtalk.options import FARTHEST_TURN, LIVELIEST, LOUDEST_MOUTH, MOST_BLINKS, STRONGEST_MOTION, TalkOptions
from sdtalk.presets import PRESETS

Component = gr.components.Component

FOLLOW = "follow"
"""The page's own preset: head and eyes as in a video, which the visitor gives."""

SET_BY_PRESETS = ("pose", "blink", "motion", "style", "blink_rate", "life", "mouth", "expression")
"""Controls that a preset sets; what the picture shows, the pose and the seed stay as they are."""

ANOTHER_SEED = "() => 1 + Math.floor(Math.random() * 9999)"


def _file_path(self: gr.Image, payload: ImageData | None) -> str | None:
    """Stands in for Gradio's own reading of pictures, whose complaints about odd files nobody understands."""
    return payload.path if payload else None


# A class, since Gradio makes a component anew for a visitor whose control is updated; made past Gradio's own way of
# making classes, which writes a file beside the module. To the browser it is a `gr.Image`.
PictureFile: Any = ABCMeta.__new__(
    type(gr.Image), "PictureFile", (gr.Image,), {"is_template": True, "preprocess": _file_path}
)
"""A picture as the path of its file, whatever is in it."""


def lay_out_controls(models: list[str]) -> dict[str, Component]:
    """Lay out everything but the materials and consent.

    Args:
        models: Names to choose from; the first is the default.

    Returns:
        The controls by the names that `inputs.Given` has for them, the presets as "preset", and as "preview" where a
        pose is shown.
    """
    titles = [(name.capitalize(), name) for name in PRESETS] + [("As in a video", FOLLOW)]
    more = "Sets the options. Calm: as news are read. Still: only mouth and lids move."
    preset = gr.Radio(titles, value="natural", label="Preset", info=more, elem_id="preset")
    with gr.Accordion("Options", open=False) as options:
        controls = _usual()
        with gr.Accordion("More about motion", open=False):
            controls |= _motion()
        with gr.Accordion("Turn the head, in degrees", open=False):
            controls |= _turn()
        controls |= _rest(models)
    _connect_preset(preset, options, controls)
    _connect_video(controls)
    shown_with(controls["style"], controls["pose"], "idle")
    return controls | {"preset": preset}


def _usual() -> dict[str, Component]:
    motion = [("By itself", "idle"), ("None", "still"), ("As in a video", "video")]
    blinks = [("Natural", "natural"), ("None", "none"), ("As in a video", "video")]
    pose = gr.Radio(motion, value="idle", label="Head motion")
    blink = gr.Radio(blinks, value="natural", label="Blinking")
    driver = gr.Video(label="Video to follow", sources=["upload"], visible=False, height=240, buttons=[])
    mouth = gr.Slider(0, LOUDEST_MOUTH, 1, step=0.05, label="Mouth", info="How far it moves; 1 as learned")
    expression = gr.Slider(
        0,
        1,
        TalkOptions.expression,
        step=0.05,
        label="Expression",
        info="How much of a smile in the portrait stays while speaking",
    )
    return {"pose": pose, "blink": blink, "driver": driver, "mouth": mouth, "expression": expression}


def _motion() -> dict[str, Component]:
    o = TalkOptions
    styles = [(name.capitalize(), name) for name in ("natural", "calm", "lively", "nodding")]
    return {
        "style": gr.Radio(styles, value=o.style, label="How the head moves by itself"),
        "motion": gr.Slider(
            0, STRONGEST_MOTION, o.motion, step=0.05, label="How far the head moves", info="0: not at all"
        ),
        "blink_rate": gr.Slider(0, MOST_BLINKS, o.blink_rate, step=1, label="Natural blinks a minute"),
        "life": gr.Slider(
            0, LIVELIEST, o.life, step=0.05, label="Glances, brows and breath", info="0: none; 1 as people do"
        ),
    }


def _turn() -> dict[str, Component]:
    words = {"yaw": "Left to right", "pitch": "Down to up", "roll": "Tilt"}
    with gr.Row():
        with gr.Column(min_width=220):
            turns: dict[str, Component] = {
                name: gr.Slider(-most, most, 0, step=1, label=words[name], elem_id=name)
                for name, most in FARTHEST_TURN.items()
            }
        with gr.Column(min_width=220):
            turns["preview"] = gr.HTML("", elem_id="pose-preview", padding=False)
    return turns


def _rest(models: list[str]) -> dict[str, Component]:
    places = [("As in the portrait", "original"), ("A colour", "colour"), ("A picture", "picture")]
    background = gr.Radio(places, value="original", label="Background")
    colour = gr.ColorPicker("#e2e8f0", label="Background colour", visible=False)
    hidden: dict[str, Any] = {"visible": False, "height": 200, "buttons": []}
    picture = PictureFile(label="Background picture", sources=["upload"], **hidden)
    wholes = [("The whole photo", "full"), ("The head alone", "head")]
    frame = gr.Radio(wholes, value="full", label="Frame", info="A whole photo keeps its own background")
    shape = gr.Radio(list(SHAPES), value="photo", label="Shape of the whole photo")
    with gr.Row(equal_height=True):
        more = "Another number, other small motions"
        seed = gr.Number(0, label="Seed", info=more, precision=0, minimum=0, scale=3, min_width=160)
        dice = gr.Button("Roll the dice", size="sm", scale=1, min_width=110, elem_id="dice")
    model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
    dice.click(None, None, seed, js=ANOTHER_SEED, api_visibility="private")
    shown_with(colour, background, "colour")
    shown_with(picture, background, "picture")
    shown_with(shape, frame, "full")
    shown_with(frame, background, "original")
    background.input(_frame_for, background, frame, **AT_ONCE)
    rest = {"background": background, "colour": colour, "picture": picture, "frame": frame, "shape": shape}
    return rest | {"seed": seed, "model": model}


def _connect_preset(preset: gr.Radio, options: gr.Accordion, controls: dict[str, Component]) -> None:
    """Let a preset set its controls, and lose its tick as soon as one of them is set by hand."""
    set_by_it = [controls[name] for name in SET_BY_PRESETS]

    def chosen(name: str) -> list[Any]:
        return [*preset_values(name).values(), gr.update(open=True) if name == FOLLOW else gr.update()]

    preset.input(chosen, preset, [*set_by_it, options], **AT_ONCE)
    by_hand = [control.input for control in set_by_it]  # type: ignore[attr-defined]
    gr.on(by_hand, None, None, preset, js="() => null", api_visibility="private")


def preset_values(name: str) -> dict[str, str | float]:
    """What a preset of the page sets: values by the names of `SET_BY_PRESETS`."""
    chosen = PRESETS["natural" if name == FOLLOW else name]
    values = {field: getattr(chosen, field) for field in SET_BY_PRESETS}
    return values | {"pose": "video", "blink": "video"} if name == FOLLOW else values


def _connect_video(controls: dict[str, Component]) -> None:
    """Show where a video is given only while head or eyes follow one."""
    pose, blink = controls["pose"], controls["blink"]

    def wanted(*choices: str) -> dict:
        return gr.update(visible="video" in choices)

    gr.on([pose.change, blink.change], wanted, [pose, blink], controls["driver"], **AT_ONCE)  # type: ignore


def shown_with(part: Component, choice: Component, option: str) -> None:
    """Show a control only while an option is chosen."""
    choice.change(lambda chosen: gr.update(visible=chosen == option), choice, part, **AT_ONCE)  # type: ignore


def _frame_for(background: str) -> str:
    """The frame before a background that is chosen: any but the portrait's own leaves only the head."""
    return "full" if background == "original" else "head"
