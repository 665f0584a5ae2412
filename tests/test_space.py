"""Tests of the Space: videos made in forks as on ZeroGPU, what a Space reads, app.py on a Space's packages alone."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import gradio as gr
import pytest
import torch
import yaml
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from toy import save_speech, toy_model
from zero_gpu_stand_in import SpacesStandIn

from sdtalk.demo.gpu_loan import (
    FOLLOWING_A_SECOND,
    LONGEST_LOAN_S,
    SECONDS_A_SECOND,
    START_S,
    check_loan,
    loan_seconds,
)
from sdtalk.demo.inputs import Given
from sdtalk.demo.launch import make_page
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.demo.service import TalkService
from sdtalk.demo.shown import DOING, Shown
from sdtalk.demo.video_job import VideoJob
from sdtalk.demo.watching import watch
from sdtalk.demo.zero_gpu import import_spaces, on_zero_gpu
from sdtalk.errors import InputError
from sdtalk.options import TalkOptions
from sdtalk.pipeline import SDTalkPipeline
from sdtalk.video import probe
from sdtalk.weights.assets import example

PORTRAIT = example("eileen_collins.png")

ROOT = Path(__file__).parent.parent
ZERO_GPU_TORCH = {"2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0"}
ZERO_GPU_PYTHON = {"3.10.13", "3.12.12"}
"""What ZeroGPU takes, as https://huggingface.co/docs/hub/spaces-zerogpu listed it in September 2026."""


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> SpacesStandIn:
    """A package `spaces` that forks, in a process that seems to be a Space with ZeroGPU."""
    module = SpacesStandIn()
    monkeypatch.setitem(sys.modules, "spaces", module)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return module


@pytest.fixture(scope="module")
def mini() -> ModelCache:
    """The bundled model, loaded before any fork, as a Space loads it; in a thread that has computed already."""
    cache = ModelCache.of_one(SDTalkPipeline.from_pretrained("mini", device="cpu"))
    torch.ones(512, 512) @ torch.ones(512, 512)
    return cache


def generate(service: TalkService, speech: Path, portrait: Path = PORTRAIT, **options) -> tuple[str, str]:
    visit = gr.Request(session_hash="visitor")
    return service.generate(str(portrait), str(speech), True, **options, request=visit)


def test_videos_are_made_in_forks_one_after_the_other(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    service = TalkService(mini)
    for seconds in (0.5, 1.0):
        speech = save_speech(tmp_path / f"{seconds}.wav", seconds)
        video, _ = generate(service, speech)
        info = probe(video)
        assert info.has_sound and info.duration == pytest.approx(seconds, abs=0.045)
    assert len(set(spaces.forks)) == 2 and os.getpid() not in spaces.forks
    assert spaces.loans == [loan_seconds(job(0.5)), loan_seconds(job(1.0))]
    assert not list(temporary.iterdir()) and not service.stops


def test_the_fork_makes_what_the_page_makes_at_home(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdtalk.provenance.claim.library", lambda: None)  # a signature says when it was made
    speech = save_speech(tmp_path / "speech.wav", 0.2)
    lent = Path(generate(TalkService(mini), speech)[0]).read_bytes()
    monkeypatch.delenv("SPACES_ZERO_GPU")
    at_home = TalkService(mini)
    assert Path(generate(at_home, speech)[0]).read_bytes() == lent
    assert len(spaces.forks) == 1 and at_home.at_once == 1


def test_what_is_wrong_in_the_fork_is_told_as_at_home(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    speech, text = save_speech(tmp_path / "speech.wav", 0.2), tmp_path / "holi<b>day.png"
    text.write_text("Dear diary")
    with pytest.raises(gr.Error) as caught:
        generate(TalkService(mini), speech, text)
    message = caught.value.message
    assert message.startswith("holi&lt;b&gt;day.png: this is not a picture") and "\n" not in message
    assert len(spaces.forks) == 1 and not list(temporary.iterdir())


def test_no_gpu_is_asked_for_in_vain(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    service, empty = TalkService(mini), tmp_path / "silence.wav"
    empty.write_bytes(b"")
    long = save_speech(tmp_path / "long.wav", 301.0, rate=2000)
    for speech, words in ((empty, "silence.wav: the file is empty"), (long, "long.wav: it lasts 301 s")):
        with pytest.raises(gr.Error, match=words):
            generate(service, speech)
    with pytest.raises(gr.Error, match="consent"):
        service.generate(str(PORTRAIT), str(empty), request=gr.Request(session_hash="visitor"))
    assert not spaces.forks and not list(temporary.iterdir())


def test_a_visitor_stops_a_video_in_its_fork(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    service, speech = TalkService(mini), save_speech(tmp_path / "speech.wav", 60.0)
    with ThreadPoolExecutor(1) as visitor:
        run = visitor.submit(generate, service, speech)
        while not spaces.forks:
            assert not run.done(), run.result()
            time.sleep(0.01)
        service.stop(gr.Request(session_hash="somebody else"))
        service.stop(gr.Request(session_hash="visitor"))
        with pytest.raises(gr.Error, match="Stopped"):
            run.result(timeout=30)  # the video would take twice as long
    assert not list(temporary.iterdir()) and not service.stops


def test_a_video_is_watched_while_its_fork_makes_it(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    service, speech = TalkService(mini), save_speech(tmp_path / "speech.wav", 1.5)
    given = Given(str(PORTRAIT), str(speech), True, model="mini")

    async def everything() -> list[tuple[Shown, int]]:
        visit = gr.Request(session_hash="visitor")
        return [
            (shown, shown.piece.stat().st_size if shown.piece else 0)
            async for shown in watch(service, given, visit)
        ]

    news = asyncio.run(everything())
    assert [size > 10_000 for shown, size in news if shown.piece] == [True, True]
    assert any((shown.line or "").startswith(DOING["rendering"]) and shown.total for shown, _ in news)
    video = news[-1][0].video
    assert video and probe(video).duration == pytest.approx(1.5, abs=0.045)
    assert len(spaces.forks) == 1 and not list(temporary.iterdir()) and not service.stops


def test_a_fork_that_is_ended_leaves_nothing(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    service, spaces.cut_short = TalkService(mini), 0.3
    with pytest.raises(gr.Error, match="aborted"):
        generate(service, save_speech(tmp_path / "speech.wav", 20.0))
    assert not list(temporary.iterdir()) and not service.stops
    spaces.cut_short = None
    assert probe(generate(service, save_speech(tmp_path / "again.wav", 0.2))[0]).has_sound


def test_another_model_is_loaded_in_the_fork(
    spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path
) -> None:
    toy_model().save_pretrained(tmp_path / "toy")
    cache = ModelCache({"mini": "mini", "toy": str(tmp_path / "toy")}, "cpu")
    cache.name, cache.pipeline = "mini", mini.pipeline
    service, speech = TalkService(cache), save_speech(tmp_path / "speech.wav", 0.2)
    assert probe(generate(service, speech, model="toy")[0]).has_sound
    assert cache.name == "mini" and cache.pipeline is mini.pipeline


def job(seconds: float, **options) -> VideoJob:
    return VideoJob("mini", "a.png", "b.wav", TalkOptions(**options), Path("nowhere"), seconds)


def test_the_loan_grows_with_the_sound_and_is_bounded() -> None:
    lengths = [0.04, 1.0, 10.0, 60.0, 199.0]
    loans = [loan_seconds(job(seconds), None) for seconds in lengths]
    assert loans == sorted(loans) and START_S <= loans[0] < loans[2] < loans[3] < loans[4] <= LONGEST_LOAN_S
    assert loan_seconds(job(1e6)) == LONGEST_LOAN_S
    assert all(isinstance(loan, int) for loan in loans)  # `spaces` makes a timedelta of it
    assert loan_seconds(job(60.0, pose="clip.mp4")) > loan_seconds(job(60.0))


@pytest.mark.parametrize("options", [{}, {"pose": "clip.mp4"}])
def test_what_is_not_refused_has_time_enough(options: dict) -> None:
    seconds = 1.0
    while seconds < 3600:
        given = job(seconds, **options)
        try:
            check_loan(given)
        except InputError as error:
            assert re.match(r"b.wav: it lasts \d+ s, .* for \d+ s of sound\. Cut", str(error))
            assert loan_seconds(given) == LONGEST_LOAN_S
            break
        pace = SECONDS_A_SECOND + FOLLOWING_A_SECOND * bool(options)
        assert 0 <= loan_seconds(given) - START_S - pace * seconds < 1
        seconds *= 1.1
    assert 60 < seconds < 3600


@pytest.fixture
def client(spaces: SpacesStandIn, mini: ModelCache, temporary: Path, tmp_path: Path) -> Iterator[Client]:
    page = build(mini)
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield Client(page.local_url, verbose=False, download_files=tmp_path / "got", analytics_enabled=False)
    page.close()


def test_the_page_of_such_a_space(client: Client, spaces: SpacesStandIn, tmp_path: Path) -> None:
    given = {"portrait": handle_file(PORTRAIT), "consent": True, "api_name": "/generate"}
    run = client.submit(speech=handle_file(save_speech(tmp_path / "speech.wav", 2.0)), **given)
    told: set[str | None] = set()
    while not run.done():
        told |= {step.desc for step in run.status().progress_data or []}
        time.sleep(0.01)
    video, _ = run.result()
    assert probe(video["video"] if isinstance(video, dict) else video).has_sound
    text = tmp_path / "notes.wav"
    text.write_text("no sound")
    with pytest.raises(AppError, match="notes.wav: it holds no sound"):
        client.predict(speech=handle_file(text), **given)
    assert len(spaces.forks) == 1
    assert DOING["rendering"] in told, "the fork's progress reaches the visitor"


def test_without_zero_gpu_nothing_is_imported_and_no_process_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)  # importing it would fail
    assert not on_zero_gpu()
    import_spaces()
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert not on_zero_gpu(), "it is not installed"


def front_matter() -> dict:
    head = re.match(r"---\n(.*?)\n---\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert head
    return yaml.safe_load(head[1])


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(r.name): next(iter(r.specifier)).version for r in wanted if len(r.specifier) == 1
    }


def test_what_a_space_reads_fits_what_it_gets() -> None:
    head, project = front_matter(), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert head["sdk"] == "gradio" and (ROOT / head["app_file"]).is_file()
    assert head["sdk_version"] == pins()["gradio"], "a Space installs both in one go"
    assert head["python_version"] in ZERO_GPU_PYTHON
    assert SpecifierSet(project["project"]["requires-python"]).contains(head["python_version"])
    assert pins()["torch"] in ZERO_GPU_TORCH
    assert "spaces" not in pins(), "a Space brings its own"
    assert len(head["short_description"]) <= 60
    assert head["thumbnail"].startswith("https://")
    assert (ROOT / head["thumbnail"].partition("/main/")[2]).is_file()
    assert not {"models", "preload_from_hub"} & head.keys(), "mini comes with the package"


def test_the_suggested_hardware_is_some() -> None:
    from huggingface_hub import SpaceHardware

    assert front_matter()["suggested_hardware"] in {kind.value for kind in SpaceHardware}


def closure(names: set[str]) -> set[str]:
    """Distributions, and all that they require, as pip would install them here."""
    found, waiting = set(), {(canonicalize_name(name), "") for name in names}
    while waiting:
        name, extra = pair = waiting.pop()
        found.add(pair)
        try:
            needed = [Requirement(line) for line in requires(name) or []]
        except ImportError:  # for another system
            continue
        for part in needed:
            if part.marker is None or part.marker.evaluate({"extra": extra}):
                every = {(canonicalize_name(part.name), of) for of in ("", *part.extras)}
                waiting |= every - found
    return {name for name, _ in found}


ALONE = """
import json, sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"requirements.txt does not bring {name}", name=name)
sys.meta_path.insert(0, Refusing())
import app
import gradio
assert isinstance(app.demo, gradio.Blocks)
"""


def test_app_is_imported_with_what_requirements_bring_alone() -> None:
    brought = closure(set(pins()))
    owners = {
        name: {canonicalize_name(owner) for owner in each} for name, each in packages_distributions().items()
    }
    refused = {name for name, each in owners.items() if not each & (brought | {"sdtalk"})}
    assert {"pytest", "accelerate", "beartype"} <= refused and not {"torch", "gradio", "numba"} & refused
    code = f"REFUSED = {json.dumps(sorted(refused))}" + ALONE
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_an_unusable_model_ends_app_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "app.py", "--model", "nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("sdtalk: model 'nowhere'")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_on_zero_gpu_no_frame_is_rendered_before_somebody_comes(
    spaces: SpacesStandIn, temporary: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdtalk.demo.launch.warm_up", lambda pipeline: pytest.fail("there is no GPU yet"))
    monkeypatch.setenv("SDTALK_HOME", str(temporary))
    assert isinstance(make_page([], "cpu"), gr.Blocks)
    assert not capsys.readouterr().out
