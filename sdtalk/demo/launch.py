"""Start of the demo: loads the model, compiles the rasteriser, makes the page, serves it until Ctrl-C.

Gradio's own variables apply (GRADIO_SERVER_NAME, GRADIO_SERVER_PORT, GRADIO_ROOT_PATH, GRADIO_TEMP_DIR, ...); nothing
is loaded from other sites and nothing is reported to anybody.
"""

import importlib.util
import io
import math
import signal
import socket
import sys
import threading
from typing import Any

from sdtalk.background import parse_background
from sdtalk.checkpoint import find_models, locate, read_config
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.zero_gpu import on_zero_gpu
from sdtalk.driving import DrivingSignals
from sdtalk.errors import InputError
from sdtalk.image import read_picture
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.stream import render_frames
from sdtalk.tracking.found_faces import found_faces
from sdtalk.weights.assets import example

QUEUE = 50
"""Visitors who can wait at once."""


def make_page(
    models: list[str],
    device: str = "auto",
    longest_s: float | None = None,
    at_once: int = 1,
    free_label: bool = False,
) -> Any:
    """Load the first model, and lay out a page with all of them.

    Args:
        models: Folders or Hub names to offer besides the models found on this machine; the first is the default.
        device: "auto", "cpu" or "cuda".
        longest_s: The longest recording that is taken, in seconds; None: any.
        at_once: How many videos are made at the same time.
        free_label: Whether programs may choose the label, and leave out the invisible mark.

    Returns:
        The page, a `gr.Blocks`.

    Raises:
        InputError: Gradio is not installed, or a model, the device, the length or the number cannot be used.
    """
    if longest_s is not None and not 0 < longest_s < math.inf:
        raise InputError("--max-seconds", f"{longest_s:g} is no length", "Give seconds, such as 60.")
    if at_once < 1:
        raise InputError("--concurrency", f"{at_once} videos at once are none", "Give 1, or more.")
    if importlib.util.find_spec("gradio") is None:
        remedy = 'Install the extra that brings it: pip install "sdtalk[demo]".'
        raise InputError("the page", "Gradio, which serves it, is not installed", remedy)
    from sdtalk.demo.page import build  # needs Gradio, which the rest of the package does not

    cache = ModelCache(find_models(tuple(models)), device)
    for source in models:
        read_config(locate(source))
    pipeline = cache.pipeline_for(cache.names[0])  # now, so that what is missing is told before anybody waits
    if not on_zero_gpu():  # where there is no GPU to render with before somebody comes
        print("Compiling the rasteriser: once a machine, about 10 s ...", flush=True)
        warm_up(pipeline)
    return build(cache, longest_s, at_once, free_label).queue(max_size=QUEUE)


def serve(
    page: Any,
    host: str | None = None,
    port: int | None = None,
    share: bool | None = None,
    auth: str | None = None,
) -> None:
    """Serve a page until Ctrl-C.

    Args:
        page: A `gr.Blocks`.
        host: Address to listen at; None: what Gradio's variables say, or this machine alone.
        port: The same; None: what Gradio's variables say, or the first free one from 7860.
        share: Whether Gradio's servers give it a public address; None: what Gradio's variables say.
        auth: "name:password" of those who are let in; None: everybody.

    Raises:
        InputError: The address or the port cannot be used, or a name or password is missing.
    """
    from sdtalk.demo.page import LAUNCH_OPTIONS

    name, _, password = (auth or "").partition(":")
    if auth is not None and not (name and password):
        raise InputError("--auth", "it is not a name and a password", "Give it as NAME:PASSWORD.")
    if threading.current_thread() is threading.main_thread():  # not where Gradio loads a changed app.py again
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # like Ctrl-C: uploads and results are deleted
    if host is not None or port is not None:
        _check_address(host or "127.0.0.1", port or 0)
    login = (name, password) if auth else None
    if isinstance(sys.stdout, io.TextIOWrapper):  # a pipe or a log would get the address when all is over
        sys.stdout.reconfigure(line_buffering=True)
    try:
        page.launch(server_name=host, server_port=port, share=share, auth=login, **LAUNCH_OPTIONS)
    finally:
        forget_visitors(page)


def forget_visitors(page: Any) -> None:
    """Delete what visitors of a page have left, also where they still look at it.

    Gradio does so when its server has ended, but after Ctrl-C waits for open pages to leave, and then goes without.
    """
    from gradio.route_utils import delete_files_created_by_app

    page.close(verbose=False)
    delete_files_created_by_app(page, age=None)


def _check_address(host: str, port: int) -> None:
    """Try to listen there: Gradio would try a hundred ports, and name its variables instead of our flags.

    Raises:
        InputError: It cannot be done.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = f"the page cannot be opened there ({' '.join(reason.split())})"
        raise InputError(
            f"{host}, port {port or 'any'}", problem, "Choose another --port or --host."
        ) from error


def warm_up(pipeline: SDTalkPipeline) -> None:
    """Render one frame of the example, so that the first visitor does not wait for kernels to be compiled."""
    portrait = example("eileen_collins.png")
    pixels = read_picture(portrait).pixels
    found_faces(pixels)  # with the networks that look at photos as soon as they are there
    person = pipeline.tracker.portrait(pixels, str(portrait))
    eyes = pipeline.eyes_for_model(person.track.eyes)
    signals = DrivingSignals(pipeline.speech_encoder.silence(), eyes, person.track.camera)
    scene = pipeline.scene(parse_background("original"), person)
    for _ in render_frames(pipeline.model, pipeline.reconstruct_tracked(person), signals, scene):
        pass
