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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.soak_visits import Visits, api_visitor, browser_visitor, gradio_visitor
from sdtalk.cli.bench import resident_mb

ROOT = Path(__file__).resolve().parent.parent
DRIFT_MB, JUDGED_S = 60, 240
"""How much memory may grow from the second quarter to the last, in a run of at least so many seconds."""

PROMISED = {path.name for path in (ROOT / "examples").iterdir()}
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


def until(end: float, visits: Visits, visit: Callable[[], None]) -> None:
    """Visit again and again; what goes wrong is written down."""
    while time.monotonic() < end:
        try:
            visit()
        except Exception:
            visits.wrong.append(traceback.format_exc(limit=-2))


def visitors(visits: Visits, server: Server, seconds: float, seed: int) -> None:
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
        server.measure()
        time.sleep(min(5.0, seconds / 20))


def judged(visits: Visits, server: Server) -> list[str]:
    """What is left, and how memory went; prints the table."""
    wrong = visits.wrong
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
            visits = Visits(server.url, folder)
            visits.remember_alone()
            server.began = time.monotonic()
            visitors(visits, server, 60 * arguments.minutes, arguments.seed)
            wrong = judged(visits, server)
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
