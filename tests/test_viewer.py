"""Tests of the head viewer, in a real browser without a network: what it draws, and that everybody can use it."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Tab, browser, chromium
from PIL import Image
from test_export import coloured, drawn, head, pipeline, psnr, small_head  # noqa: F401 - fixtures
from torch import Tensor
from toy import save_speech

from sdtalk import SDTalkPipeline
from sdtalk.export import viewer_frame, viewer_page
from sdtalk.export.splats import turned
from sdtalk.gaussians import Gaussians
from sdtalk.head import Head

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here")

SIDE = 256
DRAWN = "(v => v && +v.dataset.drawn > 0)(document.getElementById('view'))"
PICTURE = """(() => {
    const packed = new PackedHead(JSON.parse(document.getElementById('head').textContent));
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = SIDE;
    const drawer = KIND === '2d' ? new Painter(canvas.getContext('2d'), packed)
        : new Drawer(canvas.getContext('webgl2', {antialias: false, depth: false}), packed);
    const viewer = {yaw: YAW, pitch: PITCH};
    drawer.draw(Viewer.prototype.view.call(viewer), 1);
    return canvas.toDataURL();
})()"""


@pytest.fixture(scope="module")
def tab(
    pipeline: SDTalkPipeline,  # noqa: F811
    head: Head,  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tab]:
    """The viewer of a head that hums for a second, for somebody who wants no motion."""
    folder = tmp_path_factory.mktemp("viewer")
    talk = pipeline.talk(head, save_speech(folder / "hum.wav", 1.0))
    (folder / "page.html").write_text(viewer_page(talk), encoding="utf-8")
    with browser(folder / "profile") as tab:
        calm = {"name": "prefers-reduced-motion", "value": "reduce"}
        tab.open("about:blank", 500, 560)
        tab.call("Emulation.setEmulatedMedia", features=[calm])
        tab.call("Page.navigate", url=(folder / "page.html").as_uri())
        tab.wait(DRAWN)
        yield tab
        assert tab.complaints() == []
        asked = {url.partition(":")[0] for url in tab.requested()}
        assert "file" in asked and asked <= {"about", "file", "data", "blob"}


def picture(tab: Tab, kind: str, yaw: float, pitch: float) -> Tensor:
    """What the viewer draws, over white."""
    values = {"SIDE": SIDE, "KIND": json.dumps(kind), "YAW": yaw, "PITCH": pitch}
    script = PICTURE
    for name, value in values.items():
        script = script.replace(name, str(value))
    data = base64.b64decode(tab.run(script).partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        rgba = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1) / 255
    return rgba[:3] * rgba[3:] + 1 - rgba[3:]


@pytest.mark.parametrize(("kind", "yaw", "pitch"), [("2d", 0, 0), ("2d", -25, 10), ("webgl2", 20, -10)])
def test_it_draws_what_the_rasteriser_draws(
    tab: Tab,
    head: Head,  # noqa: F811
    coloured: Gaussians,  # noqa: F811
    kind: str,
    yaw: int,
    pitch: int,
) -> None:
    camera = turned(head.gaussians.rest, float(yaw), float(pitch)).resized(SIDE)
    assert psnr(picture(tab, kind, yaw, pitch), drawn(coloured, camera)) > 36


def test_keys_buttons_and_the_mouse_turn_it(tab: Tab) -> None:
    said = "document.getElementById('status').textContent"
    tab.run("document.getElementById('view').focus()")
    for key in ["ArrowRight"] * 2 + ["ArrowDown"]:
        tab.call("Input.dispatchKeyEvent", type="keyDown", key=key)
    assert tab.run(said) == "Turned 10° sideways, 5° up or down"
    for _ in range(20):
        tab.run("document.querySelector('[data-turn]').click()")
    assert tab.run(said) == "Turned -35° sideways, 5° up or down", "farther round it falls apart"
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Home")
    for kind, x in (("mousePressed", 200), ("mouseMoved", 260), ("mouseReleased", 260)):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=200, button="left", buttons=1, clickCount=1)
    tab.wait(f"/^Turned [1-9][0-9]?° sideways, 0°/.test({said})", 5)
    tab.run("document.getElementById('front').click()")
    assert tab.run(said) == "Turned 0° sideways, 0° up or down"


def test_everything_has_a_name_and_a_size(tab: Tab) -> None:
    lacking = (
        "[...document.querySelectorAll('button, canvas')].filter(e => !(e.ariaLabel || e.innerText.trim()))"
    )
    assert tab.run(f"{lacking}.length") == 0
    box = "e.getBoundingClientRect()"
    small = f"[...document.querySelectorAll('button')].filter(e => {box}.width < 24 || {box}.height < 24)"
    assert tab.run(f"{small}.length") == 0
    words = tab.run("Object.values(LANGUAGES).map(words => Object.keys(words).join())")
    assert len(words) == 6 and len(set(words)) == 1


def test_it_speaks_when_asked_and_stops_at_the_end(tab: Tab) -> None:
    number = "+document.getElementById('view').dataset.drawn"
    before = tab.run(number)
    assert tab.run("document.getElementById('play').textContent") == "Play", "nothing moves by itself"
    tab.run("document.getElementById('play').click()")
    assert tab.run("document.getElementById('play').textContent") == "Pause"
    tab.wait("document.getElementById('play').textContent === 'Play'", 30)
    assert tab.run(number) > before + 1


def test_it_is_part_of_another_page(small_head: Head, tmp_path: Path) -> None:  # noqa: F811
    around = f'<body class="dark">{viewer_frame(small_head, 400)}</body>'
    (tmp_path / "around.html").write_text(around, encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open((tmp_path / "around.html").as_uri())
        inside = "document.querySelector('iframe').contentDocument"
        tab.wait("!!document.querySelector('iframe')")
        tab.wait(f"{inside}?.getElementById('view')?.dataset.drawn > 0")
        assert tab.run(f"{inside}.documentElement.className") == "dark"
        assert tab.complaints() == []
