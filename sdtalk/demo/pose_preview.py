"""Pose preview: the head in the pose that the sliders ask for, as soon as they are moved."""

import base64
import html
import io
from collections import OrderedDict
from dataclasses import replace
from threading import Timer
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sdtalk.demo.inputs import Given, known_model
from sdtalk.demo.languages import translated
from sdtalk.demo.service import TalkService
from sdtalk.errors import InputError
from sdtalk.options import FARTHEST_TURN
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.process import hand_back_memory
from sdtalk.still import StillMaker
from sdtalk.video.label import labelled

LONGEST_PX = 512
"""Longer sides of what is shown are reduced to this."""

MOST_HEADS = 3
"""So many heads are kept, since one with a large photo needs about 100 MB."""

BUSY = "A video is being made. The pose is shown when a slider is moved after it has finished."
NO_PORTRAIT = "With a portrait, the pose is shown here."

SHOWN_AGAIN_BY = ("portrait", "face", "frame", "shape", "background", "colour", "picture", "model")
"""Controls besides the angles that decide what the preview shows."""


class PosePreview:
    """Draws heads in a pose for any number of visitors, on the thread on which videos are made."""

    def __init__(self, service: TalkService, keep_s: float | int) -> None:
        """Draw nothing yet.

        Args:
            service: Makes the videos; while one is made, nothing is drawn.
            keep_s: How long a head is kept, seconds.
        """
        self.service, self.keep_s = service, keep_s
        self._pipeline: SDTalkPipeline | None = None
        self._heads: OrderedDict[tuple[str, int], StillMaker] = OrderedDict()

    def connect(self, controls: dict[str, Any], inputs: list[gr.components.Component]) -> None:
        """Let the controls draw.

        Args:
            controls: By the names of `Given`'s fields; "preview" is where it is shown.
            inputs: All of them, in the order of `Given`'s fields.
        """
        if self.service.worker is None:  # GPUs are lent for whole videos only
            return
        changes = [controls[name].change for name in (*FARTHEST_TURN, *SHOWN_AGAIN_BY)]
        gr.on(
            changes,
            self.shown,
            inputs,
            controls["preview"],
            trigger_mode="always_last",
            queue=False,
            show_progress="minimal",
            api_visibility="private",
        )

    def shown(self, *given: Any) -> str:
        """Markup of the head in its pose, or of why it is not shown; "" while nobody has turned it."""
        asked = Given(*given)
        asked = replace(asked, model=asked.model or self.service.models.names[0], pose="still", blink="none")
        turned = any(getattr(asked, name) for name in FARTHEST_TURN)
        if not turned and self._key(asked) not in self._heads:
            return ""
        if not asked.portrait:
            return _said(NO_PORTRAIT)
        if len(self.service.line):
            return _said(BUSY)
        assert self.service.worker is not None
        try:
            return _picture(self.service.worker.run(self._drawn, asked))
        except InputError as error:
            return _said(self.service.told(str(error), asked))

    def _drawn(self, asked: Given) -> UInt8[np.ndarray, "height width 3"]:
        options = asked.options()
        try:
            frame = self._head(asked).near_head(replace(options, label=""))
            image = Image.fromarray(frame)
            image.thumbnail((LONGEST_PX, LONGEST_PX))
            return next(labelled(iter([np.array(image)[None]]), options.label, image.size))[0]
        finally:
            hand_back_memory()

    def _head(self, asked: Given) -> StillMaker:
        """The head of a portrait: made when it is first wanted, and kept for a while."""
        models = self.service.models
        pipeline = models.pipeline_for(known_model(asked.model, models.names))
        if pipeline is not self._pipeline:
            self._heads.clear()
            self._pipeline = pipeline
        key = self._key(asked)
        if key not in self._heads:
            self._heads[key] = StillMaker(pipeline, pipeline.reconstruct(key[0], face=key[1]))
            while len(self._heads) > MOST_HEADS:
                self._heads.popitem(last=False)
            timer = Timer(self.keep_s, self._heads.pop, [key, None])
            timer.daemon = True
            timer.start()
        self._heads.move_to_end(key)
        return self._heads[key]

    @staticmethod
    def _key(asked: Given) -> tuple[str, int]:
        return asked.portrait or "", int(asked.face)  # Gradio names uploads by what is in them


def _picture(frame: UInt8[np.ndarray, "height width 3"]) -> str:
    """A frame as markup that needs no file on the server."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    alt = html.escape(translated("The head in this pose"))
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">'


def _said(line: str) -> str:
    return f'<p role="status">{html.escape(translated(line), quote=False)}</p>'
