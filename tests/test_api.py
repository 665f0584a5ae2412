"""Tests of the HTTP interface for programs: forms, jobs, errors, who is let in, and what stays."""

import base64
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from sdtalk.demo.api import Api
from sdtalk.demo.api_form import OPTIONS, TEXTS, VIDEO_FORMATS, WORDS_OR_FILE
from sdtalk.demo.launch import forget_visitors
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import build
from sdtalk.demo.service import TalkService
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.weights.assets import example

PORTRAIT, SPEECH = example("eileen_collins.png"), example("sense_and_sensibility.wav")

CONSENT = {"consent": "true"}


class Pretending(SDTalkPipeline):
    """Writes what it was given instead of a video, frame by frame, as fast as it is let."""

    device, note = "cpu", "Made up – „so“."

    def __init__(self) -> None:
        """Load nothing."""
        self.go, self.asked, self.most, self.now = threading.Event(), [], 0, 0
        self.go.set()

    def __call__(self, portrait, speech, options, face, turn, progress, **_):
        self.asked.append((Path(portrait).read_bytes(), options, face, turn))
        if options.seed == 13:
            raise InputError(portrait, "this number is unlucky", "Choose another.")
        if options.seed == 14:
            raise RuntimeError("a defect")
        return self

    def save(self, path: Path, progress: Callable, pieces: Path | None) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for frame in range(1000):
                progress("rendering", frame, 1000)
                if self.go.wait(0.02):
                    break
        finally:
            self.now -= 1
        path.write_bytes(b"video")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server keeps what it needs for a while."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path


@pytest.fixture
def pipeline() -> Pretending:
    return Pretending()


def served(
    pipeline: Pretending, at_once: int = 1, longest_s: float | None = None, keep_s: float = 60.0, **options
) -> TestClient:
    cache = ModelCache({"mini": "/secret/place", "other": ""})
    cache.name, cache.pipeline = "mini", pipeline
    api = Api(TalkService(cache, longest_s, at_once), keep_s, 0.05, **options)
    app = Starlette(**api.app_options())
    app.auth, app.tokens, app.cookie_id = None, {}, "x"
    return TestClient(app)


def build_page(pipeline: Pretending) -> gr.Blocks:
    cache = ModelCache({"mini": ""})
    cache.name, cache.pipeline = "mini", pipeline
    return build(cache)


@pytest.fixture
def client(pipeline: Pretending, folder: Path) -> Iterator[TestClient]:
    with served(pipeline) as client:
        yield client
    assert not list(folder.glob("sdtalk-*")), "something stays when the server has ended"


def files(**more: Path) -> dict:
    return {name: path.open("rb") for name, path in {"portrait": PORTRAIT, "speech": SPEECH, **more}.items()}


def until(client: TestClient, address: str, *states: str) -> dict:
    """What a job says when it has one of these states."""
    end = time.monotonic() + 20
    while (told := client.get(address).json())["state"] not in states:
        assert time.monotonic() < end, told
        time.sleep(0.02)
    return told


def test_one_request_makes_a_video(client: TestClient, pipeline: Pretending, folder: Path) -> None:
    values = {"pose": "still", "size": "256", "mouth": "1.5", "exact": "yes", "turn": "90", "face": "2"}
    given = files(background=PORTRAIT)
    answer = client.post("/api/talk", data=values | CONSENT | {"format": "gif"}, files=given)
    assert (answer.status_code, answer.content) == (200, b"video")
    assert answer.headers["content-type"] == "image/gif" and answer.headers["sdtalk-note"].startswith(
        "Made up"
    )
    portrait, options, face, turn = pipeline.asked[0]
    assert portrait == PORTRAIT.read_bytes() and (face, turn) == (2, 90)
    assert (options.pose, options.size, options.mouth, options.exact) == ("still", 256, 1.5, True)
    assert Path(options.background).name == PORTRAIT.name and options.background != str(PORTRAIT)
    assert options.label == "AI-generated" and options.mark
    assert not list(folder.glob("sdtalk-*"))


def test_a_job_waits_works_and_is_fetched(client: TestClient, pipeline: Pretending, folder: Path) -> None:
    pipeline.go.clear()
    first, second = (client.post("/api/jobs", data=CONSENT, files=files()) for _ in range(2))
    assert first.status_code == 202 and first.headers["location"] == first.json()["url"]
    a, b = first.json()["url"], second.json()["url"]
    assert until(client, a, "working")["state"] == "working"
    while not (told := client.get(a).json())["total"]:
        time.sleep(0.02)
    assert told["stage"] == "rendering" and told["total"] == 1000
    waiting = client.get(b).json()
    assert (waiting["state"], waiting["ahead"]) == ("waiting", 1) and waiting["seconds"] > 0
    health = client.get("/health").json()
    assert (health["working"], health["waiting"], health["at_once"]) == (1, 1, 1)
    assert client.get(f"{a}/video").status_code == 409
    assert client.delete(b).status_code == 204 and client.get(b).status_code == 404
    pipeline.go.set()
    told = until(client, a, "finished")
    assert client.get(told["video"]).content == b"video" and told["note"] == Pretending.note
    while len(list(folder.glob("sdtalk-*"))) > 1:
        time.sleep(0.02)  # until the other has looked at its flag
    assert not list(folder.glob("sdtalk-*/portrait")), "what was sent is deleted when the video is there"
    assert client.delete(a).status_code == 204 and not list(folder.glob("sdtalk-*"))
    assert len(pipeline.asked) == 1, "a job that was deleted while it waited is not made"


def test_a_job_is_stopped_while_it_is_made(client: TestClient, pipeline: Pretending, folder: Path) -> None:
    pipeline.go.clear()
    address = client.post("/api/jobs", data=CONSENT, files=files()).json()["url"]
    until(client, address, "working")
    client.delete(address)
    end = time.monotonic() + 10
    while list(folder.glob("sdtalk-*")) or client.get("/health").json()["working"]:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_videos_are_deleted_when_their_time_is_over(pipeline: Pretending, folder: Path) -> None:
    with served(pipeline, keep_s=0.2) as client:
        address = client.post("/api/jobs", data=CONSENT, files=files()).json()["url"]
        until(client, address, "finished")
        end = time.monotonic() + 10
        while client.get(address).status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert not list(folder.glob("sdtalk-*"))


@pytest.mark.parametrize(
    ("values", "status", "parameter", "words"),
    [
        ({"consent": "false"}, 422, "consent", "consent: it has not been given. Send the parameter consent=true"),
        ({"consent": "perhaps"}, 422, "consent", "'perhaps' is neither true nor false"),
        ({"size": "5000"}, 422, "size", "size 5000: frames cannot be made that small or large"),
        ({"seed": "1.5"}, 422, "seed", "seed: '1.5' is no whole number. Send a whole number."),
        ({"mouth": "nan"}, 422, "mouth", "no possible strength"),
        ({"pose": str(PORTRAIT)}, 422, "pose", "is no such choice. Send idle, still, or a video as a file."),
        ({"background": str(PORTRAIT)}, 422, "background", "a colour, or a picture as a file."),
        ({"background": "transparent", "format": "mp4"}, 422, "format", "an mp4 cannot be transparent"),
        ({"format": "exe"}, 422, "format", f"Send one of {', '.join(VIDEO_FORMATS)}."),
        ({"label": "true story"}, 422, "label", "start the server with --free-label"),
        ({"mark": "false"}, 422, "mark", "start the server with --free-label"),
        ({"model": "/etc"}, 422, "model", "Choose one of: mini, other."),
        ({"speeds": "2"}, 422, None, "speeds: there is no such parameter. Choose of portrait,"),
        ({"seed": "13"}, 422, "portrait", f"{PORTRAIT.name}: this number is unlucky. Choose another."),
        ({"seed": "14"}, 500, None, "something went wrong"),
    ],
)  # fmt: skip
def test_errors_are_json_with_the_sentence(
    client: TestClient, folder: Path, values: dict, status: int, parameter: str | None, words: str
) -> None:
    answer = client.post("/api/talk", data=CONSENT | values, files=files())
    told = answer.json()
    assert (answer.status_code, told["parameter"]) == (status, parameter)
    assert words in told["error"] and told["error"].endswith(f"{told['problem']}. {told['remedy']}")
    assert str(folder) not in answer.text and "/secret" not in answer.text
    assert not list(folder.glob("sdtalk-*"))


def test_files_that_are_missing_or_text_are_named(client: TestClient) -> None:
    for name in ("portrait", "speech"):
        given = files()
        given.pop(name)
        assert client.post("/api/jobs", data=CONSENT, files=given).json()["parameter"] == name
        told = client.post("/api/jobs", data=CONSENT | {name: str(PORTRAIT)}, files=given).json()
        assert told["error"] == f"{name}: it is text, not a file. Send a file as the parameter {name}."
    broken = client.post("/api/jobs", content=b"--x", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400 and "multipart/form-data" in broken.json()["remedy"]


def test_names_of_files_lead_nowhere(client: TestClient, pipeline: Pretending, folder: Path) -> None:
    for name in ("../../../evil.png", "..", "a\0b\n.png", "x" * 300 + ".png"):
        given = files() | {"portrait": (name, PORTRAIT.read_bytes())}
        answer = client.post("/api/talk", data=CONSENT, files=given)
        assert answer.status_code in (200, 422) and not list(folder.rglob("evil.png"))
    assert pipeline.asked and not list(folder.glob("sdtalk-*"))


def test_too_long_and_too_many(pipeline: Pretending, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(pipeline, longest_s=5.0) as client:
        told = client.post("/api/jobs", data=CONSENT, files=files())
        assert told.status_code == 422 and told.json()["parameter"] == "speech"
        assert told.json()["error"].startswith(f"{SPEECH.name}: it is longer than 5 s")
        assert client.get("/health").json()["max_seconds"] == 5
    monkeypatch.setattr("sdtalk.demo.service.ROOM", 0)
    with served(pipeline) as client:
        pipeline.go.clear()
        client.post("/api/jobs", data=CONSENT, files=files())
        full = client.post("/api/jobs", data=CONSENT, files=files())
        assert full.status_code == 503 and int(full.headers["retry-after"]) > 0
        assert "0 others wait already" in full.json()["error"]


def test_programs_choose_the_label_where_they_may(pipeline: Pretending, folder: Path) -> None:
    with served(pipeline, free_label=True) as client:
        client.post("/api/talk", data=CONSENT | {"label": "KI", "mark": "false"}, files=files())
        client.post("/api/talk", data=CONSENT, files=files())
    (_, chosen, *_), (_, usual, *_) = pipeline.asked
    assert (chosen.label, chosen.mark) == ("KI", False) and (usual.label, usual.mark) == (
        "AI-generated",
        True,
    )


def test_as_many_at_once_as_wanted_and_no_more(pipeline: Pretending, folder: Path) -> None:
    with served(pipeline, at_once=2) as client:
        pipeline.go.clear()
        jobs = [client.post("/api/jobs", data=CONSENT, files=files()).json()["url"] for _ in range(3)]
        while pipeline.now < 2:
            time.sleep(0.02)
        assert client.get(jobs[2]).json()["state"] == "waiting"
        pipeline.go.set()
        for address in jobs:
            until(client, address, "finished")
    assert pipeline.most == 2


def test_only_those_are_let_in_who_may(pipeline: Pretending, folder: Path) -> None:
    """On the page itself, as Gradio serves it."""
    page = build_page(pipeline)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, auth=("ann", "sécret:x"))
    client = TestClient(page.app)  # asks the same application, without its lifespan
    try:
        assert client.get("/health").json()["status"] == "ok"
        paths = (
            ("POST", "talk"),
            ("POST", "jobs"),
            ("GET", "jobs/a"),
            ("GET", "jobs/a/video"),
            ("DELETE", "jobs/a"),
        )
        for method, path in paths:
            for words in (None, "ann:wrong", "bob:sécret:x", "ann:", "ann"):
                code = base64.b64encode((words or "").encode()).decode()
                headers = {"Authorization": f"Basic {code}"} if words else {}
                refused = client.request(method, f"/api/{path}", headers=headers)
                assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic")
        assert client.get("/api/jobs/a", headers={"Authorization": "Basic ???"}).status_code == 401
        right = {"Authorization": "Basic " + base64.b64encode("ann:sécret:x".encode()).decode()}
        assert client.get("/api/jobs/a", headers=right).status_code == 404
        client.post("/login", data={"username": "ann", "password": "sécret:x"})
        assert client.get("/api/jobs/a").status_code == 404, "the page's cookie is enough"
    finally:
        page.close()


def test_no_text_is_a_path() -> None:
    """A new option that is text has to be put where it is known whether it can name a file."""
    texts = {name for name, value in OPTIONS.items() if isinstance(value, str)}
    assert texts == {*TEXTS, *WORDS_OR_FILE} and not set(TEXTS) & set(WORDS_OR_FILE)
    for name, words in WORDS_OR_FILE.items():
        for word in words:
            assert TalkOptions.of(**{name: word})


def test_visitors_are_forgotten_at_the_end_though_they_still_look(pipeline: Pretending, folder: Path) -> None:
    page = build_page(pipeline)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    url = f"{page.local_url}gradio_api"
    sent = httpx.post(f"{url}/upload", files={"files": PORTRAIT.read_bytes()}).json()[0]
    with httpx.stream("GET", f"{url}/heartbeat/ann", timeout=30) as open_page:
        next(open_page.iter_raw())
        assert Path(sent).exists()
        forget_visitors(page)
        assert not Path(sent).exists()


def test_uploads_are_deleted_in_time(
    pipeline: Pretending, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdtalk.demo.page.CLEAN_EVERY_S", 1)
    monkeypatch.setattr("sdtalk.demo.page.KEEP_S", 1)
    page = build_page(pipeline)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True)
    try:
        url = f"{page.local_url}gradio_api/upload"
        sent = Path(httpx.post(url, files={"files": PORTRAIT.read_bytes()}).json()[0])
        assert sent.exists()
        end = time.monotonic() + 10
        while sent.exists():
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        page.close()
