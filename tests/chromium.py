"""Browser driver for tests: headless Chromium without a network, driven through DevTools over a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run --no-default-browser-check --disable-dev-shm-usage --hide-scrollbars "
    "--autoplay-policy=no-user-gesture-required --remote-debugging-pipe"
)
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


def chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Tab:
    """One page in the browser."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd, self.buffer = read_fd, write_fd, b""
        self.last_id, self.session, self.events = 0, "", []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params) -> dict:
        """Send a DevTools command, return its result; what happens meanwhile goes to `events`."""
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(30)
            if answer.get("id") == self.last_id:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, seconds: float) -> dict:
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_fd], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self.read_fd, 1 << 20)
            assert piece, "the browser has ended"
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        if "id" not in message:
            self.events.append(message)
        return message

    def open(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show an address in a window of a size."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)

    def run(self, script: str):
        """Value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"this did not become true: {script}"
            time.sleep(0.1)
        return value

    def press(self, text: str) -> None:
        """Click the button with a text."""
        button = (
            f"[...document.querySelectorAll('button')].find(b => b.innerText.trim() === {json.dumps(text)})"
        )
        self.wait(f"!!{button}")
        self.run(f"{button}.click()")

    def choose_files(self, selector: str, *paths: Path) -> None:
        """Give files to an upload field."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"no {selector}"
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(p) for p in paths])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Save a picture of the page."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def requested(self) -> list[str]:
        """Addresses that the page has asked for so far."""
        sent = (e for e in self.events if e["method"] == "Network.requestWillBeSent")
        return [e["params"]["request"]["url"] for e in sent]

    def complaints(self) -> list[str]:
        """Errors in the page's scripts so far."""
        thrown = (e for e in self.events if e["method"] == "Runtime.exceptionThrown")
        return [json.dumps(e["params"]["exceptionDetails"]) for e in thrown]


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """A browser with a profile of its own; one that hangs while it starts, as on a busy machine, is started again."""
    process, tab = _start(profile)
    if tab is None:
        process, tab = _start(profile)
    assert tab is not None, "the browser does not answer"
    try:
        yield tab
    finally:
        os.close(tab.write_fd)
        os.close(tab.read_fd)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _start(profile: Path) -> tuple[subprocess.Popen, Tab | None]:
    """A browser, and its page; None: it did not answer, and was ended."""
    (to_read, to_browser), (from_browser, to_write) = os.pipe(), os.pipe()

    def as_3_and_4() -> None:  # where --remote-debugging-pipe looks
        spare = os.dup(to_write), os.dup(to_read)
        os.dup2(spare[1], 3)
        os.dup2(spare[0], 4)

    command = [str(chromium()), *FLAGS.split(), OFFLINE, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=as_3_and_4, close_fds=False, stderr=subprocess.DEVNULL, start_new_session=True
    )
    os.close(to_read)
    os.close(to_write)
    try:
        return process, Tab(from_browser, to_browser)
    except AssertionError:
        os.killpg(process.pid, 9)
        process.wait()
        os.close(to_browser)
        os.close(from_browser)
        return process, None
