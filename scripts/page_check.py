"""Page check: is the page for everybody? Measures contrast, sizes and order, and asks axe-core, in a real browser.

    npm pack axe-core && tar xzf axe-core-*.tgz
    python scripts/page_check.py --axe package/axe.min.js --shots outputs/shots

Walks through both pages, light and dark, at three widths: as they are at first, with all options open, with an error,
and with a result. Ends with 1 where something is wrong. Needs Chromium, and nothing from the internet; axe-core
(MPL-2.0) is not part of this repository, and without it only the measures of scripts/page_check.js are taken.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Tab, browser  # noqa: E402 - the browser driver of the tests

VIEWS = tuple((width, theme) for width in (1440, 820, 390) for theme in ("light", "dark"))
"""Widths of the window in px, and themes."""

MEASURES = (ROOT / "scripts" / "page_check.js").read_text(encoding="utf-8")
STILL = {"name": "prefers-reduced-motion", "value": "reduce"}
ASK_AXE = """
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations.flatMap(
  ({id, impact, nodes}) => nodes.map(({target, any, all}) =>
    `${impact} ${id}: ${target.join(" ")} ${(any[0] ?? all[0])?.message ?? ""}`)))
"""
DRAWN = """
new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => done(true))), 250))
"""
"""Colours and places need a moment to change."""


class PageCheck:
    """Looks at what a tab shows.

    Attributes:
        faults: What is wrong, and where it was seen.
    """

    def __init__(
        self,
        tab: Tab,
        axe: str = "",
        shots: Path | None = None,
        views: Sequence[tuple[int, str]] = VIEWS,
    ) -> None:
        """Look at nothing yet.

        Args:
            tab: The browser's tab.
            axe: Source of axe-core; "": it is not asked.
            shots: Folder for screenshots.
            views: Of VIEWS, those at which to look.
        """
        self.tab, self.axe, self.shots, self.views = tab, axe, shots, views
        self.faults: dict[str, set[str]] = {}

    def look(self, state: str) -> None:
        """Look at what is shown now.

        Args:
            state: What to call it.
        """
        for width, theme in self.views:
            self._as_seen(width, theme)
            name = f"{state} {width} {theme}"
            for fault in self.tab.run(MEASURES) + self._axe():
                self.faults.setdefault(fault, set()).add(name)
            if self.shots:
                self.tab.screenshot(self.shots / f"{name.replace(' ', '_')}.png")
        self._as_seen(*VIEWS[0])

    def _as_seen(self, width: int, theme: str) -> None:
        """Change window and theme without losing what the page shows."""
        size = {"width": width, "height": 844 if width < 600 else 900, "deviceScaleFactor": 1}
        self.tab.call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": theme}
        self.tab.call("Emulation.setEmulatedMedia", features=[scheme, STILL])
        self.tab.run(f"document.body.classList.toggle('dark', {json.dumps(theme == 'dark')})")
        self.tab.run(DRAWN)

    def _axe(self) -> list[str]:
        if not self.axe:
            return []
        if not self.tab.run("!!window.axe"):
            self.tab.call("Runtime.evaluate", expression=self.axe)
        return self.tab.run(ASK_AXE)


def unfold(tab: Tab) -> None:
    """Open everything that is folded."""
    folded = "[...document.querySelectorAll('button.label-wrap:not(.open)')].filter(b => b.checkVisibility())"
    while tab.run(f"{folded}.length"):
        tab.run(f"{folded}.forEach(b => b.click())")
        tab.run("new Promise((done) => setTimeout(done, 400))")


def give_examples(tab: Tab, page: str) -> None:
    """Give a page what it needs of the examples, and consent."""
    if page == "main":
        tab.run("document.querySelector('#portraits .gallery-item').click()")
        tab.wait("!!document.querySelector('#portrait img')")
        tab.run("document.querySelector('#voices .gallery-item').click()")
    else:
        tab.choose_files("#clip input[type=file]", ROOT / "examples" / "eileen_collins.mp4")
        tab.wait("!!document.querySelector('#clip video')")
        tab.choose_files("#speech input[type=file]", ROOT / "examples" / "picture_english.mp3")
    tab.wait("!!document.querySelector('#speech .play-pause-button')")
    tab.run("document.querySelector('#consent input').click()")


def walk(check: PageCheck, url: str) -> None:
    """Bring both pages into all states, and look at each.

    Args:
        check: Looks.
        url: Of the page.
    """
    tab, generate = check.tab, "document.querySelector('button.primary').click()"
    for page in ("main", "dub"):
        tab.open(url if page == "main" else f"{url}dub", VIEWS[0][0])
        tab.wait("!!document.querySelector('#consent input')")
        tab.wait("!!document.querySelector('#voices .gallery-item')" if page == "main" else "true")
        tab.run("document.fonts.ready.then(() => true)")
        check.look(f"{page}-fresh")
        tab.run(generate)
        tab.wait("!!document.querySelector('#message [role=alert]')")
        check.look(f"{page}-error")
        unfold(tab)
        check.look(f"{page}-open")
        give_examples(tab, page)
        tab.run(generate)
        tab.wait("(v => v && v.readyState >= 2)(document.querySelector('#result video'))", 180)
        check.look(f"{page}-result")


@contextmanager
def served() -> Iterator[str]:
    """The page of the model in this package; yields its address."""
    from sdtalk.demo.launch import make_page
    from sdtalk.demo.page import LAUNCH_OPTIONS

    page = make_page([], "cpu")
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **LAUNCH_OPTIONS)
    try:
        yield page.local_url
    finally:
        page.close(verbose=False)


def main() -> int:
    """Check the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axe", type=Path, help="axe.min.js of the npm package axe-core")
    parser.add_argument("--language", default="en", help="language the browser asks for, such as de")
    parser.add_argument("--shots", type=Path, help="folder for screenshots")
    options = parser.parse_args()
    axe = options.axe.read_text(encoding="utf-8") if options.axe else ""
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, served() as url, browser(Path(profile)) as tab:
        agent = tab.run("navigator.userAgent")
        tab.call("Network.setUserAgentOverride", userAgent=agent, acceptLanguage=options.language)
        check = PageCheck(tab, axe, options.shots)
        walk(check, url)
    for fault, states in sorted(check.faults.items()):
        print(f"{fault}\n    {', '.join(sorted(states))}")
    print(f"{len(check.faults)} faults" if check.faults else "Nothing is wrong.")
    return 1 if check.faults else 0


if __name__ == "__main__":
    sys.exit(main())
