"""Tests of Hub uploads and downloads: the real client against the Hub stand-in, with failures."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path

import pytest
import torch
from hub_stand_in import OWNER, READER, HubStandIn
from hub_store import Commit
from huggingface_hub import HfApi, get_session
from safetensors.torch import load as load_tensors
from toy import TOY

from sdtalk.checkpoint import load_model, locate
from sdtalk.errors import InputError
from sdtalk.model import SDTalk
from sdtalk.pipeline import SDTalkPipeline
from training import hub_uploader
from training.hub_repository import commit_folder, download_state
from training.hub_uploader import HubUploader

REPO = f"{OWNER}/head"
TINY = replace(TOY, plane_size=8, hash_levels=1)
MODEL_FILES = ("README.md", "config.json", "model.safetensors")


@cache
def model_of(step: int) -> SDTalk:
    """A model that tells its step in every file: in its name and in all its weights."""
    model = SDTalk(replace(TINY, name=f"step {step}"))
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.fill_(step / 1000)
    return model.eval()


def saved(step: int, folder: Path) -> Path:
    """As training writes it: beside its place, then moved there."""
    draft = folder.with_name(folder.name + ".partial")
    model_of(step).save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(draft, folder)
    return folder


def step_in(commit: Commit) -> int | None:
    """Which step a commit shows; all three files have to tell the same."""
    if "config.json" not in commit.files:
        assert not set(MODEL_FILES) & set(commit.files)
        return None
    return step_told(*(commit.files[name].content for name in MODEL_FILES))


@lru_cache(50)
def step_told(card: bytes, config: bytes, tensors: bytes) -> int:
    step = int(json.loads(config)["name"].removeprefix("step "))
    assert f"`step {step}`" in card.decode()
    weights = load_tensors(tensors).values()
    assert {float(v) for w in weights if w.is_floating_point() for v in w.unique()} == {
        float(torch.tensor(step / 1000))
    }
    return step


def steps_on(hub: HubStandIn) -> list[int]:
    return [step for commit in hub.model().commits if (step := step_in(commit)) is not None]


@pytest.fixture
def uploader(hub: HubStandIn, tmp_path: Path) -> Iterator[HubUploader]:
    made = HubUploader(REPO, spool=tmp_path / "spool", first_wait_seconds=0.02, longest_wait_seconds=0.1)
    yield made
    hub.recover()
    made.close(5)


def wait_for(happened, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_is_shared_and_loaded_again(hub: HubStandIn, uploader: HubUploader, tmp_path: Path) -> None:
    uploader.start()
    for step in (1, 2):
        uploader.upload(saved(step, tmp_path / "model"), f"Step {step}")
        wait_for(lambda step=step: steps_on(hub)[-1:] == [step])
    assert uploader.close() == []
    assert hub.model().private and [c.title for c in hub.model().commits[1:]] == ["Step 1", "Step 2"]
    assert not (tmp_path / "spool").exists()

    newest, first = hub.model().head.sha, hub.model().commits[1].sha
    for step, loaded in (
        (2, SDTalk.from_pretrained(REPO)),
        (1, SDTalk.from_pretrained(REPO, revision=first)),
        (2, load_model(REPO)),
        (1, load_model(f"{REPO}@{first}")),
        (2, load_model(f"{REPO}@{newest}")),
    ):
        expected = model_of(step)
        assert loaded.config == expected.config and not loaded.training
        assert loaded.state_dict().keys() == expected.state_dict().keys()
        assert all(torch.equal(t, expected.state_dict()[name]) for name, t in loaded.state_dict().items())
    assert SDTalkPipeline.from_pretrained(f"{REPO}@{first}", "cpu", "float32").model.config.name == "step 1"


def test_another_process_finds_it_by_hf_endpoint(hub: HubStandIn, tmp_path: Path) -> None:
    model_of(7).push_to_hub(REPO, private=True)
    code = f"from sdtalk.weights.hub import download; print(download({REPO!r}))"  # imports little
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "other"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert load_model(done.stdout.strip()).config.name == "step 7"


def test_a_model_is_pushed_from_python(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # not everybody has it, and our card does without
    model_of(3).push_to_hub(REPO, private=True, model_card_kwargs={"licence_id": "cc-by-nc-4.0"})
    assert hub.model().private and steps_on(hub) == [3]
    model_of(4).push_to_hub(REPO, commit_message="better")
    assert steps_on(hub) == [3, 4] and hub.model().private
    card = HfApi().model_info(REPO)
    assert card.sha == hub.model().head.sha
    assert SDTalk.from_pretrained(REPO).config.name == "step 4"


def test_config_and_weights_are_of_one_commit(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    model_of(1).push_to_hub(REPO)
    download = huggingface_hub.hf_hub_download

    def overtaken(name: str, file: str, **options: object) -> str:
        path = download(name, file, **options)
        if steps_on(hub) == [1]:
            model_of(2).push_to_hub(REPO)
        return path

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", overtaken)
    folder = locate(REPO)
    assert steps_on(hub) == [1, 2] and load_model(folder).config.name == "step 1"
    assert float(next(load_model(folder).reconstructor.parameters()).flatten()[0]) == pytest.approx(0.001)
    assert load_model(REPO).config.name == "step 2"


def test_what_does_not_belong_there_is_refused(hub: HubStandIn, tmp_path: Path) -> None:
    folder = saved(1, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "more": 1}))
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    with pytest.raises(InputError, match="the entry 'more' is unknown"):
        SDTalk.from_pretrained(REPO)
    del config["name"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the entry 'name' is missing"):
        SDTalk.from_pretrained(folder)


@pytest.mark.parametrize(
    "source, says",
    [
        ("nobody/nothing", "there is no such repository"),
        (f"{REPO}@nowhere", "there is no such revision"),
        (REPO, "it holds no config.json"),
        ("not a name", "no such folder"),
        ("one/two/three", "no such folder"),
    ],
)
def test_models_that_are_not_there(source: str, says: str, hub: HubStandIn) -> None:
    HfApi().create_repo(REPO)
    with pytest.raises(InputError, match=says) as error:
        load_model(source)
    assert "\n" not in str(error.value)


def test_a_download_cut_short_is_taken_up_again(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    model_of(5).push_to_hub(REPO)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    hub.fail("GET /large", truncate_bytes=1000, times=2)
    assert SDTalk.from_pretrained(REPO).config.name == "step 5"
    assert hub.ranges[0] == "bytes=1000-"


# what is checked before training


def refused_start(uploader: HubUploader) -> str:
    with pytest.raises(InputError) as error:
        uploader.start()
    assert "\n" not in str(error.value) and uploader.close() == []
    return str(error.value)


def test_no_token(uploader: HubUploader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token" in (line := refused_start(uploader)) and "hf auth login" in line


@pytest.mark.parametrize(
    "token, says",
    [
        ("hf_wrong", "the token is not valid"),
        (READER, f"the token of {OWNER} may not write there"),
        ("hf_stranger", "Choose stranger/NAME"),
    ],
)
@pytest.mark.parametrize("exists", [True, False])
def test_tokens_that_will_not_do(
    token: str, says: str, exists: bool, uploader: HubUploader, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exists:
        HfApi().create_repo(REPO)
    monkeypatch.setenv("HF_TOKEN", token)
    assert says in refused_start(uploader)


@pytest.mark.parametrize("name", ["head", "a/b/c", "some body/head", "-x/y", "somebody/head--2", "", "a/"])
def test_malformed_names(name: str, hub: HubStandIn) -> None:
    assert "this is not the name of one" in refused_start(HubUploader(name))
    assert hub.requests == []


def test_a_public_repository_is_not_taken_for_a_private_one(hub: HubStandIn, uploader: HubUploader) -> None:
    HfApi().create_repo(REPO, private=False)
    assert "it exists and is public" in refused_start(uploader)
    open_to_all = HubUploader(REPO, private=False)
    open_to_all.start()
    assert open_to_all.close() == [] and not hub.model().private


def test_uploads_are_not_possible_offline(uploader: HubUploader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused_start(uploader).startswith("HF_HUB_OFFLINE: ")


# what may go wrong while training goes on

FAULTS = {
    "server errors": ("PUT /large", {"status": 500, "times": 8}),
    "a refused commit": ("POST .*/commit/", {"status": 500, "times": 2}),
    "a broken upload": ("PUT /large", {"reset_after_bytes": 3000, "times": 8}),
    "a broken commit": ("POST .*/commit/", {"reset_after_bytes": 500, "times": 2}),
    "a commit without an answer": ("POST .*/commit/", {"lose_answer": True}),
    "a slow Hub": (".", {"delay_seconds": 0.05, "times": 30}),
    "no permission any more": (".*/preupload/", {"status": 403, "times": 2}),
    "a token taken back": (".*/preupload/", {"status": 401, "times": 2}),
    "no room": (".*/objects/batch", {"status": 507, "times": 2}),
    "too large": ("POST .*/commit/", {"status": 413, "times": 2}),
    "too many requests": (".*/preupload/", {"status": 429, "times": 2}),
    "answers that are no JSON": (".*/preupload/", {"truncate_bytes": 5, "times": 2}),
    "a card that is checked badly": ("POST /api/validate-yaml", {"status": 502, "times": 2}),
}

PASSED_OVER = ("a slow Hub", "too many requests", "answers that are no JSON")
"""Faults that the client itself gets over."""


@pytest.mark.parametrize("name", FAULTS)
def test_faults_come_and_go(
    name: str, hub: HubStandIn, uploader: HubUploader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uploader.start()
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    wait_for(lambda: steps_on(hub) == [1])
    pattern, fault = FAULTS[name]
    hub.fail(pattern, **fault)
    uploader.upload(saved(2, tmp_path / "model"), "Step 2")
    shutil.rmtree(tmp_path / "model")
    wait_for(lambda: steps_on(hub) == [1, 2])  # every commit is whole: `step_in` sees to it
    assert uploader.close(10) == []
    told = any("'Step 2' could not be uploaded" in record.getMessage() for record in caplog.records)
    assert told == (name not in PASSED_OVER)
    assert load_model(REPO).config.name == "step 2"


def test_a_hub_that_goes_and_comes_back(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.down()
    with caplog.at_level(logging.WARNING, "training.hub_uploader"):
        uploader.start()
    assert "cannot be reached now" in caplog.text and "tried later" in caplog.text
    for step in (1, 2, 3):
        uploader.upload(saved(step, tmp_path / "model"), f"Step {step}")
        time.sleep(0.03)
    hub.up()
    wait_for(lambda: ("model", REPO) in hub.store.repositories and steps_on(hub)[-1:] == [3])
    assert hub.model().private
    assert uploader.close() == []


def test_a_permission_that_is_missing_shows_later_where_the_hub_was_away(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    hub.down()
    uploader.start()
    hub.up()
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    (line,) = uploader.close(10)
    assert line.startswith(f"'Step 1' is not on {REPO} (Hub repository {REPO}: the token of stranger may not")


@pytest.mark.serial
@pytest.mark.parametrize(
    "fault, says, patient",
    [
        ({"status": 507, "message": "Private repository storage limit reached"}, "507 Private repo", False),
        ({"status": 413, "message": "Payload too large"}, "413 Payload too large", False),
        ({"status": 403, "message": "Forbidden"}, "403 Forbidden", False),
        ({"status": 503, "message": "Down"}, "503 Down", True),
    ],
)
def test_what_never_works_is_told_at_the_end(
    fault: dict, says: str, patient: bool, hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    hub.fail(".*/preupload/", times=-1, **fault)
    folder = saved(1, tmp_path / "model")
    uploader.upload(folder, "Step 1")
    began = time.monotonic()
    (line,) = uploader.close(1.5)
    assert (time.monotonic() - began > 1.4) == patient
    assert line == f"'Step 1' is not on {REPO} ({line.partition('(')[2]}" and says in line
    assert line.endswith(f"hf upload {REPO} {folder} .") and "\n" not in line
    assert steps_on(hub) == []


@pytest.mark.serial
def test_closing_does_not_wait_for_a_connection_that_hangs(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    hub.fail("PUT /large", delay_seconds=2)
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    wait_for(lambda: any(r.startswith("PUT") for r in hub.requests))
    began = time.monotonic()
    assert len(uploader.close(0.2)) == 1 and time.monotonic() - began < 1.5
    assert get_session().timeout.read == hub_uploader.READ_TIMEOUT_SECONDS  # nor does it hang for ever


def test_the_newest_replaces_what_waits_and_order_is_kept(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    go_on = threading.Event()
    hub.fail("POST .*/commit/", until=go_on)
    for step in range(1, 5):
        uploader.upload(saved(step, tmp_path / "model"), f"Step {step}")  # nobody waits for the first
        if step == 1:
            wait_for(lambda: any("/commit/" in r for r in hub.requests))
    assert len(list((tmp_path / "spool").iterdir())) == 2
    go_on.set()
    assert uploader.close() == [] and steps_on(hub) == [1, 4]


def test_an_older_upload_that_fails_does_not_come_after_a_newer_one(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    go_on = threading.Event()
    hub.fail("POST .*/commit/", status=500, until=go_on)
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    wait_for(lambda: any("/commit/" in r for r in hub.requests))
    uploader.upload(saved(2, tmp_path / "model"), "Step 2")
    go_on.set()
    assert uploader.close() == [] and steps_on(hub) == [2]


def test_one_that_is_refused_does_not_hold_up_the_other(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "optimiser.bin").write_bytes(bytes(30_000))
    hub.fail(".*/objects/batch", times=-1, status=413, message="too large")
    uploader.upload(tmp_path / "state", "State 1", "training")
    wait_for(lambda: any("/objects/batch" in r for r in hub.requests))
    hub.recover()
    hub.fail("POST .*/commit/", times=-1, status=413, message="too large")
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    lines = uploader.close(10)
    assert len(lines) == 2 and "State 1" in "".join(lines) and lines[0].endswith(("training", "."))


def test_a_snapshot_does_not_change_with_its_folder(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path
) -> None:
    uploader.start()
    hub.down()
    folder = tmp_path / "state"
    (folder / "below").mkdir(parents=True)
    (folder / "step.json").write_text("1")
    (folder / "below" / "large.bin").write_bytes(b"1" * (2 << 20))
    uploader.upload(folder, "State 1", "training")
    linked = next((tmp_path / "spool").rglob("large.bin"))
    assert linked.samefile(folder / "below" / "large.bin")  # nothing was copied
    (folder / "step.json").write_text("2")  # in place, as a small file may be
    (folder / "new").write_bytes(b"2" * (2 << 20))
    os.replace(folder / "new", folder / "below" / "large.bin")
    shutil.rmtree(folder)
    hub.up()
    assert uploader.close(10) == []
    files = hub.model().head.files
    assert files["training/step.json"].content == b"1"
    assert files["training/below/large.bin"].content == b"1" * (2 << 20)


def test_a_disk_that_is_full_costs_an_upload_only(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploader.start()
    folder = saved(1, tmp_path / "model")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(hub_uploader.shutil, "copyfile", full)
        uploader.upload(folder, "Step 1")
        uploader.upload(tmp_path / "nowhere", "Step 2", "training")
    lines = uploader.close()
    assert "No space left" in lines[0] and "is empty" in lines[1]


def test_a_panic_of_the_client_is_no_end(
    hub: HubStandIn, uploader: HubUploader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Panic(BaseException):
        pass

    uploader.start()
    calls = []

    def panics_once(*arguments: str) -> str:
        calls.append(arguments)
        if len(calls) == 1:
            raise Panic("index out of bounds")
        return commit_folder(*arguments)

    monkeypatch.setattr(hub_uploader, "commit_folder", panics_once)
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    assert uploader.close() == [] and steps_on(hub) == [1] and len(calls) == 2


def test_large_files_go_in_parts(hub: HubStandIn, uploader: HubUploader, tmp_path: Path) -> None:
    hub.part_bytes = 7000
    uploader.start()
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    assert uploader.close() == [] and steps_on(hub) == [1]
    assert sum(r.startswith("PUT") for r in hub.requests) > 2


def test_leftovers_of_a_killed_run_go(hub: HubStandIn, uploader: HubUploader, tmp_path: Path) -> None:
    (tmp_path / "spool" / "old").mkdir(parents=True)
    uploader.start()
    assert list((tmp_path / "spool").iterdir()) == []
    assert uploader.close() == [] and not any(t.name == "hub-uploader" for t in threading.enumerate())


# going on from the Hub


def test_the_state_of_a_run_comes_back(hub: HubStandIn, uploader: HubUploader, tmp_path: Path) -> None:
    uploader.start()
    first = tmp_path / "checkpoint-000001"
    first.mkdir()
    (first / "training.json").write_text('{"step": 1}')
    (first / "random_state_1.bin").write_bytes(bytes(30_000))
    uploader.upload(first, "State of step 1", "training")
    uploader.upload(saved(1, tmp_path / "model"), "Step 1")
    wait_for(lambda: len(hub.model().commits) == 3)
    (first / "random_state_1.bin").unlink()  # by fewer processes
    (first / "training.json").write_text('{"step": 2}')
    uploader.upload(first, "State of step 2", "training")
    assert uploader.close() == []

    state = download_state(REPO)
    assert {p.name for p in state.iterdir()} == {"training.json"}
    assert json.loads((state / "training.json").read_text()) == {"step": 2}
    older = hub.model().commits[1].sha
    for earlier in (download_state(REPO, older), download_state(f"{REPO}@{older}")):
        assert json.loads((earlier / "training.json").read_text()) == {"step": 1}
        assert (earlier / "random_state_1.bin").stat().st_size == 30_000
    assert steps_on(hub)[-1] == 1  # the model stayed beside it


def test_states_that_are_not_there(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    model_of(1).push_to_hub(REPO)
    with pytest.raises(InputError, match=f"it has no folder training/.*`start: {REPO}`"):
        download_state(REPO)
    with pytest.raises(InputError, match="there is no such repository"):
        download_state("somebody/else")
    with pytest.raises(InputError, match="there is no such revision"):
        download_state(f"{REPO}@nowhere")
    with pytest.raises(InputError, match="not the name of one"):
        download_state("latest")
    hub.down()
    with pytest.raises(InputError, match="cannot be downloaded"):
        download_state("somebody/third")
    hub.up()
