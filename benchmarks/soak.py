"""Soak of the page: `python benchmarks/soak.py --minutes 10` lets three visitors use one server all the time.

One is a browser (where there is Chromium), one a program of Gradio's, one a program of docs/http.md. They ask for
videos, stop them, reload, hang up, send slowly, and send what is none. Every video is looked at: as long as its sound,
and of the person who was sent, as when nobody else was there. At the end no work folder, no place in line and no file
may be left, and memory may not have grown. Prints a table; exit code 1 where something was wrong.
"""

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageOps

from benchmarks.page_memory import PORTRAIT, recording
from sdtalk.cli.bench import resident_mb
from sdtalk.video import probe, read_frames

ROOT = Path(__file__).resolve().parent.parent
LENGTHS_S = (0.6, 1.2, 2.4)
DRIFT_MB, JUDGED_S = 60, 240
"""How much memory may grow from the second quarter to the last, in a run of at least so many seconds."""

FRAME_S = 0.04
PROMISED = {"eileen_collins.png", "sense_and_sensibility.wav"}
"""What Gradio may keep: its copies of the examples."""


@dataclass
class Server:
    """A server of its own process, and what was seen of it."""

    process: subprocess.Popen
    url: str
    folder: Path
    began: float = field(default_factory=time.monotonic)
    memory: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, options: list[str]) -> "Server":
        """Start one, and wait until it is well."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        kept = folder / "kept"
        kept.mkdir()
        given = {"TMPDIR": str(kept), "GRADIO_TEMP_DIR": str(kept / "gradio"), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "sdtalk", "demo", "--device", "cpu", "--port", str(port), *options]
        log = (folder / "log.txt").open("w")
        process = subprocess.Popen(command, env=os.environ | given, stdout=log, stderr=log, cwd=kept)
        server = cls(process, f"http://127.0.0.1:{port}", kept)
        while not server.well():
            assert process.poll() is None, (folder / "log.txt").read_text()
            time.sleep(0.5)
        return server

    def well(self) -> bool:
        """Whether it answers."""
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=30).json()["status"] == "ok"
        return False

    def busy(self) -> int:
        """How many wait or are served."""
        health = httpx.get(f"{self.url}/health", timeout=30).json()
        return health["working"] + health["waiting"]

    def measure(self) -> None:
        """Note what memory it holds now."""
        self.memory.append((time.monotonic() - self.began, resident_mb(self.process.pid)))

    def end(self) -> list[str]:
        """End it as the system would; the names of the files that it leaves."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return sorted({path.name for path in self.folder.rglob("*") if path.is_file()} - PROMISED)


class Visits:
    """What the visitors have, what they found, and what was wrong."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.distances: list[float] = []
        photo = ImageOps.exif_transpose(Image.open(PORTRAIT)).convert("RGB")
        tinted = Image.fromarray((np.asarray(photo) * (0.6, 0.9, 1.0)).astype(np.uint8))
        self.portraits = {"one": photo, "mirrored": ImageOps.mirror(photo), "tinted": tinted}
        for name, picture in self.portraits.items():
            picture.save(folder / f"{name}.png")
        self.speech = {s: recording(folder / f"{s}.wav", s) for s in LENGTHS_S}
        (folder / "odd.png").write_text("Dear diary")
        (folder / "odd.wav").write_bytes(b"")
        self.alone: dict[str, np.ndarray] = {}

    def portrait(self, name: str) -> Path:
        """The file of a portrait."""
        return self.folder / f"{name}.png"

    def remember_alone(self) -> None:
        """Let everybody's video be made while nobody else is there."""
        for name in self.portraits:
            answer = self.post("talk", name, LENGTHS_S[0])
            self.alone[name] = first_frame(self.folder, answer.content)

    def post(self, what: str, name: str, seconds: float, **options: object) -> httpx.Response:
        """Send an order to the interface of docs/http.md."""
        with self.portrait(name).open("rb") as portrait, self.speech[seconds].open("rb") as speech:
            return httpx.post(
                f"{self.server.url}/api/{what}",
                data={"consent": "true", "frame": "full"},
                files={"portrait": portrait, "speech": speech},
                timeout=options.get("timeout", 600),  # type: ignore[arg-type]
            )

    def check(self, video: bytes, name: str, seconds: float, who: str) -> None:
        """Look at a video: its length, and who is in it."""
        path = self.folder / f"{threading.get_ident()}.mp4"
        path.write_bytes(video)
        length = probe(path).duration or 0.0
        if abs(length - seconds) > FRAME_S:
            self.wrong.append(f"{who}: {length:.2f} s of video for {seconds} s of speech")
        seen = next(iter(read_frames(path))).astype(float)
        far = {other: float(np.abs(seen - frame).mean()) for other, frame in self.alone.items()}
        self.distances.append(far[name])
        if min(far, key=far.__getitem__) != name or far[name] > 1:
            self.wrong.append(f"{who}: {name} was sent, and the frame differs by {far}")
        self.counts[f"{who}: videos"] += 1


def first_frame(folder: Path, video: bytes) -> np.ndarray:
    """The first frame of a video."""
    path = folder / "alone.mp4"
    path.write_bytes(video)
    return next(iter(read_frames(path))).astype(float)


class SlowFile(BytesIO):
    """A file from a slow line."""

    def read(self, size: int | None = -1) -> bytes:
        """A piece, after a while."""
        time.sleep(0.1)
        return super().read(size)


def api_visitor(visits: Visits, chance: random.Random) -> None:
    """One visit of a program as in docs/http.md."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    what = chance.choice(("talk", "job", "deleted", "hung up", "slow", "odd"))
    url = f"{visits.server.url}/api"
    if what == "talk":
        visits.check(visits.post("talk", name, seconds).content, name, seconds, "api")
    elif what in ("job", "deleted"):
        told = visits.post("jobs", name, seconds).json()
        while what == "job" and told["state"] in ("waiting", "working"):
            time.sleep(0.3)
            told = httpx.get(f"{url}/jobs/{told['id']}", timeout=60).json()
        if what == "job":
            video = httpx.get(f"{url}/jobs/{told['id']}/video", timeout=60).content
            visits.check(video, name, seconds, "api")
        else:
            time.sleep(chance.uniform(0, 3))
        assert httpx.delete(f"{url}/jobs/{told['id']}", timeout=60).status_code == 204
    elif what == "hung up":
        with suppress(httpx.ReadTimeout):
            visits.post("talk", name, seconds, timeout=chance.uniform(0.2, 2.0))
    elif what == "slow":
        slow = SlowFile(visits.portrait(name).read_bytes())
        files = {"portrait": ("slow.png", slow), "speech": ("s.wav", visits.speech[seconds].read_bytes())}
        sent = {"consent": "true", "frame": "full"}
        answer = httpx.post(f"{url}/talk", data=sent, files=files, timeout=600)
        visits.check(answer.content, name, seconds, "api")
    else:
        files = {"portrait": (visits.folder / "odd.png").read_bytes(), "speech": b"none"}
        answer = httpx.post(f"{url}/talk", data={"consent": "true"}, files=files, timeout=60)
        assert answer.status_code == 422 and answer.json()["parameter"], answer.text
    visits.counts[f"api: {what}"] += 1


def gradio_visitor(visits: Visits, chance: random.Random) -> None:
    """One visit of a program of Gradio's."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    odd = chance.random() < 0.3
    downloads = visits.folder / "downloads"
    client = Client(visits.server.url, verbose=False, download_files=downloads, analytics_enabled=False)
    portrait = visits.folder / "odd.png" if odd else visits.portrait(name)
    speech = visits.folder / "odd.wav" if odd and chance.random() < 0.5 else visits.speech[seconds]
    given = {"portrait": handle_file(portrait), "speech": handle_file(speech), "consent": True}
    try:
        video = client.predict(**given, api_name="/generate")[0]
        path = Path(video["video"] if isinstance(video, dict) else video)
        visits.check(path.read_bytes(), name, seconds, "gradio")
    except AppError as error:
        assert odd and "odd" in str(error), error
        visits.counts["gradio: odd"] += 1


def browser_visitor(visits: Visits, chance: random.Random, tab) -> None:
    """One visit of a person."""
    name, seconds = chance.choice(list(visits.portraits)), chance.choice(LENGTHS_S)
    what = chance.choice(("watched", "watched", "stopped", "reloaded", "odd"))
    tab.open(visits.server.url)
    for part, path in (("portrait", visits.portrait(name)), ("speech", visits.speech[seconds])):
        tab.wait(f"!!document.querySelector('#{part} input[type=file]')")
        odd = part == "portrait" and what == "odd"
        tab.choose_files(f"#{part} input[type=file]", visits.folder / "odd.png" if odd else path)
    tab.wait("!!document.querySelector('#speech .play-pause-button')")
    tab.run("document.querySelector('#consent input').click()")
    time.sleep(0.5)
    tab.press("4. Generate")
    if what == "watched":
        tab.wait("!!document.querySelector('#result video')?.src", 600)
        source = tab.run("document.querySelector('#result video').src")
        visits.check(httpx.get(source, timeout=60).content, name, seconds, "page")
    elif what == "stopped":
        time.sleep(chance.uniform(0.5, 2))
        tab.run("[...document.querySelectorAll('button')].find(b => b.innerText.trim() == 'Stop')?.click()")
        line = "document.querySelector('#status .line').innerText"
        tab.wait(f"/^(Stopped|Finished)/.test({line})", 600)
    elif what == "odd":
        tab.wait("!!document.querySelector('#message [role=alert]')", 600)
    else:
        time.sleep(chance.uniform(0, 3))
    assert tab.complaints() == [], tab.complaints()
    visits.counts[f"page: {what}"] += 1


def until(end: float, visits: Visits, visit: Callable[[], None]) -> None:
    """Visit again and again; what goes wrong is written down."""
    while time.monotonic() < end:
        try:
            visit()
        except Exception:
            visits.wrong.append(traceback.format_exc(limit=-2))


def visitors(visits: Visits, seconds: float, seed: int) -> None:
    """Let all visitors come for so long, and measure memory."""
    end = time.monotonic() + seconds
    chances = [random.Random(f"{seed} {number}") for number in range(3)]

    def in_a_browser() -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        from chromium import browser, chromium

        if chromium() is None:
            return until(end, visits, lambda: gradio_visitor(visits, chances[2]))
        with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as tab:
            until(end, visits, lambda: browser_visitor(visits, chances[2], tab))

    works: list[Callable[[], None]] = [
        lambda: until(end, visits, lambda: api_visitor(visits, chances[0])),
        lambda: until(end, visits, lambda: gradio_visitor(visits, chances[1])),
        in_a_browser,
    ]
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        visits.server.measure()
        time.sleep(min(5.0, seconds / 20))


def judged(visits: Visits) -> list[str]:
    """What is left, and how memory went; prints the table."""
    server, wrong = visits.server, visits.wrong
    end = time.monotonic() + 60
    while server.busy() and time.monotonic() < end:
        time.sleep(0.5)
    if server.busy():
        wrong.append("somebody is still in line")
    work = [path.name for path in server.folder.glob("sdtalk-*")]
    wrong += [f"the work folder {name} has stayed" for name in work]
    left = server.end()
    wrong += [f"{name} has stayed when the server ended" for name in left]
    for name, count in sorted(visits.counts.items()):
        print(f"{name:<20} {count:5d}")
    for minute in range(int(server.memory[-1][0] // 60) + 1):
        some = [mb for at, mb in server.memory if at // 60 == minute]
        if some:
            print(f"minute {minute + 1:2d}: {min(some):6.0f} to {max(some):6.0f} MB")
    quarter = len(server.memory) // 4
    before, last = (
        float(np.median([mb for _, mb in server.memory[start : start + max(quarter, 1)]]))
        for start in (quarter, 3 * quarter)
    )
    print(f"memory, second quarter: {before:.0f} MB; last quarter: {last:.0f} MB")
    if server.memory[-1][0] - server.memory[0][0] >= JUDGED_S and last - before > DRIFT_MB:
        wrong.append(f"memory has grown by {last - before:.0f} MB")
    if visits.distances:
        print(f"first frames differ from those made alone by {max(visits.distances):.3f} at most")
    return wrong


def main(argv: list[str] | None = None) -> int:
    """Start a server, let the visitors come, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long they come (10)")
    parser.add_argument("--concurrency", default="1", help="of the server (1)")
    parser.add_argument("--seed", type=int, default=0, help="other visits (0)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = Server.start(folder, ["--concurrency", arguments.concurrency])
        try:
            visits = Visits(server, folder)
            visits.remember_alone()
            server.began = time.monotonic()
            visitors(visits, 60 * arguments.minutes, arguments.seed)
            wrong = judged(visits)
        finally:
            server.process.kill()
        told = (folder / "log.txt").read_text()
        if "Traceback" in told:
            wrong.append(told[-3000:])
    for line in wrong:
        print("WRONG:", line)
    print(f"{len(wrong)} things were wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
