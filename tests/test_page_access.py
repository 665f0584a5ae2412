"""Tests that the page is for everybody, in a real browser: the keyboard alone, languages, contrast, sizes, names."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
import torch
from chromium import Tab, browser, chromium
from toy import save_speech

from scripts.page_check import PageCheck, unfold
from sdtalk import SDTalkPipeline
from sdtalk.config import SDTalkConfig
from sdtalk.demo.model_cache import ModelCache
from sdtalk.demo.page import LAUNCH_OPTIONS, build
from sdtalk.model import SDTalk
from sdtalk.tracking.tracker import Tracker

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

AXE = os.environ.get("SDTALK_AXE")
"""axe.min.js of the npm package axe-core, which is not part of this repository; see scripts/page_check.py."""

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}
FOCUSED = """
(() => {
  const element = document.activeElement, {width, height} = element.getBoundingClientRect();
  return {
    words: (element.getAttribute("aria-label") ?? element.labels?.[0]?.innerText ?? element.innerText).trim(),
    page: element === document.body,  // behind the last one
    box: element.closest("[id]:not([id^=component])")?.id ?? "",
    seen: width > 1 && height > 1 && getComputedStyle(element).outlineStyle === "solid",
  };
})()
"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Tab]:
    """A browser that asks for German, and where it finds the page."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(place / "gradio"))
        patch.setattr(tempfile, "tempdir", str(place))
        pipeline = SDTalkPipeline(SDTalk(SDTalkConfig()).eval().requires_grad_(False), Tracker.from_bundled())
        page: gr.Blocks = build(ModelCache.of_one(pipeline))
        page.queue().launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
        with browser(place / "profile") as opened:
            agent = opened.run("navigator.userAgent")
            opened.call("Network.setUserAgentOverride", userAgent=agent, acceptLanguage="de-CH")
            opened.open(page.local_url, 390, 844)
            yield opened
        page.close()


def press(tab: Tab, key: str) -> None:
    number, text = KEYS[key]
    pressed = {"key": key, "windowsVirtualKeyCode": number}
    tab.call("Input.dispatchKeyEvent", type="keyDown", text=text, **pressed)
    tab.call("Input.dispatchKeyEvent", type="keyUp", **pressed)


def go_to(tab: Tab, words: str, box: str = "") -> None:
    """Press Tab until something is focused; whatever is focused on the way has a name, and can be seen."""
    for _ in range(60):
        press(tab, "Tab")
        focused = tab.run(FOCUSED)
        if words in focused["words"] and focused["box"].startswith(box):
            return
        assert focused["page"] or (focused["words"] and focused["seen"]), focused
    raise AssertionError(f"the keyboard does not get to {words}")


def test_a_visitor_with_a_keyboard_who_reads_german(tab: Tab, tmp_path: Path) -> None:
    tab.wait("!!document.querySelector('#voices .gallery-item')")
    assert tab.run("document.documentElement.lang") == "de"
    tab.wait(
        "[...document.querySelectorAll('nav a')].map(a => a.innerText) == 'Ein Foto spricht,Video synchronisieren'"
    )
    go_to(tab, "Eileen Collins", "portraits")
    press(tab, "Enter")
    tab.wait("!!document.querySelector('#portrait img')")
    tab.choose_files("#speech input[type=file]", save_speech(tmp_path / "word.wav", 0.4))
    tab.wait("!!document.querySelector('#speech .play-pause-button')")
    status = "document.querySelector('#status[aria-live=polite]').innerText"
    tab.wait(f"/^1 s Aufnahme: Das Video braucht etwa/.test({status})")
    go_to(tab, "4. Erzeugen")
    press(tab, "Enter")
    tab.wait(
        "document.querySelector('#message [role=alert]')?.innerText.startsWith('3. Zustimmung: sie fehlt noch.')"
    )
    tab.run("document.activeElement.blur()")
    go_to(tab, "3. Die gezeigte Person", "consent")
    press(tab, " ")
    go_to(tab, "4. Erzeugen")
    press(tab, "Enter")
    tab.wait("(v => v && v.readyState >= 2)(document.querySelector('#result video'))")
    tab.wait(f"{status}.startsWith('Fertig: 1 s Video in')")
    tab.wait("document.activeElement.innerText === '4. Erzeugen'")
    go_to(tab, "Herunterladen")
    names = tab.run(
        "[...document.querySelectorAll('fieldset')].map(f => f.ariaLabel ?? f.querySelector('legend').innerText)"
    )
    assert all(names) and "Voreinstellung" in names
    assert tab.complaints() == []


@pytest.mark.parametrize("page", ["", "dub"])
def test_everything_can_be_read_and_hit(tab: Tab, page: str, tmp_path: Path) -> None:
    check = PageCheck(tab, views=((1440, "light"), (390, "dark")))
    if page:
        tab.open(tab.run("location.origin") + f"/{page}", 1440)
        tab.wait("!!document.querySelector('#consent input')")
    unfold(tab)
    check.look("open")
    assert not check.faults


@pytest.mark.skipif(AXE is None, reason="axe-core is not here: SDTALK_AXE is the path of its axe.min.js")
def test_axe_finds_nothing(tab: Tab) -> None:
    check = PageCheck(tab, Path(str(AXE)).read_text(encoding="utf-8"), views=((390, "light"), (1440, "dark")))
    check.look("dub")
    assert not check.faults
