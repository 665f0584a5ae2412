"""Tests of the page's history: what browsers hand back is not believed; a visit with a reload, in a real browser."""

import json
import os
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from chromium import Tab, browser, chromium
from toy import save_speech

from sdtalk.demo.controls import lay_out_controls
from sdtalk.demo.history import History, lay_out_missing
from sdtalk.demo.inputs import Given
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.demo.remembered import (
    FORGOTTEN_AFTER_S,
    MOST_RESULTS,
    REMEMBERED,
    Result,
    kept_file,
    read_inputs,
    read_results,
    written,
)
from sdtalk.demo.result_cards import WORDS, differences, list_markup
from sdtalk.demo.service import TalkService
from sdtalk.demo.stage import Stage
from sdtalk.demo.video_job import Outcome, VideoJob
from sdtalk.video import open_writer
from sdtalk.weights.assets import example

PORTRAIT = example("eileen_collins.png")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server keeps uploads and results."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path / "gradio"


def put(folder: Path, name: str, where: str = "0123456789abcdef") -> str:
    (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / where / name).write_bytes(b"1")
    return str(folder / where / name)


def test_only_files_of_the_page_and_of_the_right_kind_are_taken(folder: Path, tmp_path: Path) -> None:
    video, image = put(folder, "talking.mp4"), put(folder, "ann.jpg")
    secret = put(tmp_path, "secret.mp4", "private")
    (folder / "0123456789abcdef" / "link.mp4").symlink_to(secret)
    (tmp_path / "loose.mp4").write_bytes(b"1")
    (folder / "way").symlink_to(tmp_path / "private")
    assert kept_file(video, ("video/",)) == video and kept_file(image, ("image/",)) == image
    forged: list[Any] = [
        secret,
        f"{folder}/0123456789abcdef/../../private/secret.mp4",
        f"{folder}/../private/secret.mp4",
        f"{folder}/../loose.mp4",
        f"{folder}/way/secret.mp4",
        f"{folder}/0123456789abcdef/link.mp4",
        os.path.relpath(video),
        put(folder, "deep.mp4", "0123456789abcdef/deeper"),
        put(folder, ".hidden.mp4"),
        image,
        str(folder / "0123456789abcdef"),
        f"{video}\0",
        "http://example.com/a.mp4",
        "x" * 100000,
        {"path": video},
        7,
        None,
    ]
    assert not [path for path in forged if kept_file(path, ("video/",)) is not None]
    assert kept_file(put(folder, "drawn.svg"), ("image/",)) is None, "Gradio would read its markup"
    os.remove(video)
    assert kept_file(video, ("video/",)) is None


def result(number: int, folder: Path, **given: Any) -> Result:
    return Result(number, put(folder, "talking.mp4", f"{number:016x}"), time.time(), 1.5, given)


def test_what_is_kept_comes_back_and_nothing_else_does(folder: Path) -> None:
    now, results = time.time(), [result(n, folder, pose="still", seed=n) for n in (3, 2, 1)]
    assert read_results(written(results), now) == results == read_results(written(results[::-1]), now)
    many = [result(n, folder) for n in range(1, MOST_RESULTS + 5)]
    assert [one.number for one in read_results(written(many), now)] == [*range(MOST_RESULTS + 4, 4, -1)]
    assert read_results(written(results), now + FORGOTTEN_AFTER_S + 1) == []
    good = written(results[:1])[0]
    wrong = [
        *({**good, "number": number} for number in (0, -1, 1e9, True, "1", None, float("nan"))),
        *({**good, "seconds": seconds} for seconds in ("1", -1, float("inf"), None)),
        *({**good, "video": video} for video in (None, 3, "x" * 100000)),
        *({**good, "made_at": at} for at in ("now", -1, 1e30)),
        *([], "", None, 3),
    ]
    assert read_results(wrong, now) == [] and read_results(None, now) == read_results({"a": 1}, now) == []
    assert read_inputs({"consent": True, "by_program": True, "portrait": ["a"], "mouth": float("nan")}) == {}
    assert "consent" not in REMEMBERED and set(Given.names()) - set(REMEMBERED) == {"consent", "by_program"}


@pytest.fixture(scope="module")
def laid_out() -> tuple[History, Stage, dict[str, Any]]:
    """A page's controls without a server."""
    with gr.Blocks(analytics_enabled=False):
        controls = lay_out_controls(["mini"])
        controls |= {name: gr.Textbox() for name in ("portrait", "speech", "consent")}
        controls |= {
            "face": gr.Radio([("largest", 0), ("1", 1), ("2", 2)], value=0),
            "wanted_face": gr.State(),
        }
        return History.laid_out(lay_out_missing(), 1500, 30), Stage.laid_out(), controls


def test_options_come_back_only_as_their_controls_could_send_them(
    laid_out: tuple[History, Stage, dict[str, Any]], folder: Path
) -> None:
    history, _, controls = laid_out
    portrait = put(folder, "ann.jpg")
    kept = {"portrait": portrait, "speech": "/etc/passwd", "mouth": 1.5, "face": 2, "background": "colour"}
    updates, lost = history.back({**kept, "colour": "#102030", "seed": 7.0}, controls)
    back = {name: updates[controls[name]] for name in REMEMBERED}
    assert back["speech"] is None
    assert (back["portrait"], back["mouth"], back["colour"], back["seed"]) == (portrait, 1.5, "#102030", 7)
    assert updates[controls["wanted_face"]] == (portrait, 2) and updates[controls["preset"]] is None
    assert "Speech" in lost["value"] and "passwd" not in lost["value"]
    forged = {
        "mouth": 3,
        "pose": "/etc/passwd",
        "colour": "/etc/passwd",
        "seed": -1,
        "model": "../x",
        "face": 9,
    }
    updates, _ = history.back(forged, controls)
    assert all(updates[controls[name]] == controls[name].value for name in forged)
    assert updates[controls["preset"]] == "natural"


def test_a_list_says_what_results_were_made_of(
    laid_out: tuple[History, Stage, dict[str, Any]], folder: Path
) -> None:
    _, _, controls = laid_out
    plain = {"portrait": "/x/<b>ann.jpg", "speech": "/x/hello.wav"}
    assert differences(plain, controls) == []
    assert differences({**plain, "mouth": 1.5, "yaw": 10, "colour": "#000000"}, controls) == [
        "Mouth: 1.5",
        "Left to right: 10",
    ]
    lively = {"motion": 1.4, "style": "lively"}
    assert not [line for line in differences(lively, controls) if line.startswith("Preset")]
    lost = result(2, folder, **plain)
    os.remove(lost.video)
    markup = list_markup([lost, result(1, folder, **plain)], controls, 1500)
    assert markup.count("<video") == 1 and WORDS["gone"] in markup and "<b>" not in markup
    assert markup.count('data-action="remove"') == 2 and markup.count('data-action="play"') == 1


def test_clicks_are_not_believed_either(
    laid_out: tuple[History, Stage, dict[str, Any]], folder: Path
) -> None:
    history, stage, controls = laid_out
    listed = written([result(2, folder), result(1, folder)])

    def asked(wish: Any, results: Any = listed) -> dict:
        return history.asked(wish, results, stage, controls)

    assert asked({"action": "play", "number": 1})[stage.result]["value"] == listed[1]["video"]
    assert [one["number"] for one in asked({"action": "remove", "number": 2})[history.results]] == [1]
    for wish in (None, [], "play", {"action": "play"}, {"action": "play", "number": [1]}, {"number": 1}):
        assert asked(wish) == {}
    forged = [{**listed[0], "video": "/etc/passwd"}, {**listed[1], "video": str(PORTRAIT)}]
    for number in (1, 2):
        answer = asked({"action": "play", "number": number}, forged)
        assert stage.result not in answer and "<video" not in answer[history.cards]
    assert asked({"action": "check", "shown": 2}) == {}
    os.remove(listed[0]["video"])
    assert asked({"action": "check", "shown": 2})[history.cards].count("<video") == 1
    assert [one["number"] for one in history.added(None, listed, controls).get(history.results, [])] == []
    made = {"video": listed[1]["video"], "made_at": time.time(), "seconds": 1.0, "given": {"consent": True}}
    new = history.added(made, listed, controls)[history.results]
    assert [one["number"] for one in new] == [3, 2, 1] and new[0]["given"] == {}


@pytest.fixture
def page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    """A page whose videos are grey, lighter each time."""
    shades = count(50, 50)

    def make(service: TalkService, job: VideoJob, progress: object) -> Outcome:
        with open_writer(job.video, (64, 64)) as writer:
            writer.write_all(np.full((15, 64, 64, 3), next(shades), np.uint8))
        return Outcome()

    monkeypatch.setattr(TalkService, "make", make)
    page = build(ModelCache({"mini": ""}))
    page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    yield page
    page.close()


GIVEN = "!!document.querySelector('#portrait img') && !!document.querySelector('#speech .play-pause-button')"
SAVED = "localStorage.getItem('sdtalk-inputs')"
FOCUSED = "(b => [b.closest('.result')?.dataset.number, b.dataset.action])(document.activeElement)"


def click(tab: Tab, number: int, action: str) -> None:
    button = f"document.querySelector('.result[data-number=\"{number}\"] [data-action={action}]')"
    tab.run(f"{button}.focus()")
    tab.run(f"{button}.click()")


def listed(number: int) -> str:
    return f"[...document.querySelectorAll('.result')].map(r => r.dataset.number).join() == '{number}'"


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_a_visit_with_a_reload(page: gr.Blocks, folder: Path, tmp_path: Path) -> None:
    word = save_speech(tmp_path / "word.wav", 0.6)
    with browser(tmp_path / "profile") as tab:
        tab.open(page.local_url)
        tab.wait("window.sdtalkRestored && !!document.querySelector('#portrait input[type=file]')")
        tab.choose_files("#portrait input[type=file]", PORTRAIT)
        tab.choose_files("#speech input[type=file]", word)
        tab.wait(GIVEN)
        tab.run("document.querySelector('#consent input').click()")
        tab.press("4. Generate")
        tab.wait(listed("1"))
        click(
            tab, 1, "compare"
        )  # beside its photo; and the focus stays where it is when another result comes
        tab.wait("(i => !i.hidden && i.naturalWidth > 0)(document.querySelector('#comparison img'))")
        before = tab.run(SAVED)
        tab.run("document.querySelector('#preset input[value=still]').click()")
        tab.wait(f"{SAVED} !== {json.dumps(before)}")  # the options have come, and are kept
        tab.press("4. Generate")
        tab.wait("document.querySelectorAll('.result').length == 2")
        assert tab.run("document.querySelector('.result .facts').innerText").endswith("Preset: Still")
        assert tab.run(FOCUSED) == ["1", "compare"]
        _compares(tab)
        (portrait,) = folder.glob(f"*/{PORTRAIT.name}")
        touched = portrait.stat().st_ctime

        tab.open(page.local_url)
        tab.wait("window.sdtalkRestored && document.querySelectorAll('.result').length == 2")
        tab.wait(GIVEN)
        assert tab.run("document.querySelector('#preset input:checked').value") == "still"
        assert not tab.run("document.querySelector('#consent input').checked"), "consent is never kept"
        tab.press("4. Generate")
        tab.wait("document.querySelector('#message').innerText.startsWith('3. Consent')")
        click(tab, 1, "again")
        tab.wait("document.querySelector('#preset input:checked').value == 'natural'")
        click(tab, 1, "play")
        tab.wait("(v => v && v.readyState >= 2)(document.querySelector('#result video'))")
        assert portrait.stat().st_ctime == touched, "a reload keeps no file longer"

        os.remove(tab.run("document.querySelector('.result[data-number=\"1\"] video').dataset.path"))
        click(tab, 1, "play")
        tab.wait("document.querySelectorAll('.gone').length == 1")
        click(tab, 1, "remove")
        tab.wait(listed("2"))
        tab.wait("document.activeElement.id == 'history-title'")
        tab.press("Forget everything")
        tab.wait(
            "!document.querySelector('.result') && !document.querySelector('#speech .play-pause-button')"
        )
        tab.open(page.local_url)
        tab.wait("window.sdtalkRestored && !!document.querySelector('#portrait input[type=file]')")
        assert not tab.run("!!document.querySelector('.result, #portrait img')")
        assert tab.complaints() == []


def _compares(tab: Tab) -> None:
    """The first result, which is compared already, and the second play as one."""
    click(tab, 2, "compare")
    players = "[...document.querySelectorAll('#comparison video')]"
    tab.wait(f"{players}.every(v => !v.hidden && v.readyState >= 2)")
    assert tab.run(f"{players}.map(v => v.muted)") == [False, True]
    tab.run("document.querySelectorAll('#comparison input[type=radio]')[1].click()")
    assert tab.run(f"{players}.map(v => v.muted)") == [True, False]
    slider = "document.querySelector('#comparison [type=range]')"
    tab.run(f"(s => {{s.value = 0.2; s.dispatchEvent(new Event('input'))}})({slider})")
    assert tab.run(f"{players}.every(v => Math.abs(v.currentTime - 0.2) < 0.03)")
    tab.run("document.querySelector('#comparison .toggle').click()")
    tab.wait(f"{players}.every(v => v.ended || v.currentTime > v.duration - 0.05)")
    tab.wait("document.querySelector('#comparison .toggle').innerText == 'Play'")
    tab.run("document.querySelector('#comparison .close').click()")
    assert tab.run("document.querySelector('#comparison section').hidden")
    assert tab.run(FOCUSED) == ["2", "compare"]
