"""Tests of a Hub that does not answer: told soon, or the cache is used; one that is only slow is waited for."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hub_stand_in import OWNER, HubStandIn
from huggingface_hub.errors import LocalEntryNotFoundError
from toy import TOY

from sdtalk.checkpoint import load_model, locate
from sdtalk.cli.main import main
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.weights import hub as hub_module
from sdtalk.weights.hub import download

REPO = f"{OWNER}/head"
pytestmark = pytest.mark.serial


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def point_client_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants

    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes connections and says nothing, as a network that drops what comes back."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def shared(hub: HubStandIn) -> str:
    """A model on the Hub; returns its commit."""
    SDTalk(replace(TOY, plane_size=8, hash_levels=1)).push_to_hub(REPO)
    return hub.model().head.sha


def test_no_answer(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    point_client_to(silent, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("p.png", "s.wav"):
        (tmp_path / name).touch()
    files = [str(tmp_path / name) for name in ("p.png", "s.wav", "o.mp4")]
    with at_most(5):
        assert main([files[0], files[1], "-o", files[2], "--model", "some/body"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sdtalk: model 'some/body': the Hub cannot be reached (no answer within 2.5 s)")
    assert error.count("\n") == 1 and "mini" in error


def test_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that never answers is not bound by any time limit of the client."""
    point_client_to("http://hub.invalid", monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_module, "PATIENCE_SECONDS", 0.3)
    over = threading.Event()

    def hang(*_: object, **__: object) -> list:
        over.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with at_most(2), pytest.raises(InputError, match="no answer within 0.3 s"):
        locate("some/body")
    over.set()
    monkeypatch.setattr(hub_module, "PATIENCE_SECONDS", 5.0)
    with at_most(2), pytest.raises(InputError, match="failure in name resolution"):
        locate("some/body")


def test_no_network(hub: HubStandIn) -> None:
    hub.down()
    with at_most(2), pytest.raises(InputError, match=r"\(.*refused\) and it is not in the cache. Connect"):
        locate("some/body")
    hub.up()


def test_the_cache_is_used_where_the_hub_says_nothing(
    shared: str, silent: str, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = locate(REPO)
    load_model(REPO)
    hub.down()
    with at_most(1):
        assert locate(REPO) == locate(f"{REPO}@{shared}") == folder
    with pytest.raises(LocalEntryNotFoundError, match="refused"):
        download(REPO, force_download=True)
    hub.up()
    point_client_to(silent, monkeypatch)
    with at_most(3):
        assert locate(REPO) == folder
    with at_most(0.5):  # nobody has to be asked about these
        assert locate(f"{REPO}@{shared}") == folder == download(REPO, local_files_only=True)
    with at_most(0.5), pytest.raises(LocalEntryNotFoundError, match="not in the cache"):
        download("some/body", local_files_only=True)


def test_a_commit_in_the_cache_is_not_asked_for(shared: str, hub: HubStandIn) -> None:
    locate(REPO)
    before = len(hub.requests)
    locate(f"{REPO}@{shared}")
    assert len(hub.requests) == before


def test_half_a_model_in_the_cache_is_none(shared: str, hub: HubStandIn) -> None:
    (locate(REPO) / "model.safetensors").unlink()
    hub.down()
    for source in (REPO, f"{REPO}@{shared}"):
        with at_most(2), pytest.raises(InputError, match="not in the cache"):
            locate(source)
    hub.up()
    assert (locate(REPO) / "model.safetensors").is_file()


def test_what_is_only_slow_is_waited_for(
    shared: str, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PATIENCE_SECONDS", 0.5)
    hub.fail("GET ", delay_seconds=0.8, times=-1)
    began = time.monotonic()
    assert load_model(REPO).config.plane_size == 8
    assert time.monotonic() - began > 1.5, "config and weights, each longer than the first answer may take"
