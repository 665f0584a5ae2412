"""Tests of the demo page and its HTTP interface: a real server, a real client, a real browser where there is one."""

import io
import socket
import tempfile
import threading
import wave
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
import pytest
import torch
from chromium import Tab, browser, chromium
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from toy import toy_model

from sdtalk.cli.main import main
from sdtalk.config import SDTalkConfig
from sdtalk.demo.inputs import as_hex, error_message, known_model
from sdtalk.demo.launch import serve
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.demo.service import TalkService
from sdtalk.demo.shown import DOING
from sdtalk.demo.worker import Worker
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.pipeline import SILENT, SDTalkPipeline
from sdtalk.presets import PRESETS
from sdtalk.tracking.tracker import Tracker
from sdtalk.video import probe
from sdtalk.weights.assets import example

PORTRAIT, SPEECH = example("eileen_collins.png"), example("sense_and_sensibility.wav")

ROOT = Path(__file__).parent.parent
CAMERA = "#portrait .source-selection button:nth-child(2)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """Where the server keeps what it needs for a while."""
    kept = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(kept / "gradio"))
        patch.setattr(tempfile, "tempdir", str(kept))
        yield kept


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[gr.Blocks]:
    torch.manual_seed(0)
    pipeline = SDTalkPipeline(SDTalk(SDTalkConfig()).eval().requires_grad_(False), Tracker.from_bundled())
    page = build(ModelCache.of_one(pipeline))
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield page
    page.close()


@pytest.fixture(scope="module")
def client(page: gr.Blocks, tmp_path_factory) -> Client:
    downloads = tmp_path_factory.mktemp("downloads")
    return Client(page.local_url, verbose=False, download_files=downloads, analytics_enabled=False)


@pytest.fixture(scope="module")
def word(tmp_path_factory) -> Path:
    """0.4 s of the example."""
    path = tmp_path_factory.mktemp("speech") / "word.wav"
    with wave.open(str(SPEECH)) as whole, wave.open(str(path), "wb") as part:
        part.setparams(whole.getparams())
        whole.setpos(whole.getframerate())
        part.writeframes(whole.readframes(whole.getframerate() * 2 // 5))
    return path


def generate(client: Client, portrait: Path | None, speech: Path | None, **options):
    files = (handle_file(path) if path else None for path in (portrait, speech))
    given = dict(zip(("portrait", "speech"), files, strict=True))
    return client.predict(**given, **{"consent": True, **options}, api_name="/generate")


def video_of(answer) -> Path:
    return Path(answer["video"] if isinstance(answer, dict) else answer)


def test_the_example_becomes_a_video(client: Client, folder: Path, word: Path) -> None:
    video, note = generate(client, PORTRAIT, word, background="colour", colour="rgba(255, 0.4, 0, 1)")
    info = probe(video_of(video))
    assert (info.width, info.height, info.has_sound) == (512, 512, True)
    assert info.duration == pytest.approx(0.4, abs=0.045)
    assert note == SILENT, "an untrained model hears nothing"
    assert not list(folder.glob("sdtalk-*")), "a work folder has stayed"


@pytest.mark.parametrize(
    "name", ["no portrait", "no consent", "text as picture", "empty sound", "no video", "a path"]
)
def test_what_cannot_be_used_is_told_in_one_line(
    client: Client, word: Path, tmp_path: Path, name: str
) -> None:
    text, empty = tmp_path / "holiday.png", tmp_path / "silence.wav"
    text.write_text("Dear diary")
    empty.write_bytes(b"")
    portrait, speech, options, words = {
        "no portrait": (
            None,
            word,
            {},
            "portrait: there is none yet. Send a file as",
        ),
        "no consent": (
            PORTRAIT,
            word,
            {"consent": False},
            "consent: it has not been given. Send the",
        ),
        "text as picture": (text, word, {}, "holiday.png: this is not a picture"),
        "empty sound": (PORTRAIT, empty, {}, "silence.wav: the file is empty"),
        "a path": (PORTRAIT, word, {"background": "colour", "colour": str(PORTRAIT)}, "colour: "),
        "no video": (PORTRAIT, word, {"pose": "video"}, "driver: there is none yet"),
    }[name]
    with pytest.raises(AppError) as caught:
        generate(client, portrait, speech, **options)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and "Traceback" not in message and (name == "a path" or "/" not in message)


def test_names_of_files_cannot_bring_markup(client: Client, word: Path, tmp_path: Path) -> None:
    error = InputError("<img src=x>.png", "bad", "Choose another.")
    assert "<" in error_message(error)  # so it is escaped where it is shown
    text = tmp_path / "a&b.png"
    text.write_text("no picture")
    with pytest.raises(AppError, match="this is not a picture"):
        generate(client, text, word)


@pytest.mark.parametrize(
    "picked, colour",
    [
        ("#a1b2c3", "#a1b2c3"),
        ("rgba(255.4, 0, 15.6, 1)", "#ff0010"),
        ("rgb(1,2,3)", "#010203"),
    ],
)
def test_colours_of_the_picker(picked: str, colour: str) -> None:
    assert as_hex(picked) == colour


class Told(gr.Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[object, str]] = []

    def __call__(self, progress, desc, **_) -> None:
        self.steps.append((progress, desc))


def test_stop_acts_before_the_first_frame_and_stages_may_have_new_names() -> None:
    visit, told = gr.Request(session_hash="visitor"), Told()

    class Dreaming(SDTalkPipeline):
        def __init__(self) -> None:
            """Load nothing."""

        def __call__(self, *files, options, progress, **chosen):
            show = progress
            show("dreaming", 0, 0)
            show("rendering", 1, 2)
            service.stop(visit)
            show("preparing", 0, 0)
            pytest.fail("went on")

    cache = ModelCache({"mini": ""})
    cache.name, cache.pipeline = "mini", Dreaming()
    service = TalkService(cache)
    with pytest.raises(gr.Error, match="Stopped"):
        service.generate(str(PORTRAIT), str(SPEECH), True, request=visit, progress=told)
    assert told.steps[1:] == [(0, "Working"), ((1, 2), DOING["rendering"])] and not service.stops


def test_all_videos_are_made_on_one_thread() -> None:
    """Gradio calls from many threads; PyTorch keeps threads and memory for each that it ever ran on."""
    seen, told = [], Told()

    class Counting(SDTalkPipeline):
        def __init__(self) -> None:
            """Load nothing."""

        def __call__(self, portrait, *files, options, progress, **chosen):
            seen.append(threading.current_thread())
            raise InputError(portrait, "it is made up", "Give another one.")

    cache = ModelCache({"mini": ""})
    cache.name, cache.pipeline = "mini", Counting()
    service = TalkService(cache)

    def visit(number: int) -> None:
        with pytest.raises(gr.Error, match="made up"):
            request = gr.Request(session_hash=str(number))
            service.generate("a.png", str(SPEECH), True, request=request, progress=told)

    visits = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in visits:
        thread.start()
    for thread in visits:
        thread.join()
    assert len(seen) == 6 and len(set(seen)) == 1 and seen[0] not in visits and seen[0].daemon


def failing(error: BaseException) -> None:
    raise error


def test_a_worker_hands_on_what_its_calls_return_and_raise() -> None:
    worker, mark = Worker(), ContextVar("mark", default="none")
    mark.set("the caller's")
    assert worker.run(lambda *given: (given, mark.get()), 1, 2) == ((1, 2), "the caller's")
    for error in (ValueError("no"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            worker.run(failing, error)
    assert worker.run(len, "on") == 2


def dropdown(page: gr.Blocks) -> dict:
    """The control to choose a model with, as the page gets it."""
    parts = (part for part in page.get_config_file()["components"] if part["type"] == "dropdown")
    return next(part["props"] for part in parts if part["props"]["label"] == "Model")


def test_one_model_is_no_choice(page: gr.Blocks) -> None:
    assert not dropdown(page)["visible"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> ModelCache:
    """Two models and one that is broken."""
    places = {name: tmp_path_factory.mktemp("models") / name for name in ("first", "second", "broken")}
    for place in places.values():
        toy_model().save_pretrained(place)
    (places["broken"] / "model.safetensors").write_bytes(b"cut off")
    return ModelCache({name: str(place) for name, place in places.items()}, "cpu")


@pytest.fixture
def larger_page(cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))  # a page that ends empties its folder
    page = build(cache)
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield page
    page.close()


def test_a_model_can_be_chosen(larger_page: gr.Blocks, cache: ModelCache, word: Path, tmp_path: Path) -> None:
    shown = dropdown(larger_page)
    assert shown["visible"] and shown["value"] == "first"
    assert [name for name, _ in shown["choices"]] == ["first", "second", "broken"]
    visitor = Client(larger_page.local_url, verbose=False, download_files=tmp_path, analytics_enabled=False)
    taken = []
    for choice in ({}, {"model": "second"}, {"model": "first"}):
        video, _ = generate(visitor, PORTRAIT, word, **choice)
        taken.append(cache.name)
        assert probe(video_of(video)).has_sound
    assert taken == ["first", "second", "first"]
    for name in ("third", str(PORTRAIT.parent), "mini"):
        with pytest.raises(AppError) as caught:
            generate(visitor, PORTRAIT, word, model=name)
        assert "first" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(AppError, match="broken/model.safetensors: it is not a complete") as caught:
        generate(visitor, PORTRAIT, word, model="broken")
    assert str(Path(cache.sources["broken"]).parent) not in str(caught.value), "visitors learn no paths"
    assert cache.name == "first"


def test_models_given_by_hand_are_looked_at_before_the_page_starts(
    cache: ModelCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    for wrong, says in (("nothing", "no such folder"), (str(tmp_path / "empty"), "config.json: this file")):
        for given in ([wrong], [cache.sources["first"], wrong]):
            words = [word for source in given for word in ("--model", source)]
            assert main(["demo", "--device", "cpu", *words]) == 2
            error = capsys.readouterr().err
            assert error.startswith("sdtalk: ") and says in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, says",
    [
        (["--max-seconds", "0"], "--max-seconds: 0 is no length. Give seconds, such as 60."),
        (["--concurrency", "0"], "--concurrency: 0 videos at once are none. Give 1, or more."),
        (["--auth", "ann"], "--auth: it is not a name and a password. Give it as NAME:PASSWORD."),
        (["--port", "TAKEN"], "Choose another --port or --host."),
        (["--port", "99999"], "Choose another --port or --host."),
        (["--host", "203.0.113.1"], "Choose another --port or --host."),
    ],
)
def test_where_the_page_cannot_be_one_line_says_why(
    cache: ModelCache, capsys: pytest.CaptureFixture, words: list[str], says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [port if word == "TAKEN" else word for word in words]
        model = ["--device", "cpu", "--model", cache.sources["first"]]
        assert main(["demo", *model, *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sdtalk: ") and says in error and error.count("\n") == 1


def test_names_are_checked_besides_by_gradio() -> None:
    assert known_model("mini", ["mini", "base"]) == "mini"
    with pytest.raises(InputError, match="Model: 'nope' is none of those here. Choose one of: mini, base"):
        known_model("nope", ["mini", "base"])


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_a_visitor_chooses_a_model(
    larger_page: gr.Blocks, cache: ModelCache, word: Path, tmp_path: Path
) -> None:
    with browser(tmp_path) as tab:
        tab.open(larger_page.local_url)
        tab.wait("document.querySelectorAll(':is(#portraits, #voices) .gallery-item').length == 12")
        options = "[...document.querySelectorAll('button')].find(b => b.innerText.includes('Options'))"
        tab.wait(f"!!{options}")  # a busy machine draws the rest of the page later
        tab.run(f"{options}.click()")
        field = "document.querySelector('input[aria-label=Model]')"
        tab.wait(f"!!{field} && {field}.value == 'first'")
        tab.run(f"{field}.focus()")
        tab.wait("document.querySelectorAll('[role=option]').length == 3")
        option = "[...document.querySelectorAll('[role=option]')].find(o => o.innerText.includes('second'))"
        press = "new MouseEvent('mousedown', {bubbles: true, cancelable: true})"
        tab.run(f"{option}.dispatchEvent({press})")
        tab.wait(f"{field}.value == 'second'")
        _sets_options(tab)
        tab.run("document.querySelector('#portraits .gallery-item').click()")
        tab.wait("!!document.querySelector('#portrait img')")
        tab.choose_files("#speech input[type=file]", word)
        tab.wait("!!document.querySelector('#speech .play-pause-button')")
        tab.run("document.querySelector('input[type=checkbox]').click()")
        tab.press("4. Generate")
        tab.wait("(v => v && v.readyState >= 2 && v.duration < 1)(document.querySelector('#result video'))")
        assert cache.name == "second" and tab.complaints() == []


def _sets_options(tab: Tab) -> None:
    """A preset sets what it says, and loses its tick by hand; the dice bring a seed."""
    mouth, tick = (
        "document.querySelector('input[type=number][aria-label*=Mouth]').value",
        "document.querySelector('#preset input:checked')?.value",
    )
    tab.run("document.querySelector('#preset input[value=lively]').click()")
    tab.wait(f"{mouth} == {PRESETS['lively'].mouth} && {tick} == 'lively'")
    tab.run("document.querySelector('input[value=none]').click()")
    tab.wait(f"{tick} === undefined")
    seed = "Number(document.querySelector('input[aria-label=Seed]').value)"
    assert tab.run(seed) == 0
    tab.run("document.querySelector('#dice').click()")
    tab.wait(f"{seed} > 0")


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_a_visitor_without_a_network(page: gr.Blocks, folder: Path, word: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as tab:
        tab.open(page.local_url)
        tab.press("4. Generate")
        alert = "(document.querySelector('#message [role=alert]')?.innerText ?? '')"
        tab.wait(f"{alert} == 'Portrait: there is none yet. Please add it.'")
        assert (
            tab.run(
                "getComputedStyle(document.querySelector(CAMERA)).display".replace("CAMERA", repr(CAMERA))
            )
            == "none"
        )
        tab.run("[...document.querySelectorAll('button')].find(b => b.innerText.includes('Options')).click()")
        for option, control in {"video": "Video to follow", "colour": "Background colour"}.items():
            tab.wait(f"!!document.querySelector('input[type=radio][value={option}]')")
            tab.run(f"document.querySelector('input[type=radio][value={option}]').click()")
            tab.wait(f"document.body.innerText.includes('{control}')")
        tab.run("document.querySelector('input[type=radio][value=idle]').click()")
        tab.wait("document.querySelectorAll(':is(#portraits, #voices) .gallery-item').length == 12")
        tab.wait("!document.body.innerText.includes('Video to follow')")
        tab.run("document.querySelector('#portraits .gallery-item').click()")
        tab.wait("!!document.querySelector('#portrait img')")
        tab.run("document.querySelector('#voices .gallery-item').click()")
        tab.wait("!!document.querySelector('#speech .play-pause-button')")
        tab.run("document.querySelector('input[type=checkbox]').click()")

        status = "document.querySelector('#status[role=status][aria-live=polite]').innerText"
        tab.wait(f"/^7 s of speech: the video takes about \\d+ s/.test({status})")
        tab.press("4. Generate")  # 7 seconds of speech: time enough to change one's mind
        tab.wait("(v => v && v.currentTime > 0.2)(document.querySelector('#growing video'))")
        assert tab.run(f"/: \\d+ of 178/.test({status})") and tab.run(f"{alert} == ''")
        tab.press("Stop")
        tab.wait("![...document.querySelectorAll('button')].some(b => b.innerText.trim() == 'Stop')")
        tab.wait(f"{status}.startsWith('Stopped')")
        assert not tab.run("!!document.querySelector('#growing, #result video')")
        assert not list(folder.glob("sdtalk-*")) and not page.pending_streams
        tab.run("document.querySelector('#speech button[aria-label=Clear]').click()")
        tab.wait("!!document.querySelector('#speech input[type=file]')")

        tab.choose_files("#speech input[type=file]", word)
        tab.wait("!!document.querySelector('#speech .play-pause-button')")
        tab.press("4. Generate")
        tab.wait("(v => v && v.readyState >= 2 && v.duration < 1)(document.querySelector('#result video'))")
        tab.wait("document.body.innerText.includes('Download')")
        tab.run("document.querySelector('#speech button[aria-label=Clear]').click()")
        tab.wait("!!document.querySelector('#speech input[type=file]')")
        tab.press("4. Generate")
        tab.wait(f"{alert} == 'Speech: there is none yet. Please add it.'")
        tab.wait(
            "!!document.querySelector('#result video')"
        )  # the last good one stays, and its Download, too
        assert tab.run("document.body.innerText.includes('Download')")
        assert tab.complaints() == []
        foreign = {url for url in tab.requested() if not url.startswith((page.local_url, "data:", "blob:"))}
        assert not foreign, "the page needs other sites"
    assert not list(folder.glob("sdtalk-*")), "a work folder has stayed"


def test_nothing_stays_at_the_end(page: gr.Blocks, folder: Path) -> None:
    assert [path for path in folder.rglob("talking*.mp4")], "run after the others"
    page.close()
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not left - {path.name for path in PORTRAIT.parent.iterdir()}  # the gallery's files


def test_a_pipe_gets_the_address_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, line_buffering=False))
    seen = []

    class Page:
        """Stands for Gradio's: says where it listens, and serves."""

        def launch(self, **options: object) -> None:
            print("Running on local URL")
            seen.append(written.getvalue())

    monkeypatch.setattr("sdtalk.demo.launch.forget_visitors", lambda page: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    serve(Page())
    assert seen == [b"Running on local URL\n"]
